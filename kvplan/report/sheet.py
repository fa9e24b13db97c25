"""Tables with lines above and below: as aligned text, tab-separated lines, Markdown and CSV.

A command lays its answer out once as a ``Sheet``; the four forms are written here. On a narrow
screen a table first leaves out the columns it names in ``drop``, then continues its columns below,
the first one repeated. Nothing is said by colour alone: a verdict is a word.
"""

import csv as csv_format
import re
from collections.abc import Iterator, Mapping, Sequence
from io import StringIO
from textwrap import wrap

from kvplan.frozen import dataclass
from kvplan.report.answer import Screen
from kvplan.report.spelling import spelled
from kvplan.report.wording import VERDICTS

GAP = 2
MIN_WIDTH = 20
# The first word of a cell that says how it went: in capitals in a list, small in a matrix.
WORDS: dict[str, str] = {
    **{word: status for status, word in VERDICTS.items()},
    "fits": "fits",
    "tight": "tight",
    "slow": "offload",
    "no": "does_not_fit",
    "refused": "refused",
}
COLORS = {
    "fits": "\x1b[1;32m",
    "tight": "\x1b[1;33m",
    "offload": "\x1b[1;33m",
    "does_not_fit": "\x1b[1;31m",
    "refused": "\x1b[1;31m",
    "unknown": "\x1b[1;35m",
}
RESET = "\x1b[0m"
_COMMAND = re.compile(r"(?:^|: |  )kvplan [a-z]")


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under column names.

    ``drop`` names the columns that a narrow screen can do without, the least needed first. Columns
    in ``right`` are set flush right.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    heading: str = ""
    drop: tuple[str, ...] = ()
    right: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sheet:
    """Lines, tables, lines. ``records`` are the same facts for scripts: what CSV writes."""

    head: tuple[str, ...]
    tables: tuple[Table, ...]
    notes: tuple[str, ...] = ()
    records: tuple[Mapping[str, object], ...] = ()


def table(sheet: Sheet, screen: Screen) -> str:
    """Write aligned columns that keep to the screen."""
    width = max(MIN_WIDTH, screen.width)
    lines: list[str] = []
    for line in sheet.head:
        lines += _colored_verdict(_wrapped(line, width), screen)
    for each in sheet.tables:
        if each.heading:
            lines += _wrapped(each.heading, width)
        for block in _blocks(each, width):
            lines += _aligned(block, width, screen)
    for note in sheet.notes:
        lines += _wrapped(note, width)
    return spelled("\n".join(line.rstrip() for line in lines) + "\n", screen)


def plain(sheet: Sheet, screen: Screen) -> str:
    """Write stable, greppable lines: tables as tab-separated rows under their names."""
    lines = list(sheet.head)
    for each in sheet.tables:
        if each.heading:
            lines.append(each.heading)
        lines += ["\t".join(row) for row in (each.columns, *each.rows)]
    lines += sheet.notes
    return spelled("\n".join(lines) + "\n", screen)


def markdown(sheet: Sheet, screen: Screen) -> str:
    """Write pipe tables, with the lines around them as paragraphs and a list."""
    parts = ["\n".join(f"{_escaped(line)}  " for line in sheet.head).rstrip()]
    for each in sheet.tables:
        if each.heading:
            parts.append(_escaped(each.heading))
        rule = ["---:" if name in each.right else "---" for name in each.columns]
        rows = [[_escaped(cell) for cell in row] for row in (each.columns, *each.rows)]
        rows.insert(1, rule)
        parts.append("\n".join(f"| {' | '.join(row)} |" for row in rows))
    if sheet.notes:
        parts.append("\n".join(f"- {_escaped(note)}" for note in sheet.notes))
    return spelled("\n\n".join(part for part in parts if part) + "\n", screen)


def csv(sheet: Sheet, screen: Screen) -> str:  # noqa: ARG001 - every format takes the screen
    """Write the records: one header, amounts in bytes."""
    buffer = StringIO()
    names: dict[str, None] = {}
    for record in sheet.records:
        names.update(dict.fromkeys(record))
    writer = csv_format.writer(buffer, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([record.get(name, "") for name in names] for record in sheet.records)
    return buffer.getvalue()


def _wrapped(line: str, width: int) -> list[str]:
    # A command is never broken, so that it can be copied.
    if not line or _COMMAND.search(line):
        return [line]
    indent = " " * (len(line) - len(line.lstrip()))
    return wrap(line, width, subsequent_indent=indent, break_long_words=False) or [""]


def _colored_verdict(lines: list[str], screen: Screen) -> list[str]:
    if not screen.color or not lines:
        return lines
    return [_colored(lines[0], len(lines[0])), *lines[1:]]


def _colored(text: str, width: int) -> str:
    padded = text.ljust(width)
    for word, status in WORDS.items():
        if text == word or text.startswith(f"{word} "):
            return f"{COLORS[status]}{word}{RESET}{padded[len(word) :]}"
    return padded


def _blocks(whole: Table, width: int) -> Iterator[Table]:
    """Yield the table in parts that fit: without what it can drop, then continued below."""
    narrow = whole
    for name in whole.drop:
        if _total(_widths(narrow)) <= width:
            break
        narrow = _without(narrow, name)
    widths = _widths(narrow)
    if _total(widths) <= width or len(widths) < 3:
        yield narrow
        return
    start = 1
    while start < len(widths):
        end = start + 1
        while end < len(widths) and _total((widths[0], *widths[start : end + 1])) <= width:
            end += 1
        picked = (0, *range(start, end))
        yield Table(
            tuple(narrow.columns[i] for i in picked),
            tuple(tuple(row[i] for i in picked) for row in narrow.rows),
            right=narrow.right,
        )
        start = end


def _without(whole: Table, name: str) -> Table:
    if name not in whole.columns:
        return whole
    at = whole.columns.index(name)
    return Table(
        (*whole.columns[:at], *whole.columns[at + 1 :]),
        tuple((*row[:at], *row[at + 1 :]) for row in whole.rows),
        whole.heading,
        whole.drop,
        whole.right,
    )


def _widths(whole: Table) -> tuple[int, ...]:
    return tuple(
        max(len(row[number]) for row in (whole.columns, *whole.rows)) for number in range(len(whole.columns))
    )


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _aligned(block: Table, width: int, screen: Screen) -> Iterator[str]:
    widths = list(_widths(block))
    # What still does not fit takes it from the widest column.
    while _total(widths) > width and max(widths) > MIN_WIDTH // 2:
        widths[widths.index(max(widths))] -= 1
    for number, row in enumerate((block.columns, *block.rows)):
        cells = []
        for name, cell, size in zip(block.columns, row, widths, strict=True):
            text = cell if len(cell) <= size else cell[: size - 1] + "…"
            if name in block.right:
                cells.append(text.rjust(size))
            elif screen.color and number:
                cells.append(_colored(text, size))
            else:
                cells.append(text.ljust(size))
        line = (" " * GAP).join(cells).rstrip()
        yield f"\x1b[1m{line}{RESET}" if screen.color and not number else line


def _escaped(text: str) -> str:
    return " ".join(text.splitlines()).replace("|", "\\|").replace("<", "&lt;")
