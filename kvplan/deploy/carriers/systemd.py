"""systemd: what a service starts, and Podman's quadlets (``.container``)."""

from collections.abc import Iterator

from kvplan.deploy.carriers.context import Context, launches_of
from kvplan.deploy.docker_run import gpus_of
from kvplan.deploy.launch import GpuHint, Launch
from kvplan.deploy.programs import Started, container, follow
from kvplan.deploy.shell_lexer import ShellError
from kvplan.deploy.splitting import split_words
from kvplan.deploy.words import Word
from kvplan.errors import UnreadableDeployment

SUFFIXES = (".service", ".container")


def launches(text: str, context: Context) -> list[Launch]:
    """Return the engine of a unit. Raises UnreadableDeployment for quotes left open."""
    env: dict[str, Word] = dict(context.variables)
    entries = list(_entries(text))
    name = context.file.name.rsplit("/", 1)[-1].rpartition(".")[0]
    image: Word | None = None
    words: list[Word] = []
    hint = GpuHint()
    started: list[Started] = []
    try:
        for key, value in entries:
            if key == "Environment":
                for word in split_words(value.text, value.line_at):
                    variable, _, given = word.text.partition("=")
                    env[variable] = Word(given, word.line)
            elif key == "EnvironmentFile":
                context.note(value.line, f"EnvironmentFile {value.text} was not read")
            elif key == "Image":
                image = value
            elif key == "Exec":
                words = split_words(value.text, value.line_at)
            elif key == "AddDevice":
                hint = gpus_of(value) or hint
        for key, value in entries:
            if key == "ExecStart":
                # Marks in front of the program change how systemd runs it, not what.
                command = value.text.lstrip("-@:+!")
                started += follow(Word(command, value.line, spans=value.spans), env)
        if image is not None:
            started += container(image, (), words, env)
    except ShellError as error:
        raise UnreadableDeployment(context.file.name, error.line, error.problem) from None
    return launches_of(started, context, name, hint)


def _entries(text: str) -> Iterator[tuple[str, Word]]:
    """Yield the settings of a unit, continuation lines included."""
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        first, kept = at, [lines[at]]
        while kept[-1].endswith("\\") and at + 1 < len(lines):
            at += 1
            kept.append("\\" if lines[at].lstrip()[:1] in ("#", ";") else lines[at])
        at += 1
        key, equals, value = "\n".join(kept).partition("=")
        if equals and key.strip().isidentifier():
            yield key.strip(), Word(value.strip(), first + 1)
