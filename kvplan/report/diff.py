"""A change: one row a deployment that differs, with what it costs and which field did it."""

from collections.abc import Iterator, Mapping

from kvplan.deploy.diff import Change, Facts
from kvplan.deploy.rows import Level, Place
from kvplan.report import json_report, sheet
from kvplan.report.answer import Screen
from kvplan.report.check_github import MAX_ANNOTATIONS, annotation
from kvplan.report.diff_answer import DiffAnswer
from kvplan.report.sheet import Sheet, Table
from kvplan.report.wording import VERDICTS
from kvplan.units import GIB, format_gib, format_tokens

COLUMNS = ("deployment", "verdict", "headroom", "KV cache", "weights", "requests", "changed")
MAX_CAUSES = 4


def table(answer: DiffAnswer, screen: Screen) -> str:
    """Draw what changed."""
    return sheet.table(_sheet(answer), screen)


def plain(answer: DiffAnswer, screen: Screen) -> str:
    """Write the rows as tab-separated lines."""
    return sheet.plain(_sheet(answer), screen)


def markdown(answer: DiffAnswer, screen: Screen) -> str:
    """Write a table for a pull request's comment."""
    return sheet.markdown(_sheet(answer), screen)


def csv(answer: DiffAnswer, screen: Screen) -> str:
    """Write one record a changed deployment."""
    return sheet.csv(_sheet(answer), screen)


def github(answer: DiffAnswer, screen: Screen) -> str:  # noqa: ARG001 - every format takes the screen
    """Write an annotation for each change, those that got worse first."""
    changed = sorted(_changed(answer), key=lambda change: not change.worse)
    lines = []
    for change in changed[:MAX_ANNOTATIONS]:
        level: Level = "error" if change.worse else "note"
        facts = change.facts
        lines.append(
            annotation(level, Place(facts.file, facts.line), f"kvplan: {change.name}", sentence(change))
        )
    rest = len(changed) - len(lines)
    more = f"; {rest} more not shown here" if rest else ""
    level = "error" if answer.exit_code in (1, 2) else "note"
    lines.append(annotation(level, None, "kvplan", f"{_summary(answer)}{more}"))
    return "\n".join(lines) + "\n"


def json(answer: DiffAnswer, screen: Screen) -> str:  # noqa: ARG001
    """Write both sides of every deployment, changed or not."""
    return json_report.document(
        "diff",
        answer.exit_code,
        base=answer.base,
        head=answer.head,
        changes=[_as_json(change) for change in answer.result.changes],
        problems=[{"message": text} for text in answer.result.problems],
    )


def _as_json(change: Change) -> dict[str, object]:
    return {
        "name": change.name,
        "file": change.facts.file,
        "worse": change.worse,
        "summary": sentence(change),
        "base": _side(change.base),
        "head": _side(change.head),
        "changed": [
            {"field": name, "before": before, "after": after} for name, before, after in change.causes
        ],
    }


def _side(facts: Facts | None) -> dict[str, object] | None:
    if facts is None:
        return None
    return {
        "verdict": facts.verdict,
        "line": facts.line or None,
        "model": facts.model,
        "engine": {"name": facts.engine, "version": facts.engine_version},
        "gpu": facts.gpu or None,
        "headroom_bytes": facts.headroom_bytes,
        "required_bytes": facts.required_bytes,
        "weights_bytes": facts.weights_bytes,
        "kv_bytes": facts.kv_bytes,
        "context_tokens": facts.context_tokens,
        "max_concurrency": facts.max_concurrency,
        "broken_budgets": list(facts.broken_budgets),
    }


