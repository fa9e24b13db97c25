"""Dockerfiles: what the image of the last stage starts, with the variables set on the way."""

import re
from collections.abc import Iterator

from kvplan.deploy.carriers.context import Context, launches_of
from kvplan.deploy.launch import GpuHint, Launch
from kvplan.deploy.parameters import expand, lookup_in
from kvplan.deploy.programs import container
from kvplan.deploy.shell_lexer import LineOf, ShellError
from kvplan.deploy.splitting import split_words
from kvplan.deploy.words import Word
from kvplan.errors import UnreadableDeployment

INSTRUCTION = re.compile(r"\s*(?P<name>[A-Za-z]+)\s+(?P<rest>.*)", re.DOTALL)
QUOTED = re.compile(r'"(?P<text>(?:[^"\\]|\\.)*)"')


def is_dockerfile(name: str) -> bool:
    """Tell by its name whether a file is a Dockerfile."""
    return name.startswith(("dockerfile", "containerfile")) or name.endswith(
        (".dockerfile", ".containerfile")
    )


def launches(text: str, context: Context) -> list[Launch]:
    """Return the engine that the image starts. Raises UnreadableDeployment for quotes left open."""
    image: Word | None = None
    env: dict[str, Word] = dict(context.variables)
    programs: dict[str, list[Word]] = {}
    for line, name, rest in _instructions(text):
        try:
            if name == "FROM":
                words = [word for word in split_words(rest, _line_of(rest, line)) if word.text[:2] != "--"]
                image, programs = (_expanded(words[0], env) if words else None), {}
            elif name in ("ENV", "ARG"):
                env.update(_variables(rest, line, env))
            elif name in ("ENTRYPOINT", "CMD"):
                programs[name] = _program(rest, line)
        except ShellError as error:
            raise UnreadableDeployment(context.file.name, error.line, error.problem) from None
    entrypoint, command = programs.get("ENTRYPOINT", []), programs.get("CMD", [])
    try:
        started = container(image, entrypoint, command, env)
    except ShellError as error:
        raise UnreadableDeployment(context.file.name, error.line, error.problem) from None
    return launches_of(started, context, context.file.name.rsplit("/", 1)[-1], GpuHint())


def _instructions(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield (line, name in capitals, the rest with its line ends) of every instruction."""
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        first, kept = at, [lines[at]]
        while kept[-1].rstrip().endswith("\\") and at + 1 < len(lines):
            at += 1
            # A comment between continuation lines is left out, its line is not.
            kept.append("\\" if lines[at].lstrip().startswith("#") else lines[at])
        at += 1
        found = INSTRUCTION.fullmatch("\n".join(kept))
        if found is not None and not kept[0].lstrip().startswith("#"):
            yield first + 1, found.group("name").upper(), found.group("rest")


def _line_of(rest: str, line: int) -> LineOf:
    return lambda offset: line + rest.count("\n", 0, offset)


def _variables(rest: str, line: int, env: dict[str, Word]) -> dict[str, Word]:
    words = split_words(rest, _line_of(rest, line))
    if words and "=" not in words[0].text:
        # The old form: ENV NAME value. ARG without a default defines nothing.
        return {words[0].text: Word(" ".join(word.text for word in words[1:]), line)} if words[1:] else {}
    found: dict[str, Word] = {}
    for word in words:
        name, equals, value = word.text.partition("=")
        if equals:
            found[name] = _expanded(Word(value, word.line), {**env, **found})
    return found


def _program(rest: str, line: int) -> list[Word]:
    """Return the words of ENTRYPOINT or CMD: a JSON list, or a line that a shell runs."""
    if not rest.lstrip().startswith("["):
        return [Word("sh", line), Word("-c", line), Word(rest, line)]
    line_of = _line_of(rest, line)
    return [
        Word(re.sub(r"\\(.)", r"\1", found.group("text")), line_of(found.start()))
        for found in QUOTED.finditer(rest)
    ]


def _expanded(word: Word, env: dict[str, Word]) -> Word:
    if "$" not in word.text:
        return word
    found = expand(word.text, lookup_in(env))
    return Word(found.text, word.line, found.undefined, found.defaulted)
