"""PowerShell and batch files, spelled as a shell would have them, line by line."""

import re

from kvplan.deploy.carriers.context import Context, launches_of
from kvplan.deploy.launch import GpuHint, Launch
from kvplan.deploy.programs import follow
from kvplan.deploy.shell_lexer import ShellError
from kvplan.deploy.words import Word

# Lines of a batch file that start nothing; what starts a program behind it; an assignment.
NO_COMMAND = re.compile(r"^\s*@?(?:rem\b|::|echo\b|title\b|goto\b|if\b|for\b|\)|:).*$", re.IGNORECASE)
STARTER = re.compile(r"^\s*@?(?:start\s+(?:\"[^\"]*\"\s+)?(?:/\w+\s+)*|call\s+)?", re.IGNORECASE)
SET = re.compile(r"^\s*set\s+\"?(\w+)=([^\"]*)\"?\s*$", re.IGNORECASE)
SUFFIXES = (".ps1", ".bat", ".cmd")


def launches(text: str, name: str, context: Context) -> list[Launch]:
    """Return the engines that a script starts; one that cannot be read is a note."""
    script = _from_powershell(text) if name.endswith(".ps1") else _from_batch(text)
    try:
        started = follow(Word(script, 1), context.variables)
    except ShellError as error:
        context.note(error.line, "a script that kvplan cannot follow")
        return []
    return [launch for item in started for launch in launches_of([item], context, "", item.gpus or GpuHint())]


def _from_powershell(text: str) -> str:
    lines: list[str] = []
    for line in text.split("\n"):
        spelled = re.sub(r"`\s*$", r"\\", line.replace("\\", "/"))
        spelled = re.sub(r"^\s*&\s+", "", spelled)
        spelled = re.sub(r"^\s*\$(?:env:)?(\w+)\s*=\s*(.*)$", r"\1=\2", spelled)
        lines.append(re.sub(r"\$env:(\w+)", r"${\1}", spelled))
    return "\n".join(lines)


def _from_batch(text: str) -> str:
    lines: list[str] = []
    for line in text.split("\n"):
        spelled = re.sub(r"\^\s*$", r"\\", line.replace("\\", "/"))
        spelled = NO_COMMAND.sub("", spelled)
        spelled = STARTER.sub("", spelled)
        spelled = SET.sub(r"\1='\2'", spelled)
        lines.append(re.sub(r"%(\w+)%", r"${\1}", spelled))
    return "\n".join(lines)
