"""Reading YAML that somebody else wrote: bounded, safe, with errors that name the line.

The event stream is walked first (PyYAML's parser needs no recursion for that), so that a document
nested thousands deep or multiplied by aliases is refused before anything is built from it.
"""

from typing import Any

import yaml

from kvplan.errors import InvalidSpec

MAX_YAML_BYTES = 4 * 1024**2
MAX_DEPTH = 64
MAX_ALIASES = 1000

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def load_yaml(text: str, origin: str) -> object:
    """Return the one document in ``text``.

    Raises InvalidSpec, naming ``origin`` and the line, for text that is too large, too deep, or not
    YAML.
    """
    check_yaml(text, origin)
    try:
        return yaml.load(text, Loader=LOADER)
    except (yaml.YAMLError, ValueError) as error:
        raise _invalid(origin, _problem(error), _line(error)) from None


def check_yaml(text: str, origin: str) -> None:
    """Refuse text that is too large, nested too deep, full of aliases, or not YAML."""
    if len(text) > MAX_YAML_BYTES:
        raise _invalid(origin, f"is larger than {MAX_YAML_BYTES // 1024**2} MiB", None)
    depth = num_aliases = 0
    try:
        for event in yaml.parse(text, Loader=LOADER):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > MAX_DEPTH:
                    raise _invalid(origin, f"is nested more than {MAX_DEPTH} deep", _event_line(event))
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            elif isinstance(event, yaml.AliasEvent):
                num_aliases += 1
                if num_aliases > MAX_ALIASES:
                    raise _invalid(origin, f"has more than {MAX_ALIASES} aliases", _event_line(event))
    except (yaml.YAMLError, ValueError) as error:
        raise _invalid(origin, _problem(error), _line(error)) from None


def _event_line(event: yaml.Event) -> int | None:
    mark = event.start_mark
    return None if mark is None else mark.line + 1


def _line(error: Exception) -> int | None:
    mark = getattr(error, "problem_mark", None)
    return None if mark is None else int(mark.line) + 1


def _problem(error: Exception) -> str:
    problem = getattr(error, "problem", None) or getattr(error, "reason", None)
    return f"is not YAML: {problem}" if problem else "is not YAML"


def _invalid(origin: str, problem: str, line: int | None) -> InvalidSpec:
    where = origin if line is None else f"{origin}:{line}"
    return InvalidSpec(
        f"{where} {problem}",
        why="a model spec is a short YAML mapping",
        hint="see one that works: kvplan show llama-3-8b --format yaml",
    )
