"""A check: one row an engine, then what shares a card, what failed and why, what was passed over."""

from collections.abc import Iterator, Mapping

from kvplan.deploy.rows import Place, Row, SharedGpu
from kvplan.report import json_report, plan_json, sheet
from kvplan.report.answer import Screen
from kvplan.report.check_answer import CheckAnswer
from kvplan.report.check_wording import (
    context,
    engine_name,
    reasons,
    requests,
    room,
    shared_message,
    summary,
    verdict_word,
    where,
)
from kvplan.report.sheet import Sheet, Table

COLUMNS = ("deployment", "verdict", "headroom", "requests", "gpu", "model", "engine", "context", "where")
MAX_SKIPPED = 5


def table(answer: CheckAnswer, screen: Screen) -> str:
    """Draw the rows and what is to be said of them."""
    return sheet.table(_sheet(answer), screen)


def plain(answer: CheckAnswer, screen: Screen) -> str:
    """Write the rows as tab-separated lines, and one line a remark."""
    return sheet.plain(_sheet(answer, every_note=True), screen)


def markdown(answer: CheckAnswer, screen: Screen) -> str:
    """Write a table for a pull request's comment or a job's summary."""
    return sheet.markdown(_sheet(answer), screen)


def csv(answer: CheckAnswer, screen: Screen) -> str:
    """Write one record an engine."""
    return sheet.csv(_sheet(answer), screen)


def json(answer: CheckAnswer, screen: Screen) -> str:  # noqa: ARG001 - every format takes the screen
    """Write everything: a plan for every engine that has one."""
    result = answer.result
    return json_report.document(
        "check",
        answer.exit_code,
        verdict=result.status,
        deployments=[row_as_json(row) for row in result.rows],
        shared_gpus=[_shared_as_json(item) for item in result.shared],
        problems=[
            {**_place(item.at), "message": item.message, "hint": item.hint} for item in result.problems
        ],
        skipped=[{**_place(item.at), "message": item.message} for item in result.skipped],
    )


def row_as_json(row: Row) -> dict[str, object]:
    """Return a row with its plan."""
    return {
        "name": row.name,
        **_place(row.at),
        "verdict": row.status,
        "exit_code": row.exit_code,
        "engine": {"name": row.engine, "version": row.engine_version},
        "model": {"written": row.model, "id": row.model_id or None},
        "gpu": row.gpu or None,
        "headroom_bytes": row.headroom_bytes,
        "max_concurrency": row.plan.max_concurrency if row.plan is not None else None,
        "why": row.why,
        "fix": row.fix,
        "flag": {"name": row.flag, **_place(row.flag_at)} if row.flag_at is not None else None,
        "unknown_flags": [{"name": name, "line": line} for name, line in row.unknown_flags],
        "broken_budgets": list(row.broken_budgets),
        "notes": list(row.notes),
        "settings": dict(row.settings),
        "plan": plan_json.whole_plan(row.plan, row.plan.workload.context_source)
        if row.plan is not None
        else None,
    }


def _shared_as_json(item: SharedGpu) -> dict[str, object]:
    return {
        "file": item.file,
        "group": item.group,
        "gpu": item.gpu or None,
        "index": item.index,
        "deployments": list(item.names),
        "verdict": item.status,
        "exit_code": item.exit_code,
        "required_bytes": item.required_bytes,
        "limit_bytes": item.limit_bytes,
        "why": item.why,
    }


def _place(place: Place) -> dict[str, object]:
    return {"file": place.file, "line": place.line or None}


def _sheet(answer: CheckAnswer, *, every_note: bool = False) -> Sheet:
    result = answer.result
    rows = tuple(
        (
            row.name,
            verdict_word(row),
            room(row),
            requests(row),
            row.gpu,
            row.model_id or row.model,
            engine_name(row),
            context(row),
            str(row.at),
        )
        for row in result.rows
    )
    whole = Table(
        COLUMNS, rows, drop=("context", "engine", "model", "requests", "gpu"), right=("headroom", "requests")
    )
    return Sheet(
        (summary(result),),
        (whole,) if rows else (),
        tuple(_notes(answer, every_note=every_note)),
        tuple(_record(row) for row in result.rows),
    )


def _notes(answer: CheckAnswer, *, every_note: bool) -> Iterator[str]:
    result = answer.result
    for problem in result.problems:
        yield f"{problem.at}: error: {problem.message}"
    for row in result.rows:
        for reason in reasons(row):
            flag = f" {row.flag}:" if row.flag and row.exit_code == 1 else ""
            yield f"{where(row)}: {row.name}:{flag} {reason}"
        if row.unknown_flags:
            names = ", ".join(f"{name} (line {line})" for name, line in row.unknown_flags)
            yield f"{row.at}: {row.name}: not read: {names}"
        if every_note or row.exit_code:
            for note in row.notes:
                yield f"{row.at}: {row.name}: note: {note}"
    for item in result.shared:
        yield f"{item.at or item.file}: {shared_message(item)}"
    shown = result.skipped if every_note else result.skipped[:MAX_SKIPPED]
    for skipped in shown:
        yield f"{skipped.at}: skipped: {skipped.message}"
    if len(shown) < len(result.skipped):
        yield f"and {len(result.skipped) - len(shown)} more skipped: see --format plain"


def _record(row: Row) -> Mapping[str, object]:
    return {
        "name": row.name,
        "file": row.at.file,
        "line": row.at.line,
        "verdict": row.status,
        "exit_code": row.exit_code,
        "engine": row.engine,
        "engine_version": row.engine_version,
        "model": row.model_id or row.model,
        "gpu": row.gpu,
        "context_tokens": row.plan.context_tokens if row.plan is not None else "",
        "headroom_bytes": "" if row.headroom_bytes is None else row.headroom_bytes,
        "max_concurrency": row.plan.max_concurrency if row.plan is not None else "",
        "why": row.why,
        "fix": row.fix,
    }
