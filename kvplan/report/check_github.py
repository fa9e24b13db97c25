"""A check as GitHub's workflow commands: annotations on the lines of a pull request.

GitHub shows at most ten of a kind for a step, so the worst ten come first and one line sums up the
rest. Text is escaped as actions/toolkit does (packages/core/src/command.ts), so that nothing in a file
can end a command or start another.
"""

from collections.abc import Iterator

from kvplan.deploy.rows import Level, Place
from kvplan.report.answer import Screen
from kvplan.report.check_answer import CheckAnswer
from kvplan.report.check_wording import message, shared_message, summary, where

MAX_ANNOTATIONS = 10
COMMANDS: dict[Level, str] = {"error": "error", "warning": "warning", "note": "notice"}
ORDER: tuple[Level, ...] = ("error", "warning", "note")


def github(answer: CheckAnswer, screen: Screen) -> str:  # noqa: ARG001 - every format takes the screen
    """Write the worst ten annotations, and a summary."""
    found = sorted(_annotations(answer), key=lambda item: ORDER.index(item[0]))
    lines = [annotation(level, place, title, text) for level, place, title, text in found[:MAX_ANNOTATIONS]]
    rest = len(found) - len(lines)
    more = f"; {rest} more not shown here" if rest else ""
    level: Level = "error" if answer.exit_code in (1, 2) else "note"
    lines.append(annotation(level, None, "kvplan", f"{summary(answer.result)}{more}"))
    return "\n".join(lines) + "\n"


def _annotations(answer: CheckAnswer) -> Iterator[tuple[Level, Place | None, str, str]]:
    for problem in answer.result.problems:
        yield "error", problem.at, "kvplan: unreadable", problem.message
    for row in answer.result.rows:
        yield row.level, where(row), f"kvplan: {row.name}", message(row)
    for item in answer.result.shared:
        level: Level = "error" if item.exit_code == 1 else "warning" if item.exit_code else "note"
        yield level, item.at, "kvplan: shared GPU", shared_message(item)


def annotation(level: Level, place: Place | None, title: str, text: str) -> str:
    """Return one workflow command."""
    properties = [f"title={_property(title)}"]
    if place is not None and place.file:
        properties.insert(0, f"file={_property(place.file)}")
        if place.line:
            properties.insert(1, f"line={place.line}")
    return f"::{COMMANDS[level]} {','.join(properties)}::{_data(text)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
