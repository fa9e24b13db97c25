"""Writing a file whole or not at all."""

import os
from contextlib import suppress
from pathlib import Path


def write_whole(target: Path, text: str) -> None:
    """Write beside ``target`` and put it in place at once. Raises OSError and leaves no part behind."""
    partial = target.parent / f".{target.name}.{os.getpid()}.part"
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(target)
    except OSError:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
