"""The answer of ``kvplan capacity``."""

from kvplan.capacity.estimate import Estimate
from kvplan.frozen import dataclass
from kvplan.hardware.cloud import Offer


@dataclass(frozen=True, slots=True)
class Cheapest:
    """One kind of instance that serves the sessions: how many, of what, at what price."""

    offer: Offer
    gpu: str
    num_gpus: int
    layout: str
    usd_per_hour: float
    usd_per_million_tokens: float | None


@dataclass(frozen=True, slots=True)
class CapacityAnswer:
    """An estimate, what was asked in words, and what the fleets cost.

    ``cheapest`` are instances by price when no card was named.
    """

    asked: str
    num_sessions: int | None
    gpu_text: str
    estimate: Estimate
    reserved_offer: Offer | None = None
    paged_offer: Offer | None = None
    usd_per_million_tokens: float | None = None
    cheapest: tuple[Cheapest, ...] = ()
    exit_code: int = 0
