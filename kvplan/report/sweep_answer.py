"""The answer of ``kvplan sweep``."""

from kvplan.frozen import dataclass
from kvplan.sweep import Grid


@dataclass(frozen=True, slots=True)
class SweepAnswer:
    """A grid of one model, with what all its points share in words (``shared``)."""

    model_name: str
    shared: str
    grid: Grid
    notes: tuple[str, ...] = ()
    exit_code: int = 0