def sentence(change: Change) -> str:
    """Return a change in one line: ``KV cache +6.20 GiB, headroom 9.10 → 2.90 GiB, still fits``."""
    base, head = change.base, change.head
    if base is None or head is None:
        facts = change.facts
        word = "new" if base is None else "gone"
        text = f"{change.name}: {word}: {VERDICTS[facts.verdict].lower()}"
        return f"{text}: {facts.why}" if facts.why else text
    parts = [
        part
        for part in (
            _delta("weights", base.weights_bytes, head.weights_bytes),
            _delta("KV cache", base.kv_bytes, head.kv_bytes),
            _moved("headroom", base.headroom_bytes, head.headroom_bytes),
        )
        if part
    ]
    before, after = VERDICTS[base.verdict].lower(), VERDICTS[head.verdict].lower()
    parts.append(f"still {after}" if before == after else f"{before} → {after}")
    parts += [text for text in head.broken_budgets if change.worse]
    causes = _causes(change)
    return f"{change.name}: {', '.join(parts)}" + (f" ({causes})" if causes else "")


def _delta(name: str, before: int | None, after: int | None) -> str:
    if before is None or after is None or before == after:
        return ""
    return f"{name} {(after - before) / GIB:+,.2f} GiB"


def _moved(name: str, before: int | None, after: int | None) -> str:
    if before is None or after is None or before == after:
        return ""
    return f"{name} {before / GIB:,.2f} → {after / GIB:,.2f} GiB"


def _causes(change: Change) -> str:
    shown = [
        f"{name} {_value(before)} → {_value(after)}" for name, before, after in change.causes[:MAX_CAUSES]
    ]
    rest = len(change.causes) - len(shown)
    return ", ".join([*shown, *([f"and {rest} more"] if rest else [])])


def _value(value: object) -> str:
    if value is None or value == "":
        return "none"
    return format_tokens(value) if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _changed(answer: DiffAnswer) -> list[Change]:
    return [change for change in answer.result.changes if not change.is_same]


def _summary(answer: DiffAnswer) -> str:
    changed = _changed(answer)
    worse = sum(1 for change in changed if change.worse)
    total = len(answer.result.changes)
    if answer.result.problems:
        return f"{len(answer.result.problems)} unreadable, {len(changed)} of {total} deployments changed"
    return f"{len(changed)} of {total} deployments changed, {worse} for the worse"


def _sheet(answer: DiffAnswer) -> Sheet:
    changed = _changed(answer)
    rows = tuple(_row(change) for change in changed)
    whole = Table(COLUMNS, rows, drop=("weights", "changed", "requests"))
    notes = [
        *(f"error: {text}" for text in answer.result.problems),
        *(sentence(change) for change in changed),
    ]
    return Sheet(
        (f"{_summary(answer)} ({answer.base} → {answer.head})",),
        (whole,) if rows else (),
        tuple(notes),
        tuple(_records(changed)),
    )


def _row(change: Change) -> tuple[str, ...]:
    base, head = change.base, change.head
    return (
        change.name,
        _arrow(VERDICTS[base.verdict] if base else "new", VERDICTS[head.verdict] if head else "gone"),
        _arrow(_room(base), _room(head)),
        _arrow(_amount(base.kv_bytes if base else None), _amount(head.kv_bytes if head else None)),
        _arrow(_amount(base.weights_bytes if base else None), _amount(head.weights_bytes if head else None)),
        _arrow(_requests(base), _requests(head)),
        _causes(change),
    )


def _arrow(before: str, after: str) -> str:
    if before == after:
        return after
    return f"{before or '?'} → {after or '?'}"


def _room(facts: Facts | None) -> str:
    return _amount(facts.headroom_bytes if facts else None)


def _amount(num_bytes: int | None) -> str:
    return "" if num_bytes is None else format_gib(num_bytes)


def _requests(facts: Facts | None) -> str:
    return "" if facts is None or facts.max_concurrency is None else f"{facts.max_concurrency:,.1f}"


def _records(changed: list[Change]) -> Iterator[Mapping[str, object]]:
    for change in changed:
        base, head = change.base, change.head
        yield {
            "name": change.name,
            "file": change.facts.file,
            "worse": change.worse,
            "base_verdict": base.verdict if base else "",
            "head_verdict": head.verdict if head else "",
            "base_headroom_bytes": base.headroom_bytes if base else "",
            "head_headroom_bytes": head.headroom_bytes if head else "",
            "base_kv_bytes": base.kv_bytes if base else "",
            "head_kv_bytes": head.kv_bytes if head else "",
            "changed": _causes(change),
        }
