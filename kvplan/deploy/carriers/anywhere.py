"""The last resort for a YAML file of no known shape: containers and commands wherever they stand."""

from collections.abc import Iterator

from kvplan.deploy.carriers.containers import container_launches, whole
from kvplan.deploy.carriers.context import Context, launches_of
from kvplan.deploy.images import engine_of_flags
from kvplan.deploy.launch import GpuHint, Launch
from kvplan.deploy.program_names import MENTIONS
from kvplan.deploy.programs import follow
from kvplan.deploy.shell_lexer import ShellError
from kvplan.deploy.yaml_values import Listing, Table, Text, Value, listing, text

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
    "cmds",
    "commands",
    "beforescript",
)
# Keys whose list is one command an entry, not the words of one.
LINE_KEYS = ("script", "before_script", "cmds", "commands")


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
            script = _script_of(str(key), inner)
            if script is not None:
                if MENTIONS.search(script):
                    yield f"{name}/{key}" if name else str(key), script
            else:
                yield from _walk(
                    inner, str(key) if key not in ("containers", "main") else name or str(key), depth + 1
                )
    elif isinstance(value, list):
        for inner in value:
            if not isinstance(inner, Text):
                yield from _walk(inner, name, depth + 1)


def _script_of(key: str, value: Value) -> Text | None:
    """Return a text, or the lines of a list of commands (GitLab's ``script``, a Taskfile's ``cmds``)."""
    if isinstance(value, Text):
        return value
    items = [item for item in value if isinstance(item, Text)] if isinstance(value, Listing) else []
    if key.casefold() not in LINE_KEYS or not items or len(items) != len(listing(value)):
        return None
    script = Text("\n".join(items))
    script.line = items[0].line
    offset, spans = 0, []
    for item in items:
        spans.append((offset, item.line))
        offset += len(item) + 1
    script.spans = tuple(spans)
    return script


def _is_container(value: Table) -> bool:
    if "args" not in value and "command" not in value:
        return False
    words = [str(item) for item in (*listing(value.get("command")), *listing(value.get("args"))) if item]
    if "image" in value:
        return True
    return bool(engine_of_flags(words)) or any(MENTIONS.search(word) for word in words[:4])
