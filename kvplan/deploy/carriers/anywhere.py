"""The last resort for a YAML file of no known shape: containers and commands wherever they stand."""

from collections.abc import Iterator

from kvplan.deploy.carriers.containers import container_launches, whole
from kvplan.deploy.carriers.context import Context, launches_of
from kvplan.deploy.images import engine_of_flags
from kvplan.deploy.launch import GpuHint, Launch
from kvplan.deploy.programs import MENTIONS, follow
from kvplan.deploy.shell_lexer import ShellError
from kvplan.deploy.yaml_values import Table, Text, Value, listing, text

MAX_DEPTH = 40
# Values that describe rather than start: prose with commands in it is no deployment.
PROSE = ("description", "guide", "notes", "comment", "readme", "message", "annotations", "help")
COMMAND_KEYS = (
    "command",
    "cmd",
    "run",
    "script",
    "entrypoint",
    "start",
    "exec",
    "launch",
    "serve",
    "customcommand",
)


def launches(document: Value, context: Context) -> list[Launch]:
    """Return the engines that something inside a document starts."""
    found: list[Launch] = []
    for name, value in _walk(document, "", 0):
        if isinstance(value, Table):
            found += container_launches(value, context, name)
            continue
        key, script = name.rpartition("/")[::2]
        if script.casefold().replace("_", "") not in COMMAND_KEYS:
            continue
        try:
            started = follow(whole(value), context.variables)
        except ShellError:
            context.note(value.line, "a command that no shell would read")
            continue
        found += launches_of(started, context, key or script, GpuHint())
    return found


def _walk(value: Value, name: str, depth: int) -> Iterator[tuple[str, Table | Text]]:
    if depth > MAX_DEPTH:
        return
    if isinstance(value, Table):
        if _is_container(value):
            yield str(text(value.get("name")) or name), value
            return
        for key, inner in value.items():
            if str(key).casefold() in PROSE:
                continue
            if isinstance(inner, Text):
                if MENTIONS.search(inner):
                    yield f"{name}/{key}" if name else str(key), inner
            else:
                yield from _walk(
                    inner, str(key) if key not in ("containers", "main") else name or str(key), depth + 1
                )
    elif isinstance(value, list):
        for inner in value:
            if not isinstance(inner, Text):
                yield from _walk(inner, name, depth + 1)


def _is_container(value: Table) -> bool:
    if "args" not in value and "command" not in value:
        return False
    words = [str(item) for item in (*listing(value.get("command")), *listing(value.get("args"))) if item]
    if "image" in value:
        return True
    return bool(engine_of_flags(words)) or any(MENTIONS.search(word) for word in words[:4])
