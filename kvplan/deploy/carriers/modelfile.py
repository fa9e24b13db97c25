"""Ollama's Modelfile: FROM, PARAMETER, ADAPTER. Keywords in any case."""

from kvplan.deploy.carriers.context import Context, launches_of
from kvplan.deploy.flags.ollama import MODELFILE
from kvplan.deploy.launch import GpuHint, Launch
from kvplan.deploy.programs import Started
from kvplan.deploy.words import Word

MULTILINE = '"""'


def is_modelfile(name: str, text: str) -> bool:
    """Tell whether a file is a Modelfile: by its name and a FROM, or by a FROM and a PARAMETER."""
    words = [line.split(None, 1)[0].upper() for line in text.splitlines() if line.split(None, 1)]
    named = "modelfile" in name.casefold()
    instructions = {"PARAMETER", "TEMPLATE", "SYSTEM", "MESSAGE", "ADAPTER"}
    return "FROM" in words and (named or bool(instructions.intersection(words)))


def launches(text: str, context: Context) -> list[Launch]:
    """Return the one model of a Modelfile."""
    model: Word | None = None
    flags: list[Word] = []
    quoted = False
    for number, line in enumerate(text.splitlines(), start=1):
        marks = line.count(MULTILINE)
        inside, quoted = quoted, quoted != (marks % 2 == 1)
        parts = line.split(None, 2)
        if inside or len(parts) < 2:
            continue
        keyword = parts[0].upper()
        if keyword == "FROM":
            model = Word(line.split(None, 1)[1].strip().strip("\"'"), number)
        elif keyword == "PARAMETER" and len(parts) == 3:
            flag = MODELFILE.get(parts[1].casefold())
            if flag is not None:
                flags += [Word(flag, number), Word(parts[2].strip().strip("\"'"), number)]
        elif keyword == "ADAPTER":
            flags += [Word("--adapter", number), Word(parts[1], number)]
    if model is None:
        context.note(1, "a Modelfile without FROM")
        return []
    started = Started("ollama", (model, *flags), model.line)
    name = context.file.name.rsplit("/", 1)[-1]
    return launches_of([started], context, name, GpuHint())
