"""Sizes and token counts: how they are typed and how they are printed.

``48GB`` is 48 x 10**9 bytes and ``48GiB`` is 48 x 2**30; a bare ``48`` or ``48G`` is refused,
because those two readings are 3.3 GB apart. ``32k`` and ``32K`` are 32 x 1024 tokens.
"""

import re

from kvplan.errors import InvalidValue
from kvplan.frozen import dataclass

MIB = 1024**2
GIB = 1024**3
GB = 10**9

SIZE_UNITS = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
MAX_SIZE_BYTES = 2**60
MAX_TOKENS = 2**31 - 1

_SIZE = re.compile(r"(\d+)(?:\.(\d+))?\s*([A-Za-z]*)")
_TOKENS = re.compile(r"(\d+)(?:\.(\d+))?([kKmM]?)")
_TOKEN_UNITS = {"": 1, "k": 1024, "m": 1024**2}


@dataclass(frozen=True, slots=True)
class Size:
    """An amount of memory as typed: its bytes and the unit it was typed in."""

    num_bytes: int
    unit: str


def parse_size(text: str) -> Size:
    """Read ``48GB``, ``48GiB`` or ``49140MiB``.

    Raises InvalidValue for anything without a unit, negative, zero or beyond 2**60 bytes.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise InvalidValue(
            f"'{text}' is not a size",
            why="a size is a number and a unit",
            hint="write it like 48GB, 48GiB or 49140MiB",
        )
    whole, fraction, unit = match.group(1), match.group(2) or "", match.group(3)
    scale = SIZE_UNITS.get(unit.casefold())
    if scale is None:
        number = f"{whole}.{fraction}" if fraction else whole
        is_short = unit.casefold() in ("", "k", "m", "g", "t")
        raise InvalidValue(
            f"'{text}' does not say which unit it means" if is_short else f"'{unit}' is not a unit of memory",
            why="GB and GiB differ by 7 percent, which decides many answers",
            hint=f"write {number}GB (10^9 bytes each) or {number}GiB (2^30 bytes each)",
        )
    num_bytes = int(whole + fraction) * scale // 10 ** len(fraction)
    if not 0 < num_bytes <= MAX_SIZE_BYTES:
        raise InvalidValue(
            f"'{text}' is not a size that a machine can have",
            why="sizes go from 1 byte to 1 EiB",
            hint="write it like 48GB, 48GiB or 49140MiB",
        )
    return Size(num_bytes, unit)


def parse_tokens(text: str, what: str = "context") -> int:
    """Read a token count: ``32k`` is 32,768, ``1m`` is 1,048,576, ``32000`` is exact.

    Raises InvalidValue for zero, negative, unreadable or absurd counts.
    """
    match = _TOKENS.fullmatch(text.strip())
    if match is None:
        raise InvalidValue(
            f"'{text}' is not {'an' if what[0] in 'aeiou' else 'a'} {what} length",
            why="a length is a number of tokens, with k for 1,024 or m for 1,048,576",
            hint="write it like 8192, 32k or 1m",
        )
    whole, fraction, unit = match.group(1), match.group(2) or "", match.group(3).casefold()
    tokens: int = int(whole + fraction) * _TOKEN_UNITS[unit] // 10 ** len(fraction)
    if not 0 < tokens <= MAX_TOKENS:
        raise InvalidValue(
            f"'{text}' is not a possible {what} length",
            why=f"lengths go from 1 to {MAX_TOKENS:,} tokens",
            hint="write it like 8192, 32k or 1m",
        )
    return tokens


def format_gib(num_bytes: int) -> str:
    """Print bytes as GiB with two decimals, the only unit reports use."""
    return f"{num_bytes / GIB:,.2f} GiB"


def format_tokens(tokens: int) -> str:
    """Print a token count with thousands separators."""
    return f"{tokens:,}"


def ceil_div(amount: int, unit: int) -> int:
    """Divide, rounding up."""
    return -(-amount // unit)


def round_up(amount: int, unit: int) -> int:
    """Round ``amount`` up to a multiple of ``unit``."""
    return -(-amount // unit) * unit
