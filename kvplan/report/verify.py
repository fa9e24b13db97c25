"""The verify answer: a table for people, stable lines, and JSON."""

from kvplan.report.answer import Screen
from kvplan.report.verify_answer import VerifyAnswer
from kvplan.units import format_gib
from kvplan.verify.comparison import Comparison

# Figures in bytes beside each other need this much; narrower screens get them one under the other.
MIN_WIDTH = 56
OUTCOMES = {"agrees": "agrees", "differs": "differs", "not_measured": "not measured"}
STYLES = {"agrees": "bold green", "differs": "bold red", "not_measured": "bold magenta"}
STATUSES = {
    "agrees": "agrees",
    "above": "above the plan",
    "below": "below the plan",
    "not_planned": "not planned",
    "not_measured": "not measured",
}
MODES = {
    "allocation": "allocated",
    "transformers": "transformers holds",
    "log": "logged",
    "server": "served",
}


def plain(answer: VerifyAnswer, screen: Screen) -> str:
    """Write one comparison a line, the verdict first."""
    lines = [f"{OUTCOMES[answer.outcome]}: {answer.subject}"]
    for row in answer.rows:
        where = f" [{row.where}]" if row.where else ""
        parts = [f"planned {planned_text(row)}", f"{MODES[answer.mode]} {_measured(row)}"]
        parts.append(STATUSES[row.status])
        if row.why:
            parts.append(row.why)
        lines.append(f"{row.name.replace('_', ' ')}{where}: {'; '.join(parts)}")
    lines += [f"{fact_name(name)}: {fact_text(name, value)}" for name, value in answer.facts.items()]
    lines += [f"explained: {text}" for text in answer.explanation]
    lines += [f"warning: {warning.message} [{warning.code}]" for warning in answer.warnings]
    text = "\n".join(lines) + "\n"
    return text if screen.unicode else text.encode("ascii", "replace").decode("ascii")


def table(answer: VerifyAnswer, screen: Screen) -> str:
    """Draw the comparisons with the verdict above and the explanation below."""
    if screen.width < MIN_WIDTH:
        return plain(answer, screen)
    from rich.table import Table
    from rich.text import Text

    from kvplan.report.drawing import drawing_console, drawn_text

    console = drawing_console(screen, MIN_WIDTH)
    console.print(Text.assemble((OUTCOMES[answer.outcome], STYLES[answer.outcome]), "  ", answer.subject))
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    drawn.add_column("")
    drawn.add_column("planned", justify="right", no_wrap=True)
    drawn.add_column(MODES[answer.mode], justify="right", no_wrap=True)
    drawn.add_column("", overflow="fold")
    for row in answer.rows:
        name = row.name.replace("_", " ")
        note = ": ".join(part for part in (STATUSES[row.status], row.where) if part)
        note += f" ({row.why})" if row.why else ""
        style = "red" if row.status in ("above", "below") and row.decides else ""
        drawn.add_row(name, planned_text(row), _measured(row), Text(note, style=style))
    console.print(drawn)
    facts = ", ".join(f"{fact_name(name)} {fact_text(name, value)}" for name, value in answer.facts.items())
    if facts:
        console.print(Text(facts))
    for text in answer.explanation:
        console.print(Text(f"- {text}"))
    for warning in answer.warnings:
        console.print(Text.assemble(("! ", "yellow"), warning.message))
    text = drawn_text(console)
    return text if screen.unicode else text.encode("ascii", "replace").decode("ascii")


def json(answer: VerifyAnswer, screen: Screen) -> str:  # noqa: ARG001 - every format takes the screen
    """Return every comparison in bytes or counts."""
    from json import dumps

    from kvplan import __version__

    plan = answer.plan
    data: dict[str, object] = {
        "schema": "kvplan/1",
        "kvplan": __version__,
        "command": "verify",
        "verdict": answer.outcome,
        "exit_code": answer.exit_code,
        "mode": answer.mode,
        "subject": answer.subject,
        "comparisons": [
            {
                "name": row.name,
                "where": row.where,
                "unit": row.unit,
                "planned": None
                if row.low is None
                else {"low": row.low, "expected": row.expected, "high": row.high},
                "basis": row.basis,
                "measured": row.measured,
                "rounding": row.rounding,
                "status": row.status,
                "decides": row.decides,
                "why": row.why,
            }
            for row in answer.rows
        ],
        "explanation": list(answer.explanation),
        "measured": dict(answer.facts),
        "warnings": [{"code": warning.code, "message": warning.message} for warning in answer.warnings],
    }
    if plan is not None:
        data["model"] = {"id": plan.model.name, "source": plan.model.source, "repo": plan.model.repo}
        data["engine"] = {
            "name": plan.engine_name,
            "version": plan.engine_version,
            "options": dict(plan.engine_options),
        }
    return dumps(data, indent=2, ensure_ascii=True, default=str) + "\n"


def planned_text(row: Comparison) -> str:
    """Return the planned figure with its bounds where they differ."""
    if row.expected is None:
        return "-"
    if row.low == row.high:
        return _amount(row.expected, row)
    return f"{_amount(row.expected, row)} ({_bare(row.low, row)} to {_bare(row.high, row)})"


def _measured(row: Comparison) -> str:
    return "-" if row.measured is None else _amount(row.measured, row)


def _amount(value: float, row: Comparison) -> str:
    if row.unit == "bytes":
        # An exact count is compared in bytes, so it is shown in bytes.
        exact = row.basis == "exact" and not row.rounding
        return f"{int(value):,} B" if exact else format_gib(int(value))
    if row.unit == "requests":
        return f"{value:,.2f}"
    return f"{int(value):,} {row.unit}"


def _bare(value: float | None, row: Comparison) -> str:
    if value is None:
        return "-"
    return f"{value / 2**30:,.2f}" if row.unit == "bytes" else f"{value:,.2f}".removesuffix(".00")


def fact_name(name: str) -> str:
    """Return a fact's name in words."""
    return name.removesuffix("_bytes").replace("_", " ")


def fact_text(name: str, value: object) -> str:
    """Return a measured fact as people read it: bytes in GiB, seconds in seconds."""
    if value is None:
        return "not known"
    if isinstance(value, int) and name.endswith("bytes"):
        return format_gib(value)
    if isinstance(value, float):
        return f"{value:.2f}" + (" s" if name == "seconds" else "")
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
