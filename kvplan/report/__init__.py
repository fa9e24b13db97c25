"""Answers as text: one file per output format, no arithmetic.

``FORMATS`` maps a format's name to ``module:function`` by the class of the answer it renders, named
so that no answer is imported before it is made. ``auto`` is the table on a terminal and plain
elsewhere.
"""

from collections.abc import Callable, Sequence
from importlib import import_module

from kvplan.errors import InvalidValue, did_you_mean
from kvplan.report.answer import Screen, Setting

Answer = object


def _sheet_formats(module: str) -> dict[str, str]:
    """Return the formats of an answer that is a sheet: its module lays it out and writes its JSON."""
    return {name: f"{module}:{name}" for name in ("table", "plain", "json", "markdown", "csv")}


FORMATS: dict[str, dict[str, str]] = {
    "FitAnswer": {"table": "table:fit", "plain": "plain:fit", "json": "json_report:fit"},
    "ShowAnswer": {
        "table": "show:table",
        "plain": "show:plain",
        "json": "json_report:show",
        "yaml": "spec_yaml:show",
    },
    "ListAnswer": {"table": "listing:table", "plain": "listing:plain", "json": "json_report:listing"},
    "CheckAnswer": {
        **_sheet_formats("check"),
        "github": "check_github:github",
        "junit": "check_junit:junit",
        "sarif": "check_sarif:sarif",
    },
    "DiffAnswer": {**_sheet_formats("diff"), "github": "diff:github"},
    "DoctorAnswer": {name: f"doctor:{name}" for name in ("table", "plain", "json", "markdown")},
    "CompareAnswer": _sheet_formats("compare"),
    "FindAnswer": _sheet_formats("find"),
    "CapacityAnswer": {**_sheet_formats("capacity"), "json": "capacity_json:json"},
    "VerifyAnswer": {"table": "verify:table", "plain": "verify:plain", "json": "verify:json"},
    "SweepAnswer": {**_sheet_formats("sweep"), "svg": "sweep_chart:svg", "html": "sweep_page:html"},
}


def render(answer: Answer, format_name: str, screen: Screen, settings: Sequence[Setting] = ()) -> str:
    """Return the answer in a format, with the settings that nobody typed.

    Raises InvalidValue for a format this answer does not have.
    """
    known = FORMATS[type(answer).__name__]
    name = ("table" if screen.is_terminal else "plain") if format_name == "auto" else format_name
    target = known.get(name)
    if target is None:
        raise InvalidValue(
            f"'{format_name}' is not an output format here",
            why=did_you_mean(format_name, known) or f"known are auto, {', '.join(known)}",
            hint="name one that is known, or leave it out: a table on screen",
        )
    module, function = target.split(":")
    renderer: Callable[[Answer, Screen], str] = getattr(import_module(f"kvplan.report.{module}"), function)
    text = renderer(answer, screen)
    if not settings:
        return text
    from kvplan.report.settings import told

    return told(text, name, settings, screen)
