"""Files that an engine loads beside the model: their sizes, where they lie on this machine."""

from collections.abc import Iterable
from pathlib import Path

# llama.cpp's option that names a file -> the option that carries its size.
SIZED: dict[str, str] = {"mmproj": "mmproj_bytes", "lora": "lora_bytes", "model_draft": "draft_bytes"}


def sizes_of(options: Iterable[tuple[str, object]]) -> tuple[tuple[str, object], ...]:
    """Return the sizes of the files that options name; those that are not there are left out."""
    found: list[tuple[str, object]] = []
    for name, value in options:
        if name not in SIZED or not isinstance(value, str):
            continue
        try:
            path = Path(value)
            if path.is_file():
                found.append((SIZED[name], path.stat().st_size))
        except (OSError, ValueError):
            continue
    return tuple(found)
