"""What a report renders: an answer's values, and the screen it is for."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from kvplan.frozen import dataclass

if TYPE_CHECKING:
    from kvplan.changes.attempt import Price
    from kvplan.engines.base import Plan
    from kvplan.judge import Verdict
    from kvplan.model import ModelSpec
    from kvplan.solve import Limits
    from kvplan.speed import Rate


@dataclass(frozen=True, slots=True)
class Screen:
    """Where text goes: its width, whether it is a terminal, takes colour and can print symbols."""

    width: int = 80
    is_terminal: bool = False
    color: bool = False
    unicode: bool = True


@dataclass(frozen=True, slots=True)
class Setting:
    """An option that was not typed: its flag, its value (empty for a switch) and who said it."""

    flag: str
    value: str
    source: str


@dataclass(frozen=True, slots=True)
class Proposal:
    """A change as a command to copy, with its computed outcome and what it costs in quality."""

    changes: tuple[tuple[str, str], ...]
    command: str
    status: str
    headroom_bytes: int
    prices: "tuple[Price, ...]" = ()


@dataclass(frozen=True, slots=True)
class Rent:
    """What machines cost an hour, what a million tokens cost there, and where the price is from."""

    name: str
    usd_per_hour: float
    usd_per_million_tokens: float | None
    source: str


@dataclass(frozen=True, slots=True)
class Prices:
    """The rent of the devices that were asked for, and of the cheapest machine on which it succeeds."""

    asked: Rent | None
    cheapest: Rent | None


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast the plan runs, all sequences together; None where a bandwidth is not known.

    ``decode_on_devices`` is the rate with nothing in system memory, where the plan spills.
    """

    decode: "Rate | None" = None
    prefill: "Rate | None" = None
    decode_on_devices: "Rate | None" = None


@dataclass(frozen=True, slots=True)
class Offload:
    """How a plan that does not fit would run with a part in system memory, and how fast."""

    plan: "Plan"
    speed: Speed


@dataclass(frozen=True, slots=True)
class FitAnswer:
    """The answer of ``kvplan fit``.

    ``offload`` is the way out through system memory where the machine's is not known, or too small.

    ``gpu_text`` is the device as it was asked for; ``proposals`` the ways to make it fit;
    ``upgrades`` are what the free memory could buy; ``rents`` what machines cost, where asked.
    """

    command: str
    plan: "Plan"
    verdict: "Verdict"
    exit_code: int
    limits: "Limits"
    gpu_text: str
    proposals: tuple[Proposal, ...] = ()
    context_source: str = "flag"
    upgrades: tuple[Proposal, ...] = ()
    rents: Prices | None = None
    speed: Speed = Speed()
    offload: Offload | None = None


@dataclass(frozen=True, slots=True)
class ShowAnswer:
    """The answer of ``kvplan show``: a model, and its cache under one engine."""

    model: "ModelSpec"
    plan: "Plan"
    roles: tuple[tuple[str, int], ...]
    num_parameters: int
    num_active_parameters: int
    limits: "Limits | None" = None
    spec: Mapping[str, object] | None = None
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ListAnswer:
    """The answer of ``kvplan list``: rows of named columns."""

    what: str
    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]
    entries: tuple[Mapping[str, object], ...]
