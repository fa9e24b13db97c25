"""An amount of bytes with its bounds and where the number comes from."""

from collections.abc import Iterable
from typing import Literal

from kvplan.frozen import dataclass

Basis = Literal["exact", "calibrated", "assumed"]
_RANK: dict[Basis, int] = {"exact": 0, "calibrated": 1, "assumed": 2}


@dataclass(frozen=True, slots=True)
class Quantity:
    """Bytes between ``low`` and ``high``, most likely ``expected``.

    ``exact`` (low = expected = high) is an engine's own arithmetic; ``calibrated`` is an
    interval fitted to measurements that the repository ships; ``assumed`` is neither.
    ``why`` names the rule or the measurements.
    """

    low: int
    expected: int
    high: int
    basis: Basis
    why: str = ""

    def __add__(self, other: "Quantity") -> "Quantity":
        return Quantity(
            self.low + other.low,
            self.expected + other.expected,
            self.high + other.high,
            self.basis if self.basis == other.basis else worse_basis(self.basis, other.basis),
        )

    def shifted(self, num_bytes: int) -> "Quantity":
        """Return the sum with bytes that are exact."""
        return Quantity(self.low + num_bytes, self.expected + num_bytes, self.high + num_bytes, self.basis)


ZERO = Quantity(0, 0, 0, "exact")


def exact(num_bytes: int, why: str = "") -> Quantity:
    """Return an amount that is the engine's own arithmetic."""
    return Quantity(num_bytes, num_bytes, num_bytes, "exact", why)


def total(quantities: Iterable[Quantity]) -> Quantity:
    """Add up bounds; the sum is only as well founded as its weakest part."""
    low = expected = high = 0
    basis: Basis = "exact"
    for quantity in quantities:
        low += quantity.low
        expected += quantity.expected
        high += quantity.high
        if quantity.basis != basis:
            basis = worse_basis(basis, quantity.basis)
    return Quantity(low, expected, high, basis)


def worse_basis(first: Basis, second: Basis) -> Basis:
    """Return the less certain of two bases."""
    return first if _RANK[first] >= _RANK[second] else second
