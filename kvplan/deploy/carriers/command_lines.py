"""Shell scripts and bare command lines, as files or as blocks of a text; and what Slurm gives them."""

import re

from kvplan.deploy.carriers.context import Context, launches_of
from kvplan.deploy.launch import GpuHint, Launch
from kvplan.deploy.program_names import MENTIONS
from kvplan.deploy.programs import follow
from kvplan.deploy.shell_lexer import ShellError
from kvplan.deploy.words import Word
from kvplan.errors import UnreadableDeployment

PROMPT = re.compile(r"^(\s*)[$>#%]\s+(?=\S)")
SLURM = re.compile(
    r"#SBATCH\s+-{0,2}(?P<option>gres|gpus-per-node|gpus-per-task|gpus|G|nodes|N)[=\s]+(?P<value>\S+)"
)
SLURM_GPU = re.compile(r"(?:gpu:)?(?:(?P<name>[A-Za-z][\w.-]*):)?(?P<count>\d+)")


def script_launches(text: str, context: Context) -> list[Launch]:
    """Return the engines that a script starts. Raises UnreadableDeployment for one no shell reads."""
    gpus, variables = slurm(text)
    given = Context(context.file, {**variables, **context.variables}, context.documents, context.notes)
    return _follow(Word(text, 1), given, "", gpus)


def block_launches(body: str, line: int, language: str, context: Context) -> list[Launch]:
    """Return the engines of a text's block: what is typed behind prompts, or all of it."""
    if not MENTIONS.search(body):
        return []
    prompted = language in ("console", "shell-session", "shellsession")
    typed = _typed(body) if prompted or re.search(r"^\s*\$ ", body, re.MULTILINE) else body
    return _follow(Word(typed, line), context, f"line {line}", GpuHint())


def slurm(text: str) -> tuple[GpuHint, dict[str, Word]]:
    """Return the GPUs of a node that ``#SBATCH`` lines ask for, and the variables Slurm sets of them."""
    hint, variables = GpuHint(), {}
    for number, line in enumerate(text.splitlines(), start=1):
        found = SLURM.match(line)
        if found is None:
            continue
        option, value = found.group("option"), found.group("value")
        if option in ("nodes", "N"):
            variables["SLURM_NNODES"] = variables["SLURM_JOB_NUM_NODES"] = Word(value, number)
            continue
        asked = SLURM_GPU.fullmatch(value)
        if asked is None:
            continue
        names = (asked.group("name"),) if asked.group("name") not in (None, "gpu") else ()
        hint = GpuHint(names, number, int(asked.group("count")))
        variables["SLURM_GPUS_ON_NODE"] = Word(asked.group("count"), number)
    return hint, variables


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


def _follow(script: Word, context: Context, name: str, gpus: GpuHint) -> list[Launch]:
    try:
        started = follow(script, context.variables)
    except ShellError as error:
        raise UnreadableDeployment(context.file.name, error.line, error.problem) from None
    found: list[Launch] = []
    for item in started:
        found += launches_of([item], context, name, item.gpus or gpus)
    return found
