"""Engines that share a card: what they ask of it together, in the order in which they start.

vLLM looks at what is free when it starts and takes its share of the whole card; TGI, LMDeploy and
TensorRT-LLM take a share of what is free. So of two that fit alone the second may find too little.
Where the cards are chosen by a variable nothing is summed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from kvplan.deploy.launch import Launch
from kvplan.deploy.planning import TAKES_ALL, Command, with_measurements
from kvplan.deploy.rows import Place, Row, SharedGpu
from kvplan.deploy.settings import Settings
from kvplan.engines import engine_named
from kvplan.engines.base import Plan
from kvplan.frozen import dataclass
from kvplan.judge import exit_code, judge
from kvplan.offload import plan_or_offload
from kvplan.units import format_gib

# Engines that take a fixed share of the card, whatever they need of it.
SHARES = ("vllm", "sglang")
# Engines whose pool is a share of what is free once their weights are there.
SHARES_OF_FREE = ("tgi", "lmdeploy", "tensorrt-llm")
FAILED = ("does_not_fit", "refused", "offload")


@dataclass(frozen=True, slots=True)
class Checked:
    """A launch with its flags, its row and what it was checked with."""

    launch: Launch
    command: Command
    row: Row
    settings: Settings


def shared_gpus(checked: Sequence[Checked]) -> tuple[SharedGpu, ...]:
    """Return what engines ask together, one entry a card that several of one file share."""
    groups: dict[tuple[str, str], list[Checked]] = {}
    for item in checked:
        for group in item.launch.groups:
            if not item.launch.gpus.exclusive and not item.launch.gpus.cpu:
                groups.setdefault((item.launch.file, group), []).append(item)
    found: list[SharedGpu] = []
    for (file, group), members in groups.items():
        if len(members) < 2 or any(item.launch.gpus.chosen_elsewhere for item in members):
            continue
        for index in sorted({number for item in members for number in _cards(item)}):
            together = [item for item in members if index in _cards(item)]
            if len(together) > 1:
                together.sort(key=lambda item: item.launch.order)
                found.append(_on_one_card(file, group, index, together))
    return tuple(found)


def _cards(item: Checked) -> tuple[int, ...]:
    """Return the numbers of the cards that an engine uses."""
    in_all, _ = item.command.ranks()
    hint = item.launch.gpus
    if item.launch.engine in TAKES_ALL:
        count = len(item.row.plan.devices) if item.row.plan is not None else hint.count or 1
        return hint.indices or tuple(range(max(1, count)))
    return hint.indices[:in_all] or tuple(range(in_all))


def _on_one_card(file: str, group: str, index: int, together: Sequence[Checked]) -> SharedGpu:
    names = tuple(item.row.name for item in together)
    at = Place(file, together[-1].launch.line)
    plans = [item.row.plan for item in together]
    gpu = next((part.devices[0].device.name for part in plans if part is not None and part.devices), "")
    blank = SharedGpu(file, group, gpu, index, names, "unknown", 3, at=at)
    known = [part for part in plans if part is not None and part.devices]
    same_card = len({part.devices[0].device.memory_bytes for part in known}) == 1
    if len(known) == len(together) and same_card:
        return _in_order(blank, together, known)
    share = _asked_share(together)
    if share is not None and share > 1:
        why = f"together they ask for {share:.2f} of the card's memory"
        return replace(blank, status="does_not_fit", exit_code=1, why=why)
    return replace(blank, why="one of them is not known", exit_code=_allowed(together))


def _allowed(together: Iterable[Checked]) -> int:
    return 0 if all(item.row.exit_code == 0 for item in together) else 3


def _asked_share(together: Iterable[Checked]) -> float | None:
    """Return the sum of the shares that are written down, None where none is."""
    shares = [
        item.command.options.get("gpu_memory_utilization")
        for item in together
        if item.launch.engine == "vllm"
    ]
    given = [float(share) for share in shares if isinstance(share, int | float)]
    return sum(given) if given else None


def _in_order(blank: SharedGpu, together: Sequence[Checked], plans: Sequence[Plan]) -> SharedGpu:
    """Start one after the other: each finds what the earlier ones left.

    How much that is may be known between bounds only; a failure counts where it holds for the least.
    """
    low = high = 0
    limit = plans[0].devices[0].device.usable_bytes
    worst: SharedGpu | None = None
    doubt = ""
    for item, alone in zip(together, plans, strict=True):
        rules = item.settings.rules
        after = _again(item, alone, low)
        verdict = judge(after, rules)
        earlier = ", ".join(other.row.name for other in together[: together.index(item)])
        if low and verdict.status in FAILED and worst is None:
            left = format_gib(max(0, limit - low))
            why = f"{item.row.name} starts after {earlier}, which leaves it {left}"
            worst = replace(blank, status=verdict.status, exit_code=exit_code(verdict.status, rules), why=why)
        elif high > low and judge(_again(item, alone, high), rules).status in FAILED:
            bounds = f"{format_gib(max(0, limit - high))} to {format_gib(max(0, limit - low))}"
            doubt = doubt or f"{item.row.name} starts after {earlier}, which leaves it {bounds}"
        held = _held(after if alone.engine_name in SHARES_OF_FREE else alone)
        low, high = low + held[0], high + held[1]
    if worst is not None:
        return replace(worst, required_bytes=low, limit_bytes=limit)
    summed = replace(blank, required_bytes=low, limit_bytes=limit)
    if low > limit:
        return replace(summed, status="does_not_fit", exit_code=1, why="together they exceed the card")
    if doubt:
        return replace(summed, exit_code=3, why=doubt)
    return replace(summed, status="fits", exit_code=0)


def _again(item: Checked, alone: Plan, taken: int) -> Plan:
    """Plan an engine once more, where others have taken so much before it."""
    if not taken:
        return alone
    engine = with_measurements(engine_named(f"{alone.engine_name}@{alone.engine_version}"), item.settings)
    workload = replace(alone.workload, reserve_bytes=alone.workload.reserve_bytes + taken)
    devices = [part.device for part in alone.devices]
    return plan_or_offload(alone.model, workload, devices, engine, item.settings.rules)


def _held(alone: Plan) -> tuple[int, int]:
    """Return the least and the most that an engine holds on its first card once it runs."""
    first = alone.devices[0]
    needed = first.required.expected
    if alone.engine_name in SHARES:
        held = max(first.budget_bytes, needed)
        return held, held
    if alone.engine_name not in SHARES_OF_FREE:
        return needed, needed
    parts = {part.name: part.bytes.expected for part in first.components}
    cached = alone.context_tokens * alone.num_sequences
    pool = parts.get("kv_cache", 0) * (alone.kv_cache_tokens or cached) // max(1, cached)
    # What it leaves free beside its pool is counted with its runtime: at least none of that is taken.
    least = parts.get("weights", 0) + parts.get("activations", 0) + pool
    others = parts.get("other_processes", 0)
    least = max(least, needed - parts.get("runtime", 0) - others)
    return least, max(least, first.budget_bytes - others)
