"""vLLM: what one rank holds and the three tests that must hold on its device.

vLLM 0.33 v1/worker/gpu_worker.py and v1/worker/utils.py: ``budget`` (weights, overhead and one load of
requests inside the share), ``free_at_start`` (as much free memory as is requested, or vLLM refuses)
and ``outside_pool`` (what lives beside the share). What does not depend on the load is made once.
"""

from collections.abc import Sequence
from functools import lru_cache

from kvplan.device import Device
from kvplan.engines.base import Check, Component, DevicePlan
from kvplan.engines.vllm.activations import Terms, activations, terms_of
from kvplan.engines.vllm.budget import NO_GRAPHS, before_snapshot, cuda_graphs, non_torch
from kvplan.engines.vllm.drafts import draft_bytes
from kvplan.engines.vllm.offload import on_device
from kvplan.engines.vllm.server import Server
from kvplan.engines.vllm.settings import Settings
from kvplan.engines.vllm.speculative import draft_layers
from kvplan.engines.vllm.stages import Layout
from kvplan.engines.vllm.weights import loaded_weights, without_towers
from kvplan.frozen import dataclass
from kvplan.quantity import ZERO, Quantity, exact, total
from kvplan.units import ceil_div
from kvplan.workload import Workload

WARM_UP_COPIES = 3
LOAD_NOTE = "blocks of the asked load"
WARM_UP_WHY = "the sampler's warm-up over max_num_seqs rows of logits"


@dataclass(frozen=True, slots=True)
class Share:
    """What a rank of one stage holds on any card of an architecture, the load aside.

    ``loaded_bytes`` are its weights before any are moved to system memory; ``beside`` the components
    besides weights, cache, activations and runtime, ``fixed`` their sum with the weights; ``outside``
    what the rank needs outside the pool's share. ``overhead_is_given`` says that ``--overhead`` stands
    for activations and graphs too.
    """

    weights: Component
    loaded_bytes: int
    beside: tuple[Component, ...]
    fixed: Quantity
    outside: Quantity
    terms: Terms
    samples: bool
    activation: Quantity
    overhead_is_given: bool


@dataclass(frozen=True, slots=True)
class Rank:
    """One rank on its device, the load aside.

    ``after`` are the components behind the cache, ``fixed`` their sum with the weights, without the
    activations, which a long context may widen; ``tests`` are those besides the budget's.
    """

    share: Share
    device: Device
    stage: int
    name: str
    budget_bytes: int
    after: tuple[Component, ...]
    fixed: Quantity
    tests: tuple[Check, ...]
    pool_bytes: int | None
    taken: Quantity


