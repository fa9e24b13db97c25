"""Which context to give: what the model can, what the traffic needs, and what each step costs."""

from collections.abc import Sequence
from dataclasses import replace

from kvplan.capacity.lengths import PERCENTILES, Lengths, percentile
from kvplan.device import Device
from kvplan.engines.base import Engine
from kvplan.frozen import dataclass
from kvplan.judge import DEFAULT_RULES, Rules, judge
from kvplan.model import ModelSpec
from kvplan.plan import plan
from kvplan.solve import limits
from kvplan.units import round_up
from kvplan.workload import Workload

# Contexts are given in these steps; a step is a block of every paged engine or several.
STEP_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Step:
    """One context: why it is on the list, who it serves, what a sequence of it costs.

    ``served`` is the share of requests that fit; ``max_sequences`` how many run at once, None
    without devices.
    """

    name: str
    context_tokens: int
    served: float
    bytes_per_sequence: int
    max_sequences: int | None
    status: str


def steps(
    model: ModelSpec,
    workload: Workload,
    devices: Sequence[Device],
    engine: Engine,
    lengths: Lengths,
    rules: Rules = DEFAULT_RULES,
) -> tuple[Step, ...]:
    """Return contexts from the traffic's median to the model's limit, each planned."""
    totals = sorted(lengths.totals)
    wanted = {f"p{percent}": percentile(totals, percent) for percent in PERCENTILES}
    wanted["longest"] = totals[-1]
    listed: dict[int, str] = {}
    for name, tokens in wanted.items():
        rounded = round_up(tokens, STEP_TOKENS)
        listed[rounded] = f"{listed[rounded]}, {name}" if rounded in listed else name
    if workload.context_tokens:
        listed.setdefault(workload.context_tokens, "asked")
    if model.context_limit_tokens:
        listed.setdefault(model.context_limit_tokens, "model's limit")
    found = []
    for tokens, name in sorted(listed.items()):
        asked = replace(workload, context_tokens=tokens, context_source="trace", num_sequences=1)
        result = plan(model, asked, devices, engine)
        most = limits(result, devices, engine, rules).max_sequences if devices else None
        served = sum(total <= tokens for total in totals) / len(totals)
        status = judge(result, rules).status if devices else "unknown"
        found.append(Step(name, tokens, served, result.cache.bytes_per_sequence, most, status))
    return tuple(found)
