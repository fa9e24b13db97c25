"""Lines read by a table: which pattern says which amounts, counts and settings.

A row of amounts is (pattern, bytes of its unit, a name for each group); a row of counts or settings is
(pattern, a name for each group). What is printed again stands in place of what was printed before.
"""

import re
from collections.abc import Iterable, Sequence

from kvplan.frozen import dataclass
from kvplan.verify.log_text import Line
from kvplan.verify.readings import Reading, amount, last_of_each

NUMBER = r"(-?[\d,]*\.?\d+)"

AmountRow = tuple[str, int, tuple[str, ...]]
NameRow = tuple[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Table:
    """An engine's patterns, compiled once: amounts with their unit, counts, settings (words)."""

    amounts: tuple[tuple[re.Pattern[str], int, tuple[str, ...]], ...]
    counts: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...]
    settings: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...]


def table(amounts: Sequence[AmountRow], counts: Sequence[NameRow], settings: Sequence[NameRow]) -> Table:
    """Compile an engine's rows; upper and lower case are one."""
    return Table(
        tuple((re.compile(text, re.IGNORECASE), unit, names) for text, unit, names in amounts),
        tuple((re.compile(text, re.IGNORECASE), names) for text, names in counts),
        tuple((re.compile(text, re.IGNORECASE), names) for text, names in settings),
    )


@dataclass(frozen=True, slots=True)
class Printed:
    """What the lines said by a table."""

    amounts: tuple[Reading, ...]
    counts: dict[str, float]
    settings: dict[str, object]


def printed(lines: Iterable[Line], rows: Table) -> Printed:
    """Read every line by the rows of a table."""
    amounts: list[Reading] = []
    counts: dict[str, float] = {}
    settings: dict[str, object] = {}
    for line in lines:
        for pattern, unit, names in rows.amounts:
            for found in pattern.finditer(line.text):
                amounts += [
                    amount(name, text, unit, line.rank)
                    for name, text in zip(names, found.groups(), strict=True)
                    if text is not None
                ]
        for pattern, names in rows.counts:
            for found in pattern.finditer(line.text):
                for name, text in zip(names, found.groups(), strict=True):
                    if text is not None:
                        counts[name] = float(text.replace(",", ""))
        for pattern, names in rows.settings:
            for found in pattern.finditer(line.text):
                settings |= {
                    name: text for name, text in zip(names, found.groups(), strict=True) if text is not None
                }
    return Printed(last_of_each(amounts), counts, settings)


def last_said(pattern: re.Pattern[str], lines: Iterable[Line]) -> str:
    """Return the last line that matches, its end where it is long; empty where none does."""
    found = [line.text for line in lines if pattern.search(line.text)]
    return found[-1][-400:] if found else ""
