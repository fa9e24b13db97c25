"""One rank under SGLang: what counts against the static share, and what must fit into the slack beside it."""

from functools import lru_cache

from kvplan.device import Device
from kvplan.engines.base import Check, Component, DevicePlan
from kvplan.engines.sglang.asked import asked_bytes, each, states_for
from kvplan.engines.sglang.budget import activations, before_loading, graphs, leftovers, workspaces
from kvplan.engines.sglang.compressed import request_state_bytes, size_compressed
from kvplan.engines.sglang.host import offloaded_bytes
from kvplan.engines.sglang.pools import Pools, Refused, size_pools
from kvplan.engines.sglang.server import Server
from kvplan.engines.sglang.settings import Settings
from kvplan.engines.sglang.stages import Stage
from kvplan.frozen import dataclass
from kvplan.model import ModelSpec
from kvplan.quantity import Quantity, exact, total
from kvplan.units import GIB, MIB


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A rank on its device, whatever the load.

    ``free_gib`` is what is free before the weights load, ``after_gib`` after; ``weights`` and ``behind``
    are the components around the cache, ``fixed`` their sum; ``late`` is what must fit into the slack
    beside the static share, the load's part aside.
    """

    stage: Stage
    device: Device
    name: str
    budget_bytes: int
    free_gib: float
    after_gib: float
    weights: Component
    behind: tuple[Component, ...]
    fixed: Quantity
    late: Quantity


@dataclass(frozen=True, slots=True)
class RankPlan:
    """One rank's plan and the pools it was sized with."""

    place: Place
    device_plan: DevicePlan
    pools: Pools | Refused


@lru_cache(maxsize=256)
def places_of(server: Server, devices: tuple[Device, ...]) -> tuple[Place, ...]:
    """Return one place a device; equal devices of one stage have one."""
    made: dict[tuple[Device, int], Place] = {}
    parallel, last = server.parallel, len(server.stages) - 1
    found: list[Place] = []
    for index, device in enumerate(devices):
        number = min(index % (parallel.tensor * parallel.pipeline) // parallel.tensor, last)
        if (device, number) not in made:
            made[device, number] = _place(server, number, device)
        found.append(made[device, number])
    return tuple(found)


def _place(server: Server, number: int, device: Device) -> Place:
    settings, workload, stage = server.settings, server.asked, server.stages[number]
    share = settings.mem_fraction_static
    usable = device.usable_bytes
    others = workload.reserve_bytes + device.used_bytes
    before = before_loading(settings.tensor * settings.pipeline, device)
    weights = stage.weight_bytes - offloaded_bytes(workload, stage.weight_bytes)
    loading = leftovers(weights)
    loaded = weights + loading.expected + stage.draft_weights.expected + server.adapters.expected
    free = (usable - before.expected - others) / GIB
    behind: list[Component] = []
    if server.adapters.high:
        behind.append(Component("adapters", server.adapters))
    if settings.multimodal_reserve_mib:
        behind.append(Component("multimodal", exact(settings.multimodal_reserve_mib * MIB)))
    runtime = _scaled(before, share) + loading
    if workload.overhead_bytes is not None:
        runtime = exact(workload.overhead_bytes, "--overhead")
    behind.append(Component("runtime", runtime))
    if others:
        behind.append(Component("other_processes", exact(int(others * max(0.0, share)))))
    padding = (stage.cells.full_bytes + stage.cells.window_bytes) * settings.page_size
    late = (
        _scaled(before, 1 - share),
        exact(int(others * (1 - share))),
        exact(padding, "padding page"),
        workspaces(),
        graphs(settings),
    )
    held = Component("weights", exact(weights))
    return Place(
        stage=stage,
        device=device,
        name=f"pp {number}" if settings.pipeline > 1 else "",
        budget_bytes=max(0, int(share * usable)),
        free_gib=free,
        after_gib=free - loaded / GIB,
        weights=held,
        behind=tuple(behind),
        fixed=total((held.bytes, *(part.bytes for part in behind))),
        late=total(late),
    )


def rank_plans(
    server: Server,
    places: tuple[Place, ...],
    settings: Settings,
    context_tokens: int,
    num_sequences: int,
    rest: Quantity,
) -> tuple[RankPlan, ...]:
    """Put a load on every place; ``rest`` is what a sequence's kinds without a pool take."""
    made: dict[int, RankPlan] = {}
    plans: list[RankPlan] = []
    here = each(num_sequences, settings)
    for place in places:
        plan = made.get(id(place))
        if plan is None:
            plan = made[id(place)] = _rank_plan(server.model, place, settings, context_tokens, here, rest)
        plans.append(plan)
    return tuple(plans)


def _rank_plan(
    model: ModelSpec, place: Place, settings: Settings, context_tokens: int, here: int, rest: Quantity
) -> RankPlan:
    stage = place.stage
    if stage.compressed is not None:
        pools = size_compressed(stage.compressed, settings, place.free_gib, place.after_gib)
    else:
        pools = size_pools(stage.cells, settings, place.free_gib, place.after_gib, stage.state_bytes)
    main, draft = asked_bytes(stage.cells, stage.compressed, settings, context_tokens, here)
    kv = exact(main, "whole pages of the asked load")
    if rest.high:
        ranks = settings.layout.attention_tensor * settings.pipeline
        kv += Quantity(
            rest.low * here // ranks, rest.expected * here // ranks, rest.high * here // ranks, "assumed"
        )
    parts = [place.weights, Component("kv_cache", kv)]
    required = place.fixed + kv
    states = _state_bytes(stage, settings, pools)
    if states:
        parts.append(Component("recurrent_state", exact(states), "state slots as SGLang divides the rest"))
        required = required.shifted(states)
    if draft or stage.draft_weights.high:
        drafting = stage.draft_weights + exact(draft)
        parts.append(Component("draft_model", drafting, "prediction layers and their part of the pool"))
        required += drafting
    tokens = settings.chunked_prefill_size
    late = place.late + activations(model, tokens if tokens > 0 else context_tokens, settings.tensor)
    if isinstance(pools, Pools):
        late = late.shifted(pools.req_to_token_bytes)
    budget = place.budget_bytes
    checks = (
        Check("budget", required, budget, "weights and the asked load exceed the static share"),
        Check(
            "outside_pool",
            late,
            place.device.usable_bytes - budget,
            "position table, graphs and activations exceed the slack beside the static share",
        ),
    )
    plan = DevicePlan(place.device, budget, (*parts, *place.behind), checks, place.name)
    return RankPlan(place, plan, pools)


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
