"""Makefiles: the recipes of their targets as scripts, with the variables that the file defines."""

import re

from kvplan.deploy.carriers.context import Context, launches_of
from kvplan.deploy.launch import GpuHint, Launch
from kvplan.deploy.program_names import MENTIONS
from kvplan.deploy.programs import follow
from kvplan.deploy.shell_lexer import ShellError
from kvplan.deploy.words import Word

ASSIGNED = re.compile(
    r"\s*(?:export\s+|override\s+)?(?P<name>[A-Za-z_]\w*)\s*(?:\?|::?|\+)?=\s*(?P<value>.*)"
)
TARGET = re.compile(r"(?P<name>[^\s:#=][^:#=]*?)\s*::?(?!=)")
REFERENCE = re.compile(r"\$[({]([A-Za-z_]\w*)[)}]")
MAX_REPLACEMENTS = 8


def is_makefile(name: str) -> bool:
    """Tell by its name whether a file is a Makefile."""
    return name in ("makefile", "gnumakefile") or name.startswith("makefile.") or name.endswith(".mk")


def launches(text: str, context: Context) -> list[Launch]:
    """Return the engines that recipes start; a recipe that no shell reads is a note."""
    variables: dict[str, str] = {}
    recipes: list[tuple[str, int, list[str]]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        goes_on = bool(recipes) and recipes[-1][2] and recipes[-1][2][-1].endswith("\\")
        if recipes and (line.startswith("\t") or goes_on):
            recipes[-1][2].append(line.strip() if goes_on else line[1:].lstrip("@-+ "))
        elif not line.strip():
            if recipes:
                recipes[-1][2].append("")
        elif found := ASSIGNED.match(line):
            variables[found.group("name")] = found.group("value").split(" #", maxsplit=1)[0].strip()
            recipes.append(("", number + 1, []))
        elif found := TARGET.match(line):
            recipes.append((found.group("name"), number + 1, []))
    given = {name: word.text for name, word in context.variables.items() if word.known}
    launches_found: list[Launch] = []
    for name, first, lines in recipes:
        script = _replaced("\n".join(lines), {**variables, **given})
        if not name or not MENTIONS.search(script):
            continue
        try:
            started = follow(Word(script, first), context.variables)
        except ShellError:
            context.note(first, f"{name}: a recipe that no shell would read")
            continue
        launches_found += launches_of(started, context, name, GpuHint())
    return launches_found


def _replaced(script: str, variables: dict[str, str]) -> str:
    """Replace make's variables; an unknown one becomes the shell's, which does not know it either."""
    for _ in range(MAX_REPLACEMENTS):
        changed = REFERENCE.sub(lambda found: variables.get(found.group(1), f"${{{found.group(1)}}}"), script)
        if changed == script:
            break
        script = changed
    return script.replace("$$", "$")
