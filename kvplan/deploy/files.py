"""Which files to read, and their text: within the paths that were given, bounded, never executed.

A folder is walked without following links; a file reached through a link counts only where it lies
inside the folder. Reading beside a file (a Compose file's ``.env``) is allowed in that file's own
folder and below, or in the folder that was given, and nowhere else.
"""

import os
import stat
import sys
from collections.abc import Iterator, Sequence
from errno import ELOOP
from pathlib import Path

from kvplan.errors import UnreadableDeployment
from kvplan.frozen import dataclass

MAX_FILE_BYTES = 4 * 1024**2
MAX_FILES = 20_000
SKIPPED_FOLDERS = frozenset(
    ("node_modules", "__pycache__", "venv", "site-packages", "dist", "build", "target", "vendor")
)
SUFFIXES = (
    ".yaml", ".yml", ".sh", ".bash", ".md", ".markdown", ".ini", ".modelfile", ".dockerfile", ".sbatch",
    ".slurm", ".service", ".container", ".mk", ".ps1", ".bat",
)  # fmt: skip
NAMES = ("modelfile", "dockerfile", "containerfile", "makefile", "gnumakefile", "procfile")
LOOP = "a link that leads to itself"
CONFLICT = ("<<<<<<< ", ">>>>>>> ")


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file as it was read: how the user named it, its text, and the folder that may be read with it."""

    name: str
    text: str
    path: Path | None = None
    root: Path | None = None

    def beside(self, relative: str) -> "SourceFile | None":
        """Return a file that this one goes with, None where it is missing or outside the given paths.

        Raises UnreadableDeployment for one that is no text.
        """
        if self.path is None or self.root is None:
            return None
        target = self.path.parent / relative
        try:
            real = target.resolve()
            if not real.is_relative_to(self.root.resolve()) or not real.is_file():
                return None
        except (OSError, ValueError, RuntimeError):
            return None
        name = str(Path(self.name).parent / relative)
        return SourceFile(name, read(real, name), real, self.root)


@dataclass(frozen=True, slots=True)
class Found:
    """A path to read, under the name it is reported by; ``named`` where the user named it himself."""

    name: str
    path: Path
    root: Path
    named: bool


def gather(paths: Sequence[str]) -> Iterator[Found]:
    """Yield the files that the given paths mean, in order, each once.

    Raises UnreadableDeployment for a path that is not there, or a folder with too many files.
    """
    seen: set[Path] = set()
    for text in paths:
        path = Path(text).expanduser()
        if path.is_dir():
            found = _walk(path)
        elif _exists(path):
            found = iter((Found(text, path, path.parent, True),))
        else:
            raise UnreadableDeployment(text, 0, "no file or folder has that name")
        for item in found:
            try:
                real = item.path.resolve()
            except (OSError, RuntimeError):
                raise UnreadableDeployment(item.name, 0, LOOP) from None
            if real not in seen:
                seen.add(real)
                yield item


def _exists(path: Path) -> bool:
    try:
        return path.exists() or path.is_symlink()
    except (OSError, ValueError):
        return False


def _walk(folder: Path) -> Iterator[Found]:
    count = 0
    real_root = folder.resolve()
    for place, folders, names in os.walk(folder, followlinks=False):
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and name not in SKIPPED_FOLDERS
        )
        for name in sorted(names):
            path = Path(place) / name
            if not is_candidate(name):
                continue
            count += 1
            if count > MAX_FILES:
                raise UnreadableDeployment(str(folder), 0, f"more than {MAX_FILES:,} files to read")
            try:
                if not path.resolve().is_relative_to(real_root) or not path.is_file():
                    continue
            except (OSError, RuntimeError):
                continue
            yield Found(str(path), path, folder, False)


def is_candidate(path: str) -> bool:
    """Tell by its name whether a file of a folder, or of a revision, is one that may start engines."""
    name = path.rsplit("/", 1)[-1].casefold()
    return name.endswith(SUFFIXES) or name.startswith(NAMES)


def read(path: Path, name: str) -> str:
    """Return a file's text. Raises UnreadableDeployment for anything but a regular text of decent size."""
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise UnreadableDeployment(name, 0, "not a regular file")
        if facts.st_size > MAX_FILE_BYTES:
            raise UnreadableDeployment(name, 0, f"larger than {MAX_FILE_BYTES // 1024**2} MiB")
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except RuntimeError:
        raise UnreadableDeployment(name, 0, LOOP) from None
    except OSError as error:
        # From Python 3.13 on a path that leads to itself resolves, and only opening it fails.
        why = LOOP if error.errno == ELOOP else (error.strerror or str(error)).lower()
        raise UnreadableDeployment(name, 0, why) from None
    return decoded(data, name)


def read_stdin() -> SourceFile:
    """Read standard input, bounded."""
    data = sys.stdin.buffer.read(MAX_FILE_BYTES + 1) if hasattr(sys.stdin, "buffer") else b""
    return SourceFile("stdin", decoded(data, "stdin"))


def decoded(data: bytes, name: str) -> str:
    """Return bytes as text. Raises UnreadableDeployment for binary, oversized or conflicted ones."""
    if len(data) > MAX_FILE_BYTES:
        raise UnreadableDeployment(name, 0, f"larger than {MAX_FILE_BYTES // 1024**2} MiB")
    if b"\0" in data:
        raise UnreadableDeployment(name, 0, "binary, not text")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UnreadableDeployment(name, line, "not UTF-8 text") from None
    text = text.replace("\r\n", "\n")
    for number, line_text in enumerate(text.split("\n"), start=1):
        if line_text.startswith(CONFLICT):
            raise UnreadableDeployment(name, number, "merge-conflict markers were committed")
    return text
