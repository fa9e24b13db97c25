"""How a flag's value is read, and the shape of a row in an engine's table.

A row is (spellings, option, reader): the option is the engine's own name for the setting, a leading
``!`` negates a switch. A reader raises ValueError for a value it cannot read.
"""

import json
from collections.abc import Callable

Reader = Callable[[str], object]
# reader None: a switch that takes no value.
Flag = tuple[tuple[str, ...], str, Reader | None]


def whole(text: str) -> int:
    """Read a whole number."""
    return int(text)


def share(text: str) -> float:
    """Read a fraction or another real number."""
    return float(text)


def word(text: str) -> str:
    """Read the value as it stands."""
    return text


def mapping(text: str) -> object:
    """Read a JSON object."""
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(text)
    return value


def mapping_or_level(text: str) -> object:
    """Read a JSON object, or a bare level such as vLLM's ``-O 3``."""
    return {"level": int(text)} if text.strip().isdigit() else mapping(text)


def limits(text: str) -> object:
    """Read a JSON object, or ``image=2,video=0`` as vLLM took it to 0.8."""
    if text.lstrip().startswith("{"):
        return mapping(text)
    pairs = [pair.partition("=") for pair in text.split(",")]
    return {name: int(number) for name, _, number in pairs}


def wholes(text: str) -> tuple[int, ...]:
    """Read whole numbers between commas or spaces."""
    return tuple(int(part) for part in text.replace(",", " ").split())


def words(text: str) -> tuple[str, ...]:
    """Read words between commas or spaces."""
    return tuple(text.replace(",", " ").split())


# Readers of lists: a flag takes every word up to the next flag.
LISTS: tuple[Reader, ...] = (wholes, words)
# Readers of objects, whose keys may be given one by one: ``--speculative-config.method mtp``.
OBJECTS: tuple[Reader, ...] = (mapping, mapping_or_level, limits)


def human(text: str) -> int:
    """Read vLLM's counts: ``32k`` is 32,000 and ``32K`` 32,768 (vLLM utils human_readable_int)."""
    scales = {"k": 10**3, "m": 10**6, "g": 10**9, "K": 2**10, "M": 2**20, "G": 2**30}
    if text in ("auto", "-1"):
        return -1
    if text and text[-1] in scales:
        return int(float(text[:-1]) * scales[text[-1]])
    return int(text)


def switch(text: str) -> bool:
    """Read on or off."""
    if text.casefold() in ("1", "true", "on", "yes", "enabled"):
        return True
    if text.casefold() in ("0", "false", "off", "no", "disabled"):
        return False
    raise ValueError(text)
