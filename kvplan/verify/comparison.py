"""Planned against measured, one line each, and what the lines add up to."""

from collections.abc import Iterable
from typing import Literal

from kvplan.frozen import dataclass
from kvplan.quantity import Basis, Quantity

Unit = Literal["bytes", "tokens", "blocks", "requests"]
Status = Literal["agrees", "above", "below", "not_planned", "not_measured"]
Outcome = Literal["agrees", "differs", "not_measured"]
# How far a loader's count lies from the checkpoint's tensors: 0.5 percent below to 1 above.
LOADED_PERMILLE = (995, 1010)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One figure: the plan's interval and what was measured (or printed), with its rounding.

    ``rounding`` is half a unit of the last printed digit, 0 for a byte count. ``where`` is the device,
    rank or layers; ``decides`` tells whether the verdict depends on it.
    """

    name: str
    where: str = ""
    unit: Unit = "bytes"
    low: float | None = None
    expected: float | None = None
    high: float | None = None
    basis: Basis | None = None
    measured: float | None = None
    rounding: float = 0
    decides: bool = True
    why: str = ""

    @property
    def status(self) -> Status:
        """Where the measured value lies, print rounding allowed for."""
        if self.low is None or self.high is None:
            return "not_planned"
        if self.measured is None:
            return "not_measured"
        if self.measured + self.rounding < self.low:
            return "below"
        return "above" if self.measured - self.rounding > self.high else "agrees"

    @property
    def difference(self) -> float | None:
        """Measured less expected, None where either is missing."""
        if self.measured is None or self.expected is None:
            return None
        return self.measured - self.expected


def of_quantity(
    name: str,
    planned: Quantity | None,
    measured: int | None,
    *,
    rounding: int = 0,
    where: str = "",
    decides: bool = True,
    why: str = "",
) -> Comparison:
    """Compare a planned amount of bytes with a measured one."""
    if planned is None:
        return Comparison(name, where, measured=measured, rounding=rounding, decides=False, why=why)
    return Comparison(
        name,
        where,
        "bytes",
        planned.low,
        planned.expected,
        planned.high,
        planned.basis,
        measured,
        rounding,
        decides,
        why,
    )


def as_loaded(weights: Quantity) -> Quantity:
    """Widen a checkpoint's bytes to what a loader counts: buffers and allocator rounding beside them."""
    low, high = LOADED_PERMILLE
    return Quantity(
        weights.low * low // 1000,
        weights.expected,
        weights.high * high // 1000,
        "calibrated",
        "loaders count buffers and rounding beside the tensors",
    )


def outcome(rows: Iterable[Comparison]) -> Outcome:
    """Return what the rows come to: any decisive difference decides, nothing measured is no answer."""
    statuses = [row.status for row in rows if row.decides]
    if any(status in ("above", "below") for status in statuses):
        return "differs"
    return "agrees" if "agrees" in statuses else "not_measured"


EXIT_CODES: dict[Outcome, int] = {"agrees": 0, "differs": 1, "not_measured": 3}
