"""A comparison: one column a subject, one row a fact, and the reasons below."""

from collections.abc import Iterator, Mapping

from kvplan.engines.base import Plan
from kvplan.report import json_report, plan_json, sheet
from kvplan.report.answer import Screen
from kvplan.report.compare_answer import CompareAnswer, Subject
from kvplan.report.sheet import Sheet, Table
from kvplan.report.wording import COMPONENTS, VERDICTS, engine_text
from kvplan.speed import decode_rate
from kvplan.units import GIB, format_tokens


def table(answer: CompareAnswer, screen: Screen) -> str:
    """Draw the columns side by side."""
    return sheet.table(_sheet(answer), screen)


def plain(answer: CompareAnswer, screen: Screen) -> str:
    """Write the rows as tab-separated lines."""
    return sheet.plain(_sheet(answer), screen)


def markdown(answer: CompareAnswer, screen: Screen) -> str:
    """Write a pipe table."""
    return sheet.markdown(_sheet(answer), screen)


def csv(answer: CompareAnswer, screen: Screen) -> str:
    """Write one record a subject."""
    return sheet.csv(_sheet(answer), screen)


def json(answer: CompareAnswer, screen: Screen) -> str:  # noqa: ARG001 - every format takes the screen
    """Write every subject as ``kvplan fit`` does, with what sets it apart, and the reasons."""
    return json_report.document(
        "compare",
        answer.exit_code,
        subjects=[_as_json(subject) for subject in answer.subjects],
        differences=[
            {"first": each.first, "second": each.second, "reasons": list(each.reasons)}
            for each in answer.differences
        ],
    )


def _as_json(subject: Subject) -> Mapping[str, object]:
    head: dict[str, object] = {"labels": dict(subject.labels), "command": subject.command}
    if subject.plan is None or subject.verdict is None or subject.limits is None:
        problem = subject.problem
        return head | {
            "verdict": "refused" if problem and problem.exit_code == 2 else "unknown",
            "error": {"code": problem.code, "message": problem.message, "hint": problem.hint}
            if problem
            else None,
        }
    return head | plan_json.planned(
        subject.plan, subject.verdict, subject.limits, subject.plan.workload.context_source
    )


def _sheet(answer: CompareAnswer) -> Sheet:
    subjects = answer.subjects
    columns = ("", *(subject.name for subject in subjects))
    rows = tuple(
        (name, *cells)
        for name, cells in _rows(answer)
        if any(cell not in ("", "-") for cell in cells) and name
    )
    notes = ["~ is calibrated or assumed, the rest exact"]
    for each in answer.differences:
        notes.append(f"why {subjects[each.second].name} differs from {subjects[each.first].name}:")
        notes += [f"  {reason}" for reason in each.reasons]
    for subject in subjects:
        if subject.problem is not None:
            notes.append(f"{subject.name}: {subject.problem.message}")
        elif subject.plan is not None:
            notes += [f"{subject.name}: {refusal.message}" for refusal in subject.plan.refusals[:1]]
            notes += [f"! {subject.name}: {warning.message}" for warning in subject.plan.warnings[:2]]
    head = (f"compared: {answer.shared}",) if answer.shared else ()
    records = tuple(_record(subject) for subject in subjects)
    return Sheet(head, (Table(columns, rows),), tuple(notes), records)


def _rows(answer: CompareAnswer) -> Iterator[tuple[str, list[str]]]:
    subjects = answer.subjects
    yield "verdict", [VERDICTS[_status(subject)] for subject in subjects]
    yield "free GiB", [f"{s.verdict.headroom_bytes / GIB:,.2f}" if s.verdict else "-" for s in subjects]
    plans = [subject.plan for subject in subjects]
    for name in COMPONENTS:
        yield f"{COMPONENTS[name]} GiB", [_part(plan, name) for plan in plans]
    yield "budget GiB", [_budget(plan) for plan in plans]
    yield "KV B a token", [f"{plan.cache.bytes_per_token:,}" if plan else "-" for plan in plans]
    yield (
        "KV MiB a sequence",
        [f"{plan.cache.bytes_per_sequence / 2**20:,.1f}" if plan else "-" for plan in plans],
    )
    yield "weights as", [plan.weights_format if plan else "-" for plan in plans]
    yield (
        "KV as",
        ["/".join(dict.fromkeys((p.kv_dtype_k, p.kv_dtype_v))) if p else "-" for p in plans],
    )
    yield "context", [format_tokens(plan.context_tokens) if plan else "-" for plan in plans]
    yield (
        "longest context",
        [format_tokens(s.limits.max_context_tokens) if s.limits else "-" for s in subjects],
    )
    yield "most sequences", [f"{s.limits.max_sequences:,}" if s.limits else "-" for s in subjects]
    yield "tokens/s", [_rate(plan) for plan in plans]
    yield "engine", [engine_text(plan) if plan else "-" for plan in plans]
    yield "GPUs", [str(len(plan.devices)) if plan else "-" for plan in plans]


def _status(subject: Subject) -> str:
    if subject.verdict is not None:
        return subject.verdict.status
    return "refused" if subject.problem is not None and subject.problem.exit_code == 2 else "unknown"


def _part(plan: Plan | None, name: str) -> str:
    if plan is None or not plan.devices:
        return "-"
    amounts = [part.bytes for part in plan.devices[0].components if part.name == name]
    if not amounts:
        return "-"
    mark = "" if all(amount.basis == "exact" for amount in amounts) else "~"
    return f"{mark}{sum(amount.expected for amount in amounts) / GIB:,.2f}"


def _budget(plan: Plan | None) -> str:
    return f"{plan.devices[0].budget_bytes / GIB:,.2f}" if plan and plan.devices else "-"


def _rate(plan: Plan | None) -> str:
    rate = decode_rate(plan) if plan else None
    return "-" if rate is None else f"~{rate.expected:,.0f}"


def _record(subject: Subject) -> Mapping[str, object]:
    record: dict[str, object] = {**dict(subject.labels), "verdict": _status(subject)}
    plan = subject.plan
    if plan is None or subject.verdict is None or subject.limits is None:
        return record | {"error": subject.problem.message if subject.problem else ""}
    record |= {
        "headroom_bytes": subject.verdict.headroom_bytes,
        "weights_bytes": plan.weights.expected,
        "kv_cache_total_bytes": plan.cache.total.expected,
        "kv_cache_bytes_per_token": plan.cache.bytes_per_token,
        "kv_cache_bytes_per_sequence": plan.cache.bytes_per_sequence,
        "max_context_tokens": subject.limits.max_context_tokens,
        "max_sequences": subject.limits.max_sequences,
        "engine_name": plan.engine_name,
        "engine_version": plan.engine_version,
        "num_gpus": len(plan.devices),
    }
    if plan.devices:
        record["budget_bytes"] = plan.devices[0].budget_bytes
        record["required_bytes"] = plan.devices[0].required.expected
    return record
