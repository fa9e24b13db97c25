"""Reading the front of a large file, wherever it lies: in order, by blocks, never past a limit.

A header reader asks for bytes by position; a file answers from disk, a Hub repository by range
requests. What a hostile header claims (a string of 2**60 bytes) is checked against what may be read
before anything is allocated.
"""

from collections.abc import Callable
from pathlib import Path

from kvplan.errors import InputError, InvalidSpec, reason_of

ByteSource = Callable[[int, int], bytes]
"""Return up to ``size`` bytes from ``offset``; fewer only where the file ends."""

BLOCK_BYTES = 1 << 20


class Front:
    """The front of a file, read in order and kept in memory, at most ``limit_bytes`` of it.

    ``origin`` names the file in errors; ``block_bytes`` is the least that is asked for at once.
    """

    __slots__ = ("_at_end", "_block", "_data", "_limit", "_source", "origin", "position")

    def __init__(
        self, source: ByteSource, origin: str, limit_bytes: int, block_bytes: int = BLOCK_BYTES
    ) -> None:
        self._source = source
        self._block = block_bytes
        self._data = bytearray()
        self._at_end = False
        self._limit = limit_bytes
        self.origin = origin
        self.position = 0

    def take(self, size: int) -> bytes:
        """Return the next ``size`` bytes. Raises InvalidSpec where the file ends or claims too much."""
        start = self.position
        self.skip(size)
        return bytes(self._data[start : self.position])

    def skip(self, size: int) -> None:
        """Move over ``size`` bytes, which must be there."""
        end = self.position + size
        if size < 0 or end > self._limit:
            raise invalid_header(
                self.origin, f"claims {size:,} bytes at {self.position:,}", "no header is that long"
            )
        while len(self._data) < end and not self._at_end:
            wanted = max(self._block, end - len(self._data))
            block = self._source(len(self._data), min(wanted, self._limit - len(self._data)))
            self._data += block
            self._at_end = not block
        if len(self._data) < end:
            raise invalid_header(
                self.origin,
                f"ends at byte {len(self._data):,}, inside its header",
                "an incomplete download, or not such a file",
            )
        self.position = end

    @property
    def buffer(self) -> bytearray:
        """What was read so far; positions are those of the file."""
        return self._data


def file_source(path: Path) -> ByteSource:
    """Return a source that reads a file on disk. Raises InputError where it cannot be read."""

    def read(offset: int, size: int) -> bytes:
        try:
            with path.open("rb") as file:
                file.seek(offset)
                return file.read(size)
        except OSError as error:
            raise InputError(
                f"cannot read {path}", why=reason_of(error), hint="check the path and its permissions"
            ) from None

    return read


def invalid_header(origin: str, what: str, why: str) -> InvalidSpec:
    """Return the error for a header that is broken."""
    return InvalidSpec(f"{origin}: {what}", why=why, hint="download the file again, or name its config.json")
