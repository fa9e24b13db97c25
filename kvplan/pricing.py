"""The cheapest machine on which a workload succeeds, and what a million tokens cost there.

Prices come from the caller's table; without one there is no answer. Machines are planned as they are:
all their cards, spread as the engine spreads them.
"""

from collections.abc import Iterable
from dataclasses import replace

from kvplan.device import Device
from kvplan.engines.base import Engine, Plan
from kvplan.errors import KvplanError
from kvplan.frozen import dataclass
from kvplan.judge import DEFAULT_RULES, Rules, succeeds
from kvplan.model import ModelSpec
from kvplan.plan import plan
from kvplan.speed import decode_rate
from kvplan.workload import Workload


@dataclass(frozen=True, slots=True)
class Machine:
    """Something to rent: its cards and its price an hour in US dollars."""

    name: str
    devices: tuple[Device, ...]
    usd_per_hour: float


@dataclass(frozen=True, slots=True)
class Choice:
    """The machine, the plan on it, and dollars a million decoded tokens where the rate is known."""

    machine: Machine
    plan: Plan
    usd_per_million_tokens: float | None


def usd_per_million_tokens(usd_per_hour: float, tokens_per_second: float) -> float:
    """Return what a million decoded tokens cost at a price an hour and a rate."""
    return usd_per_hour / (tokens_per_second * 3600) * 1e6


def price_per_million(result: Plan, usd_per_hour: float) -> float | None:
    """Return dollars a million tokens at the expected decoding rate of a plan, None if that is unknown."""
    rate = decode_rate(result)
    return usd_per_million_tokens(usd_per_hour, rate.expected) if rate else None


def cheapest_machine(
    model: ModelSpec,
    workload: Workload,
    engine: Engine,
    machines: Iterable[Machine],
    rules: Rules = DEFAULT_RULES,
) -> Choice | None:
    """Return the machine with the lowest price on which the workload succeeds, None if none does."""
    asked = replace(workload, tensor_parallel=0, pipeline_parallel=0)
    for machine in sorted(machines, key=lambda each: each.usd_per_hour):
        try:
            result = plan(model, asked, machine.devices, engine)
        except KvplanError:
            continue
        if not result.refusals and succeeds(result, rules):
            return Choice(machine, result, price_per_million(result, machine.usd_per_hour))
    return None