@lru_cache(maxsize=1024)
def ranks_of(server: Server, devices: tuple[Device, ...]) -> tuple[Rank, ...]:
    """Return one rank a device, equal ones made once."""
    made: dict[tuple[Device, int], Rank] = {}
    found: list[Rank] = []
    parallel = server.parallel
    per_replica = parallel.tensor * parallel.pipeline
    for index, device in enumerate(devices):
        stage = min((index % per_replica) // parallel.tensor, parallel.pipeline - 1)
        if (device, stage) not in made:
            made[device, stage] = _rank(server, device, stage)
        found.append(made[device, stage])
    return tuple(found)


@lru_cache(maxsize=4096)
def _share(server: Server, stage: int, architecture: str) -> Share:
    model, settings, rules, parallel = server.model, server.settings, server.rules, server.parallel
    tensor, pipeline, format_name = parallel.tensor, parallel.pipeline, server.format_name
    loaded = loaded_weights(
        model, format_name, tensor, pipeline, parallel.expert, stage, settings.speculation
    )
    if not settings.sees:
        loaded = without_towers(loaded, model, format_name, tensor, stage)
    terms = terms_of(
        model,
        format_name,
        settings.max_num_seqs,
        settings.max_num_batched_tokens,
        tensor,
        settings.model_dtype,
        parallel.expert,
    )
    samples = stage == pipeline - 1
    graphs = NO_GRAPHS
    if not settings.enforce_eager:
        drafted = sum(group.count for group in draft_layers(model, settings.speculation)) if samples else 0
        graphs = cuda_graphs(model, settings.largest_capture, architecture, rules.version, drafted)
    # One figure stands for all that is estimated beside weights and cache.
    overhead_is_given = server.asked.overhead_bytes is not None
    beside: list[Component] = []
    draft = draft_bytes(model, settings.speculation, tensor, parallel.expert) if samples else None
    if draft is not None:
        beside.append(Component("draft_model", draft, "weights; its cache is in the pool"))
    if server.asked.option("enable_lora"):
        from kvplan.engines.vllm.adapters import adapter_bytes

        beside.append(Component("adapters", adapter_bytes(model, server.asked, tensor, pipeline, stage)))
    if rules.graphs_inside and graphs.high and not overhead_is_given:
        beside.append(Component("cuda_graphs", graphs))
    weights = Component("weights", on_device(loaded, server.asked))
    # Mostly what the profile run left free serves the warm-up; two gpt-oss-20b servers died in it
    # whose room beside the pool was smaller than the logits.
    warm_up = Quantity(0, 0, WARM_UP_COPIES * terms.logits if samples else 0, "calibrated", WARM_UP_WHY)
    return Share(
        weights=weights,
        loaded_bytes=loaded.expected,
        beside=tuple(beside),
        fixed=total((weights.bytes, *(part.bytes for part in beside))),
        outside=warm_up if rules.graphs_inside else warm_up + graphs,
        terms=terms,
        samples=samples,
        activation=ZERO
        if overhead_is_given
        else activations(terms, model, 0, rules.version, samples=samples, sees=settings.sees),
        overhead_is_given=overhead_is_given,
    )


def _rank(server: Server, device: Device, stage: int) -> Rank:
    settings, parallel = server.settings, server.parallel
    share = _share(server, stage, device.architecture)
    num_ranks = parallel.tensor * parallel.pipeline
    if server.asked.overhead_bytes is None:
        runtime = non_torch(num_ranks, device, share.loaded_bytes, server.rules.version)
    else:
        runtime = exact(server.asked.overhead_bytes, "--overhead, activations and graphs included")
    budget = settings.requested_bytes(device.usable_bytes)
    taken = _taken(server.asked, device, num_ranks)
    return Rank(
        share=share,
        device=device,
        stage=stage,
        name=f"pp {stage}" if parallel.pipeline > 1 else "",
        budget_bytes=budget,
        after=(*share.beside, Component("runtime", runtime)),
        fixed=share.fixed + runtime,
        tests=(
            Check(
                "free_at_start",
                exact(budget) + taken,
                device.usable_bytes,
                "less memory is free at start than is requested",
            ),
            Check(
                "outside_pool",
                taken + share.outside,
                max(0, device.usable_bytes - budget),
                "what lives beside the share exceeds the rest",
            ),
        ),
        pool_bytes=_fixed_pool_bytes(settings, server.layout, stage),
        taken=taken,
    )


def _fixed_pool_bytes(settings: Settings, layout: Layout, stage: int) -> int | None:
    """Return the bytes of a pool that the flags fix on one stage; None where the card's share decides."""
    if settings.num_gpu_blocks_override:
        return settings.num_gpu_blocks_override * layout.pool.stage_bytes_per_block[stage]
    return settings.kv_cache_memory_bytes or None


def _taken(workload: Workload, device: Device, num_ranks: int) -> Quantity:
    """Return what the context (and NCCL) and what others hold on a device."""
    return before_snapshot(num_ranks, device) + exact(workload.reserve_bytes + device.used_bytes)


def loaded_plans(
    server: Server, ranks: Sequence[Rank], blocks: int, context_tokens: int, num_sequences: int
) -> tuple[DevicePlan, ...]:
    """Put the load on every rank: ``blocks`` a sequence; replicas of data parallelism share them."""
    each = ceil_div(num_sequences, server.parallel.data)
    plans: list[DevicePlan] = []
    made: dict[int, DevicePlan] = {}
    for rank in ranks:
        plan = made.get(id(rank))
        if plan is None:
            plan = made[id(rank)] = _loaded(server, rank, blocks, context_tokens, each)
        plans.append(plan)
    return tuple(plans)


def _loaded(server: Server, rank: Rank, blocks: int, context_tokens: int, num_sequences: int) -> DevicePlan:
    share = rank.share
    activation = share.activation
    if share.terms.prefill and not share.overhead_is_given:
        activation = activations(
            share.terms,
            server.model,
            context_tokens,
            server.rules.version,
            samples=share.samples,
            sees=server.settings.sees,
        )
    load = _load(server, rank.stage, blocks, context_tokens, num_sequences)
    held = (share.weights, Component("kv_cache", load, LOAD_NOTE))
    components = (
        (*held, Component("activations", activation), *rank.after)
        if activation.high
        else (*held, *rank.after)
    )
    if rank.pool_bytes is not None:
        return _in_fixed_pool(rank, rank.pool_bytes, load, activation, components)
    budget = Check(
        "budget",
        total((rank.fixed, load, activation)),
        rank.budget_bytes,
        "weights, overhead and cache exceed the share",
    )
    return DevicePlan(rank.device, rank.budget_bytes, components, (budget, *rank.tests), rank.name)


def _in_fixed_pool(
    rank: Rank, pool_bytes: int, load: Quantity, activation: Quantity, components: tuple[Component, ...]
) -> DevicePlan:
    """Put the load into a pool whose bytes the flags give: the share of the card does not count.

    ``budget`` asks whether the load fits the pool, ``outside_pool`` whether the pool fits the card.
    """
    rest = rank.fixed.expected + activation.expected
    budget = rest + pool_bytes
    checks = (
        Check("budget", total((exact(rest), load)), budget, "the load exceeds the pool that the flags fix"),
        Check(
            "outside_pool",
            total((rank.fixed, activation, exact(pool_bytes), rank.taken)),
            rank.device.usable_bytes,
            "weights, overhead and the fixed pool exceed the card",
        ),
    )
    return DevicePlan(rank.device, budget, components, checks, rank.name)


def _load(server: Server, stage: int, blocks: int, context_tokens: int, num_sequences: int) -> Quantity:
    """Price the asked load's blocks on one stage, with the block that is never handed out."""
    layout = server.layout
    each = layout.pool.stage_bytes_per_block[stage]
    amount = blocks * each
    null = each if server.rules.keeps_null_block and amount else 0
    low = layout.unmodelled_low_bytes[stage] * context_tokens
    high = layout.unmodelled_high_bytes[stage] * context_tokens
    if not high:
        return exact(amount * num_sequences + null)
    return Quantity(
        (amount + low) * num_sequences + null,
        (amount + (low + high) // 2) * num_sequences + null,
        (amount + high) * num_sequences + null,
        "assumed",
    )


def available_bytes(server: Server, ranks: Sequence[Rank], plans: Sequence[DevicePlan]) -> list[int] | None:
    """Return the memory left for blocks on each stage, that of its poorest rank; None if unknown."""
    num_stages = len(server.layout.pool.stage_bytes_per_block)
    settings = server.settings
    if settings.num_gpu_blocks_override or settings.kv_cache_memory_bytes:
        fixed = [_fixed_pool_bytes(settings, server.layout, stage) for stage in range(num_stages)]
        return [size or 0 for size in fixed]
    if not plans:
        return None
    rooms: list[int | None] = [None] * num_stages
    seen: DevicePlan | None = None
    for rank, plan in zip(ranks, plans, strict=True):
        if plan is seen:
            continue
        seen = plan
        budget, load = plan.checks[0], plan.components[1].bytes
        room = budget.limit_bytes - budget.required.expected + load.expected
        so_far = rooms[rank.stage]
        rooms[rank.stage] = room if so_far is None else min(so_far, room)
    return [room or 0 for room in rooms]
