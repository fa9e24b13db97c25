"""Markdown: the fenced blocks of a text, each with its language and its place."""

import re
from textwrap import dedent

from kvplan.frozen import dataclass

FENCE = re.compile(r"^(?P<indent>\s*)(?P<marks>`{3,}|~{3,})\s*(?P<language>[\w+.-]*)")
SHELLS = ("", "bash", "sh", "shell", "console", "zsh", "shell-session", "shellsession", "text", "txt")
# Language of a block -> a file's name of that kind.
KINDS: dict[str, str] = {
    **dict.fromkeys(("yaml", "yml", "docker-compose", "compose"), "a.yaml"),
    **dict.fromkeys(("json", "jsonc"), "a.json"),
    **dict.fromkeys(("dockerfile", "docker", "containerfile"), "dockerfile"),
    **dict.fromkeys(("powershell", "ps1", "pwsh"), "a.ps1"),
    **dict.fromkeys(("bat", "batch", "cmd"), "a.bat"),
    **dict.fromkeys(("makefile", "make"), "makefile"),
    **dict.fromkeys(("python", "py"), "a.py"),
    "ini": "a.ini",
    "modelfile": "modelfile",
    "systemd": "a.service",
}


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language in small letters, the line of its first line, its text."""

    language: str
    line: int
    text: str

    def in_place(self) -> str:
        """Return the text at the lines where it stands in the file."""
        return "\n" * (self.line - 1) + self.text


def blocks(text: str) -> list[Block]:
    """Return every fenced block; one that never closes goes to the end."""
    found: list[Block] = []
    opened: tuple[int, str, str] | None = None
    body: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        fence = FENCE.match(line)
        if opened is None:
            if fence is not None:
                opened = (number + 1, fence.group("language").casefold(), fence.group("marks")[:3])
                body = []
        elif fence is not None and fence.group("marks").startswith(opened[2]) and not fence.group("language"):
            found.append(Block(opened[1], opened[0], dedent("\n".join(body))))
            opened = None
        else:
            body.append(line)
    if opened is not None:
        found.append(Block(opened[1], opened[0], dedent("\n".join(body))))
    return found
