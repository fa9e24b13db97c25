"""Engine settings written as keys of a file, turned back into the engine's own flags."""

import json
import re

from kvplan.deploy.words import Word
from kvplan.deploy.yaml_values import Listing, Table, Text, Value


def flag_words(values: Table, *, camel: bool = False, underscores: bool = False) -> list[Word]:
    """Return ``--flag value`` words for the keys of a mapping, at the keys' lines.

    ``true`` becomes a switch, ``false`` and null nothing (``no-`` is put in front of ``enable-``
    switches that are false), objects become JSON.
    """
    words: list[Word] = []
    for key, value in values.items():
        line = key.line if isinstance(key, Text) else values.line
        name = _kebab(key) if camel else key
        if not underscores:
            name = name.replace("_", "-")
        flag = f"--{name}"
        if value is None:
            continue
        if isinstance(value, Text):
            folded = value.strip().casefold()
            if folded == "true":
                words.append(Word(flag, line))
            elif folded == "false":
                if name.startswith("enable-"):
                    words.append(Word(f"--no-{name}", line))
            else:
                words += [Word(flag, line), Word(str(value), value.line)]
        elif isinstance(value, Listing) and all(isinstance(item, Text) for item in value):
            words.append(Word(flag, line))
            words += [Word(str(item), item.line) for item in value if isinstance(item, Text)]
        else:
            words += [Word(flag, line), Word(json.dumps(plain(value)), line)]
    return words


def _kebab(key: str) -> str:
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"-\1", key).casefold()


def plain(value: Value) -> object:
    """Return a value as JSON would have it: numbers and truth values where they look like it."""
    if isinstance(value, Table):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, Listing):
        return [plain(inner) for inner in value]
    if value is None:
        return None
    if value.casefold() in ("true", "false"):
        return value.casefold() == "true"
    for number in (int, float):
        try:
            return number(value)
        except ValueError:
            continue
    return str(value)


def without_scheme(word: Word) -> Word:
    """Drop a URI's ``hf://``; other schemes stay and mark the model as not the Hub's."""
    from dataclasses import replace

    text = word.text.strip()
    for scheme in ("hf://", "huggingface://"):
        if text.startswith(scheme):
            return replace(word, text=text.removeprefix(scheme).strip("\"'"))
    return word
