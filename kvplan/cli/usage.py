"""Typer's complaints about the words of a command line, as kvplan's three lines.

Only the text of a complaint is read: its classes have moved between the releases of Typer. What no
pattern knows is passed on as it stands.
"""

import re
from collections.abc import Sequence

from kvplan.errors import InputError, did_you_mean

# One command line each that works, to write one's own by.
EXAMPLES = {
    "fit": "kvplan fit llama-3-8b --gpu 24GB --ctx 8k",
    "show": "kvplan show llama-3-8b",
    "compare": "kvplan compare llama-3-8b qwen3-8b --gpu 24GB",
    "find": "kvplan find --gpu 24GB --ctx 32k",
    "sweep": "kvplan sweep llama-3-8b --gpu 24GB --ctx 4k..32k --batch 1,8",
    "capacity": "kvplan capacity llama-3-8b --sessions 100 --gpu h100",
    "check": "kvplan check compose.yml --gpu 24GB",
    "verify": "kvplan verify llama-3-8b --ctx 4k --device cpu",
    "diff": "kvplan diff origin/main..HEAD",
    "doctor": "kvplan doctor",
    "list": "kvplan list models llama",
    "schema": "kvplan schema policy",
}

_MISSING = re.compile(r"Missing argument '(?P<name>[^']+)'")
_UNKNOWN = re.compile(r"No such option:? '?(?P<name>-[^\s']*)'?(?P<close>.*)")
_EXTRA = re.compile(r"Got unexpected extra arguments?(?:\(s\))? \((?P<words>.*)\)")
_BARE = re.compile(r"Option '(?P<name>[^']+)' requires an argument")
_SWITCH = re.compile(r"Option '(?P<name>[^']+)' does not take a value")
_VALUE = re.compile(r"Invalid value for '(?P<name>[^']+)'(?: / '[^']+')*: (?P<why>.+)")
# What Typer says of a value (by pydantic, or by click before that), in kvplan's words.
_BOUNDS = (
    (re.compile(r"greater than or equal to (\d+)"), "it takes {0} or more"),
    (re.compile(r"less than or equal to (\d+)"), "it takes {0} or less"),
    (re.compile(r"in the range (\d+)<=x<=(\d+)"), "it takes {0} to {1}"),
    (re.compile(r"in the range x>=(\d+)"), "it takes {0} or more"),
    (re.compile(r"valid integer"), "it takes a whole number"),
    (re.compile(r"valid (?:number|float)"), "it takes a number"),
)


def usage_error(complaints: str, words: Sequence[str], commands: Sequence[str]) -> InputError:
    """Return the error that Typer's ``complaints`` about ``words`` stand for."""
    called = next((word for word in words if not word.startswith("-")), "")
    if called and called not in commands:
        return InputError(
            f"'{called}' is not a command of kvplan",
            why=did_you_mean(called, commands) or f"commands are {', '.join(commands)}",
            hint="see: kvplan --help",
        )
    command = f"kvplan {called}" if called else "kvplan"
    lines = [line.strip() for line in complaints.splitlines() if line.strip()]
    said = next((line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")), "")
    what, why, by_example = _in_words(said, command, words)
    hint = f"write it like: {EXAMPLES[called]}" if by_example and called else f"see: {command} --help"
    return InputError(what, why=why, hint=hint)


def _in_words(said: str, command: str, words: Sequence[str]) -> tuple[str, str, bool]:
    """Return what one complaint says, why, and whether a command line that works answers it."""
    if match := _MISSING.match(said):
        return f"{command} needs {match['name'].removesuffix('...')}", "no word stands in its place", True
    if match := _UNKNOWN.match(said):
        close = re.findall(r"--?[\w-]+", match["close"])
        why = f"did you mean: {', '.join(close)}?" if close else "its help lists those it has"
        return f"{match['name']} is not an option of {command}", why, False
    if match := _EXTRA.match(said):
        what = f"{command} has no place for '{match['words']}'"
        return what, "a word belongs behind its option, or is one too many", True
    if match := _BARE.match(said):
        return f"{match['name']} has no value", "its value is the word behind it", False
    if match := _SWITCH.match(said):
        return f"{match['name']} takes no value", "it is a switch: it is there or it is not", False
    if match := _VALUE.match(said):
        given = _value_of(match["name"], words)
        return f"{match['name']} cannot be {given or 'that'}", _bound(match["why"]), False
    return said or "the command line cannot be read", "the words must match what the command takes", False


def _bound(said: str) -> str:
    for pattern, text in _BOUNDS:
        if match := pattern.search(said):
            return text.format(*(f"{int(number):,}" for number in match.groups()))
    return said


def _value_of(option: str, words: Sequence[str]) -> str:
    """Return what was typed for an option, quoted; an empty string where it cannot be told."""
    for position, word in enumerate(words):
        name, joined, value = word.partition("=")
        if name == option:
            return f"'{value}'" if joined else f"'{words[position + 1]}'" if position + 1 < len(words) else ""
    return ""
