"""One rank under SGLang: what counts against the static share, and what must fit into the slack beside it."""

from collections.abc import Sequence

from kvplan.device import Device
from kvplan.engines.base import Check, Component, DevicePlan, Parallel
from kvplan.engines.sglang.adapters import adapters_of
from kvplan.engines.sglang.asked import asked_bytes, each, states_for
from kvplan.engines.sglang.budget import activations, before_loading, graphs, leftovers, workspaces
from kvplan.engines.sglang.compressed import request_state_bytes, size_compressed
from kvplan.engines.sglang.host import offloaded_bytes
from kvplan.engines.sglang.pools import Pools, Refused, size_pools
from kvplan.engines.sglang.settings import Settings
from kvplan.engines.sglang.stages import Stage
from kvplan.frozen import dataclass
from kvplan.model import ModelSpec
from kvplan.quantity import Quantity, exact, total
from kvplan.units import GIB, MIB
from kvplan.workload import Workload


@dataclass(frozen=True, slots=True)
class RankPlan:
    """One rank's plan and the pools it was sized with."""

    device_plan: DevicePlan
    pools: Pools | Refused


def rank_plans(
    model: ModelSpec,
    workload: Workload,
    settings: Settings,
    stages: tuple[Stage, ...],
    devices: Sequence[Device],
    context_tokens: int,
    num_sequences: int,
    parallel: Parallel,
    rest: Quantity,
) -> tuple[RankPlan, ...]:
    """Plan every device; equal devices of one stage once."""
    made: dict[tuple[Device, int], RankPlan] = {}
    plans: list[RankPlan] = []
    for index, device in enumerate(devices):
        number = min(index % (parallel.tensor * parallel.pipeline) // parallel.tensor, len(stages) - 1)
        key = (device, number)
        if key not in made:
            made[key] = _rank_plan(
                model, workload, settings, stages, number, device, context_tokens, num_sequences, rest
            )
        plans.append(made[key])
    return tuple(plans)


def _rank_plan(
    model: ModelSpec,
    workload: Workload,
    settings: Settings,
    stages: tuple[Stage, ...],
    number: int,
    device: Device,
    context_tokens: int,
    num_sequences: int,
    rest: Quantity,
) -> RankPlan:
    stage = stages[number]
    share = settings.mem_fraction_static
    usable = device.usable_bytes
    budget = max(0, int(share * usable))
    others = workload.reserve_bytes + device.used_bytes
    before = before_loading(settings.tensor * settings.pipeline, device)
    weights = stage.weight_bytes - offloaded_bytes(workload, stage.weight_bytes)
    loading = leftovers(weights)
    adapters = adapters_of(model, workload, settings.tensor)
    loaded = weights + loading.expected + stage.draft_weights.expected + adapters.expected
    free = (usable - before.expected - others) / GIB
    after = free - loaded / GIB
    if stage.compressed is not None:
        pools = size_compressed(stage.compressed, settings, free, after)
    else:
        pools = size_pools(stage.cells, settings, free, after, stage.state_bytes)
    here = each(num_sequences, settings)
    main, draft = asked_bytes(stage.cells, stage.compressed, settings, context_tokens, here)
    ranks = settings.layout.attention_tensor * settings.pipeline
    kv = exact(main, "whole pages of the asked load")
    if rest.high:
        kv += Quantity(
            rest.low * here // ranks, rest.expected * here // ranks, rest.high * here // ranks, "assumed"
        )
    parts = [Component("weights", exact(weights)), Component("kv_cache", kv)]
    states = _state_bytes(stage, settings, pools)
    if states:
        parts.append(Component("recurrent_state", exact(states), "state slots as SGLang divides the rest"))
    drafting = stage.draft_weights + exact(draft)
    if drafting.high:
        parts.append(Component("draft_model", drafting, "prediction layers and their part of the pool"))
    if adapters.high:
        parts.append(Component("adapters", adapters))
    if settings.multimodal_reserve_mib:
        parts.append(Component("multimodal", exact(settings.multimodal_reserve_mib * MIB)))
    runtime = _scaled(before, share) + loading
    if workload.overhead_bytes is not None:
        runtime = exact(workload.overhead_bytes, "--overhead")
    parts.append(Component("runtime", runtime))
    if others:
        parts.append(Component("other_processes", exact(int(others * max(0.0, share)))))
    required = total(part.bytes for part in parts)
    tokens = settings.chunked_prefill_size
    late = [
        _scaled(before, 1 - share),
        exact(int(others * (1 - share))),
        exact(pools.req_to_token_bytes if isinstance(pools, Pools) else 0, "req_to_token"),
        exact((stage.cells.full_bytes + stage.cells.window_bytes) * settings.page_size, "padding page"),
        workspaces(),
        graphs(settings),
        activations(model, tokens if tokens > 0 else context_tokens, settings.tensor),
    ]
    checks = (
        Check("budget", required, budget, "weights and the asked load exceed the static share"),
        Check(
            "outside_pool",
            total(late),
            usable - budget,
            "position table, graphs and activations exceed the slack beside the static share",
        ),
    )
    rank = f"pp {number}" if settings.pipeline > 1 else ""
    return RankPlan(DevicePlan(device, budget, tuple(parts), checks, rank), pools)


def _scaled(amount: Quantity, share: float) -> Quantity:
    factor = max(0.0, share)
    return Quantity(
        int(amount.low * factor),
        int(amount.expected * factor),
        int(amount.high * factor),
        amount.basis,
        amount.why,
    )


def _state_bytes(stage: Stage, settings: Settings, pools: Pools | Refused) -> int:
    """Return the states as allocated; where the pools fail, the least rest that serves one request."""
    if stage.compressed is not None:
        running = pools.max_running_requests if isinstance(pools, Pools) else settings.max_running_requests
        return request_state_bytes(stage.compressed, settings, running or 1)
    if not stage.state_bytes:
        return 0
    if isinstance(pools, Pools):
        return pools.state_bytes + pools.intermediate_bytes
    least = states_for(settings, 1) * stage.state_bytes
    if settings.max_mamba_cache_size is None and settings.radix_cache:
        return int(least * (1 + settings.mamba_full_memory_ratio) / settings.mamba_full_memory_ratio)
    return least
