"""A drawing surface for tables: rich's console on a string."""

from io import StringIO

from rich.console import Console

from kvplan.report.answer import Screen


def drawing_console(screen: Screen, least_width: int) -> Console:
    """Return a console as wide as the screen, in its colours, that keeps what is printed."""
    return Console(
        file=StringIO(),
        width=max(least_width, screen.width),
        force_terminal=screen.color,
        no_color=not screen.color,
        color_system="standard" if screen.color else None,
        highlight=False,
        emoji=False,
        markup=False,
        legacy_windows=False,
    )


def drawn_text(console: Console) -> str:
    """Return what was printed, without spaces at the ends of lines."""
    buffer = console.file
    text = buffer.getvalue() if isinstance(buffer, StringIO) else ""
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
