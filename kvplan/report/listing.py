"""A list as aligned columns."""

from kvplan.report.answer import ListAnswer, Screen

BYTES = ("memory", "usable")


def plain(answer: ListAnswer, screen: Screen) -> str:
    """Write tab-separated rows under a header."""
    rows = [
        answer.columns,
        *([_cell(c, v) for c, v in zip(answer.columns, row, strict=True)] for row in answer.rows),
    ]
    text = "\n".join("\t".join(row) for row in rows) + "\n"
    return text if screen.unicode else text.replace("×", "x").encode("ascii", "replace").decode("ascii")


def table(answer: ListAnswer, screen: Screen) -> str:
    """Write aligned rows, the last column cut to the screen."""
    cells = [
        list(answer.columns),
        *([_cell(c, v) for c, v in zip(answer.columns, row, strict=True)] for row in answer.rows),
    ]
    widths = [min(44, max(len(row[i]) for row in cells)) for i in range(len(answer.columns))]
    lines = []
    for number, row in enumerate(cells):
        line = "  ".join(
            _pad(text, width, i) for i, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        line = line.rstrip()
        if len(line) > screen.width:
            line = line[: max(1, screen.width - 1)] + ("…" if screen.unicode else "~")
        lines.append(f"\x1b[1m{line}\x1b[0m" if screen.color and number == 0 else line)
    text = "\n".join(lines) + "\n"
    return text if screen.unicode else text.replace("×", "x").encode("ascii", "replace").decode("ascii")


def _pad(text: str, width: int, column: int) -> str:
    short = text if len(text) <= width else text[: width - 1] + "…"
    return short.rjust(width) if column and _is_number(text) else short.ljust(width)


def _is_number(text: str) -> bool:
    return text.replace(",", "").replace(".", "").replace(" GiB", "").replace(" GB/s", "").isdigit()


def _cell(column: str, value: object) -> str:
    if value is None:
        return ""
    if column in BYTES and isinstance(value, int):
        return f"{value / 2**30:.2f} GiB"
    if column == "bandwidth" and isinstance(value, int):
        return f"{value / 1e9:,.0f} GB/s" if value else ""
    if column in ("parameters", "active") and isinstance(value, int):
        return f"{value / 1e9:,.2f} B"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)
