"""What an engine said about itself: amounts with the rounding of its print, counts and settings."""

from collections.abc import Iterable, Mapping
from dataclasses import field

from kvplan.frozen import dataclass

GIB = 2**30
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Reading:
    """One amount that was printed.

    ``name`` is one word for what it is (``weights``, ``kv_cache`` …); ``device`` the rank or buffer it
    was printed for, empty where it stands for all. ``rounding_bytes`` is half a unit of the last
    printed digit: the amount lies within that of ``num_bytes``.
    """

    name: str
    num_bytes: int
    rounding_bytes: int
    device: str = ""

    def plus(self, other: "Reading") -> "Reading":
        """Return both amounts together, under this one's name and device."""
        rounding = self.rounding_bytes + other.rounding_bytes
        return Reading(self.name, self.num_bytes + other.num_bytes, rounding, self.device)

    def times(self, name: str, count: int) -> "Reading":
        """Return the amount ``count`` times under another name; the rounding adds up as well."""
        return Reading(name, self.num_bytes * count, self.rounding_bytes * count, self.device)


@dataclass(frozen=True, slots=True)
class Readings:
    """Everything that one log (or server) said.

    ``counts`` are tokens, blocks, sequences and ratios; ``settings`` the engine's options under its
    own names; ``out_of_memory`` tells that it died of memory, ``refusal`` why it would not start.
    """

    engine: str
    version: str = ""
    model: str = ""
    amounts: tuple[Reading, ...] = ()
    counts: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)
    out_of_memory: bool = False
    refusal: str = ""

    def of(self, name: str) -> tuple[Reading, ...]:
        """Return every amount of that name, one for each device that printed it."""
        return tuple(reading for reading in self.amounts if reading.name == name)

    def largest(self, name: str) -> Reading | None:
        """Return the largest amount of that name over the devices, None where it was not printed."""
        return max(self.of(name), key=lambda reading: reading.num_bytes, default=None)

    def smallest(self, name: str) -> Reading | None:
        """Return the smallest amount of that name over the devices, None where it was not printed."""
        return min(self.of(name), key=lambda reading: reading.num_bytes, default=None)

    def total_bytes(self, name: str) -> int | None:
        """Return the sum of that name over the devices, None where it was not printed."""
        found = self.of(name)
        return sum(reading.num_bytes for reading in found) if found else None


def amount(name: str, text: str, unit_bytes: int, device: str = "") -> Reading:
    """Read a printed number in units of ``unit_bytes``."""
    digits = text.replace(",", "")
    decimals = len(digits.partition(".")[2])
    return Reading(name, round(float(digits) * unit_bytes), int(unit_bytes / 10**decimals / 2) + 1, device)


def last_of_each(amounts: Iterable[Reading]) -> tuple[Reading, ...]:
    """Keep the last amount of each name and device: a log may hold several attempts."""
    kept: dict[tuple[str, str], Reading] = {}
    for reading in amounts:
        kept.pop((reading.name, reading.device), None)
        kept[reading.name, reading.device] = reading
    return tuple(kept.values())
