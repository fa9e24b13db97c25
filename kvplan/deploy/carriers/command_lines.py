"""Shell scripts, bare command lines, and the fenced blocks of Markdown."""

import re

from kvplan.deploy.carriers.context import Context, launches_of
from kvplan.deploy.launch import GpuHint, Launch
from kvplan.deploy.programs import MENTIONS, follow
from kvplan.deploy.shell_lexer import ShellError
from kvplan.deploy.words import Word
from kvplan.errors import UnreadableDeployment

FENCE = re.compile(r"^(?P<indent>\s*)(?P<marks>`{3,}|~{3,})\s*(?P<language>[\w+-]*)")
SHELL_LANGUAGES = ("", "bash", "sh", "shell", "console", "zsh", "shell-session", "text")
PROMPT = re.compile(r"^(\s*)[$>#%]\s+(?=\S)")


def script_launches(text: str, context: Context) -> list[Launch]:
    """Return the engines that a script starts. Raises UnreadableDeployment for one no shell reads."""
    return _follow(Word(text, 1), context, "")


def markdown_launches(text: str, context: Context) -> list[Launch]:
    """Return the engines of the commands in fenced blocks, each block on its own."""
    found: list[Launch] = []
    for line, language, body in fenced_blocks(text):
        if language not in SHELL_LANGUAGES or not MENTIONS.search(body):
            continue
        if language in ("console", "shell-session") or re.search(r"^\s*\$ ", body, re.MULTILINE):
            typed = _typed(body)
        else:
            typed = body
        found += _follow(Word(typed, line), context, f"line {line}")
    return found


def fenced_blocks(text: str) -> list[tuple[int, str, str]]:
    """Return (first line, language, text) of every fenced block; one that never closes goes to the end."""
    blocks: list[tuple[int, str, str]] = []
    opened: tuple[int, str, str] | None = None
    body: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        fence = FENCE.match(line)
        if opened is None:
            if fence is not None:
                opened = (number + 1, fence.group("language").casefold(), fence.group("marks")[:3])
                body = []
        elif fence is not None and fence.group("marks").startswith(opened[2]) and not fence.group("language"):
            blocks.append((opened[0], opened[1], "\n".join(body)))
            opened = None
        else:
            body.append(line)
    if opened is not None:
        blocks.append((opened[0], opened[1], "\n".join(body)))
    return blocks


def _typed(body: str) -> str:
    """Keep what was typed behind a prompt, and its continuation lines; the rest is output."""
    kept: list[str] = []
    goes_on = False
    for line in body.split("\n"):
        prompt = PROMPT.match(line)
        if prompt or goes_on:
            typed = PROMPT.sub("", line)
            kept.append(typed)
            goes_on = typed.rstrip().endswith("\\")
        else:
            kept.append("")
    return "\n".join(kept)


def _follow(script: Word, context: Context, name: str) -> list[Launch]:
    try:
        started = follow(script, context.variables)
    except ShellError as error:
        raise UnreadableDeployment(context.file.name, error.line, error.problem) from None
    found: list[Launch] = []
    for item in started:
        found += launches_of([item], context, name and f"{name}", item.gpus or GpuHint())
    return found
