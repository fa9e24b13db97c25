"""Answers as text: one file per output format, no arithmetic.

``FORMATS`` maps a format's name to ``module:function`` by the kind of answer it renders. ``auto`` is
the table on a terminal and plain elsewhere.
"""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Union

from kvplan.errors import InvalidValue, did_you_mean
from kvplan.report.answer import FitAnswer, ListAnswer, Screen, ShowAnswer

if TYPE_CHECKING:
    from kvplan.report.verify_answer import VerifyAnswer

Answer = Union[FitAnswer, ShowAnswer, ListAnswer, "VerifyAnswer"]

FORMATS: dict[type, dict[str, str]] = {
    FitAnswer: {"table": "table:fit", "plain": "plain:fit", "json": "json_report:fit"},
    ShowAnswer: {
        "table": "show:table",
        "plain": "show:plain",
        "json": "json_report:show",
        "yaml": "spec_yaml:show",
    },
    ListAnswer: {"table": "listing:table", "plain": "listing:plain", "json": "json_report:listing"},
}
# Answers of commands that are imported when they are called, by the name of their class.
CALLED_FORMATS: dict[str, dict[str, str]] = {
    "VerifyAnswer": {"table": "verify:table", "plain": "verify:plain", "json": "verify:json"},
}


def render(answer: Answer, format_name: str, screen: Screen) -> str:
    """Return the answer in a format. Raises InvalidValue for a format this answer does not have."""
    known = FORMATS.get(type(answer)) or CALLED_FORMATS[type(answer).__name__]
    name = ("table" if screen.is_terminal else "plain") if format_name == "auto" else format_name
    target = known.get(name)
    if target is None:
        raise InvalidValue(
            f"'{format_name}' is not an output format here",
            why=did_you_mean(format_name, known) or f"known are auto, {', '.join(known)}",
            hint="leave out --format for a table",
        )
    module, function = target.split(":")
    renderer: Callable[[Answer, Screen], str] = getattr(import_module(f"kvplan.report.{module}"), function)
    return renderer(answer, screen)
