"""llama-swap: a command a model, macros, and the groups and sets that are loaded together."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product

from kvplan.deploy.carriers.context import Context, environment, launches_of
from kvplan.deploy.launch import GpuHint, Launch
from kvplan.deploy.programs import started_by
from kvplan.deploy.shell_lexer import ShellError
from kvplan.deploy.splitting import always, split_words
from kvplan.deploy.words import Word
from kvplan.deploy.yaml_values import Listing, Table, Text, Value, dig, listing, table, text
from kvplan.errors import UnreadableDeployment

MAX_ROUNDS = 8
MAX_SETS = 64
_MACRO = re.compile(r"\$\{([A-Za-z0-9_.-]+)\}")


def is_config(document: Table) -> bool:
    """Tell whether a document is llama-swap's: models that have a command."""
    return any("cmd" in table(model) for model in table(document.get("models")).values())


def launches(document: Table, context: Context) -> list[Launch]:
    """Return the engine of every model. Only one runs at a time, unless groups say otherwise."""
    shared = _macros(document.get("macros"))
    together = _together(document)
    found: list[Launch] = []
    for name, value in table(document.get("models")).items():
        model = table(value)
        command = text(model.get("cmd"))
        if command is None:
            continue
        macros = {**shared, **_macros(model.get("macros")), "MODEL_ID": str(name), "PORT": "9999"}
        groups = tuple(label for label, members in together.items() if name in members)
        found += _one(str(name), model, command, macros, groups, context)
    return found


def _one(
    name: str,
    model: Table,
    command: Text,
    macros: Mapping[str, str],
    groups: tuple[str, ...],
    context: Context,
) -> list[Launch]:
    env: dict[str, Word] = {}
    for item in listing(model.get("env")):
        if isinstance(item, Text):
            key, _, value = str(item).partition("=")
            env[key] = Word(value, item.line)
    env.update(environment(model.get("env")) if isinstance(model.get("env"), Table) else {})
    lines = [(number, part) for number, part in _lines(command) if not part.lstrip().startswith("#")]
    words: list[Word] = []
    pending = ""
    try:
        for number, part in lines:
            pending = f"{pending} {part}" if pending else part
            try:
                pieces = split_words(pending.rstrip("\\"), always(number))
            except ShellError:
                # A quote that goes on in the next line.
                continue
            pending = ""
            words += [replaced for word in pieces for replaced in _with_macros(word, macros)]
        if pending:
            split_words(pending, always(command.line))
        started = started_by(words, env)
    except ShellError as error:
        raise UnreadableDeployment(context.file.name, error.line or command.line, error.problem) from None
    if not started:
        context.note(command.line, f"{name}: its command starts no engine that kvplan knows")
    # The config's name of a model is what people call it by, whatever a container is called.
    named = [replace(item, name="") for item in started]
    return launches_of(named, context, name, GpuHint(), groups=groups)


def _lines(command: Text) -> Iterator[tuple[int, str]]:
    starts = [0, *(offset for offset, _ in command.spans if offset)]
    for start, end in zip(starts, [*starts[1:], len(command)], strict=True):
        part = command[start:end].strip("\n")
        if part.strip():
            yield command.line_at(start), part


def _with_macros(word: Word, macros: Mapping[str, str]) -> list[Word]:
    """Replace macros; one that holds several words becomes several."""
    text_ = word.text
    whole = _MACRO.fullmatch(text_)
    for _ in range(MAX_ROUNDS):
        replaced_text = _MACRO.sub(lambda match: macros.get(match.group(1), match.group()), text_)
        if replaced_text == text_ or len(replaced_text) > 20_000:
            break
        text_ = replaced_text
    undefined = tuple(match.group(1) for match in _MACRO.finditer(text_))
    if whole and not undefined:
        return split_words(text_, always(word.line))
    return [replace(word, text=text_, undefined=undefined)]


def _macros(value: Value) -> dict[str, str]:
    return {str(key): str(item).strip() for key, item in table(value).items() if isinstance(item, Text)}


def _together(document: Table) -> dict[str, tuple[str, ...]]:
    """Return which models may be loaded at once, by what says so."""
    found: dict[str, tuple[str, ...]] = {}
    routing = dig(document, "routing", "router", "settings")
    for groups in (document.get("groups"), table(routing).get("groups")):
        for name, value in table(groups).items():
            group = table(value)
            if group.get("swap") == "false":
                found[f"group {name}"] = _texts(group.get("members"))
    for name, members in table(document.get("profiles")).items():
        if isinstance(members, Listing):
            found[f"profile {name}"] = _texts(members)
    for matrix in (document.get("matrix"), table(routing).get("matrix")):
        names = {str(key): str(item) for key, item in table(table(matrix).get("vars")).items()}
        for name, expression in table(table(matrix).get("sets")).items():
            for number, combination in enumerate(_combinations(str(expression), names)):
                found[f"set {name}.{number + 1}"] = combination
    return found


def _texts(value: Value) -> tuple[str, ...]:
    return tuple(str(item) for item in listing(value) if isinstance(item, Text))


def _combinations(expression: str, names: Mapping[str, str]) -> Sequence[tuple[str, ...]]:
    """Return the model sets that ``(a | b) & c`` allows; an expression of another shape gives none."""
    factors = [factor.strip().strip("()") for factor in expression.split("&")]
    choices = [[part.strip() for part in factor.split("|") if part.strip()] for factor in factors]
    if any(not choice for choice in choices) or any(mark in expression for mark in "+*"):
        return []
    sets = list(product(*choices))[:MAX_SETS]
    return [tuple(names.get(part, part) for part in combination) for combination in sets]
