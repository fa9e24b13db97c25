"""The state of an installation, as lines to paste into a bug report."""

from kvplan.report import json_report, sheet
from kvplan.report.answer import Screen
from kvplan.report.doctor_answer import DoctorAnswer
from kvplan.report.sheet import Sheet, Table


def table(answer: DoctorAnswer, screen: Screen) -> str:
    """Draw what was found."""
    return sheet.table(_sheet(answer), screen)


def plain(answer: DoctorAnswer, screen: Screen) -> str:
    """Write what was found as tab-separated lines."""
    return sheet.plain(_sheet(answer), screen)


def markdown(answer: DoctorAnswer, screen: Screen) -> str:
    """Write what was found for an issue."""
    return sheet.markdown(_sheet(answer), screen)


def json(answer: DoctorAnswer, screen: Screen) -> str:  # noqa: ARG001 - every format takes the screen
    """Write what was found as objects."""
    return json_report.document(
        "doctor",
        0,
        findings=[
            {
                "topic": item.topic,
                "name": item.name,
                "value": item.value,
                "ok": item.ok,
                "hint": item.hint,
            }
            for item in answer.findings
        ],
    )


def _sheet(answer: DoctorAnswer) -> Sheet:
    rows = tuple(
        (item.topic, item.name, item.value if item.ok else f"missing: {item.value}")
        for item in answer.findings
    )
    missing = [item for item in answer.findings if not item.ok]
    head = (
        "nothing is missing"
        if not missing
        else f"{len(missing)} missing, none of it needed for every command"
    )
    notes = tuple(f"{item.name}: {item.hint}" for item in missing if item.hint)
    return Sheet((head,), (Table(("topic", "what", "found"), rows),), notes)
