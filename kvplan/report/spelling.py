"""Text for streams that cannot show every symbol."""

from kvplan.report.answer import Screen

ASCII: dict[str, str] = {
    "×": "x",
    "–": "-",
    "…": "~",
    "≤": "<=",
    "≥": ">=",
    "→": "->",
    "█": "#",
    "▓": "=",
    "▒": "+",
    "·": ".",
    "┃": "|",
    "│": "|",
}


def spelled(text: str, screen: Screen) -> str:
    """Return ``text`` as the screen can show it: with its symbols, or spelled in ASCII."""
    if screen.unicode:
        return text
    for symbol, plain in ASCII.items():
        text = text.replace(symbol, plain)
    return text.encode("ascii", "replace").decode("ascii")
