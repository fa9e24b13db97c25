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
from kvplan.engines.vllm.budget import (
    NO_GRAPHS,
    Surroundings,
    before_snapshot,
    cuda_graphs,
    non_torch,
    surroundings_of,
)
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

WARM_UP_COPIES = 3
LOAD_NOTE = "blocks of the asked load"
WARM_UP_WHY = "the sampler's warm-up over max_num_seqs rows of logits"


@dataclass(frozen=True, slots=True, eq=False)
class Share:
    """What a rank of one stage holds on any card with the same surroundings, the load aside.

    ``weights`` and ``after`` are the components around the cache, ``fixed`` their sum without the
    activations, which a long context may widen; ``taken`` is what is gone before vLLM looks,
    ``outside`` what else lies beside the pool's share. ``overhead_is_given`` says that ``--overhead``
    stands for activations and graphs too. Compared by identity, to look up by it cheaply.
    """

    server: Server
    stage: int
    weights: Component
    after: tuple[Component, ...]
    fixed: Quantity
    taken: Quantity
    outside: Quantity
    terms: Terms
    samples: bool
    activation: Quantity
    overhead_is_given: bool


@dataclass(frozen=True, slots=True, eq=False)
class Rank:
    """One rank on its device: ``tests`` are those besides the budget's, ``taken`` all that others hold."""

    share: Share
    device: Device
    name: str
    budget_bytes: int
    tests: tuple[Check, ...]
    taken: Quantity


@dataclass(frozen=True, slots=True)
class Loaded:
    """A share with its load: the cache's bytes, the activations, all components and their sum."""

    load: Quantity
    activation: Quantity
    components: tuple[Component, ...]
    required: Quantity


@lru_cache(maxsize=256)
def ranks_of(server: Server, devices: tuple[Device, ...]) -> tuple[Rank, ...]:
    """Return one rank a device, equal ones made once."""
    made: dict[tuple[int, int], Rank] = {}
    found: list[Rank] = []
    parallel = server.parallel
    per_replica = parallel.tensor * parallel.pipeline
    for index, device in enumerate(devices):
        stage = min((index % per_replica) // parallel.tensor, parallel.pipeline - 1)
        rank = made.get((id(device), stage))
        if rank is None:
            rank = made[id(device), stage] = _rank(server, device, stage)
        found.append(rank)
    return tuple(found)


def _rank(server: Server, device: Device, stage: int) -> Rank:
    is_alone = server.parallel.tensor * server.parallel.pipeline == 1
    share = _share(server, stage, surroundings_of(device, is_alone=is_alone))
    usable = device.usable_bytes
    budget = server.settings.requested_bytes(usable)
    others = server.asked.reserve_bytes + device.used_bytes
    taken = share.taken.shifted(others) if others else share.taken
    return Rank(
        share=share,
        device=device,
        name=f"pp {stage}" if server.parallel.pipeline > 1 else "",
        budget_bytes=budget,
        tests=(
            Check(
                "free_at_start",
                taken.shifted(budget),
                usable,
                "less memory is free at start than is requested",
            ),
            Check(
                "outside_pool",
                taken + share.outside,
                max(0, usable - budget),
                "what lives beside the share exceeds the rest",
            ),
        ),
        taken=taken,
    )


@lru_cache(maxsize=4096)
def _share(server: Server, stage: int, beside: Surroundings) -> Share:
    model, settings, rules, parallel = server.model, server.settings, server.rules, server.parallel
    tensor, pipeline, format_name = parallel.tensor, parallel.pipeline, server.format_name
    num_ranks = tensor * pipeline
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
        graphs = cuda_graphs(model, settings.largest_capture, beside.architecture, rules.version, drafted)
    overhead = server.asked.overhead_bytes
    after: list[Component] = []
    draft = draft_bytes(model, settings.speculation, tensor, parallel.expert) if samples else None
    if draft is not None:
        after.append(Component("draft_model", draft, "weights; its cache is in the pool"))
    if server.asked.option("enable_lora"):
        from kvplan.engines.vllm.adapters import adapter_bytes

        after.append(Component("adapters", adapter_bytes(model, server.asked, tensor, pipeline, stage)))
    if rules.graphs_inside and graphs.high and overhead is None:
        after.append(Component("cuda_graphs", graphs))
    if overhead is None:
        runtime = non_torch(num_ranks, beside, loaded.expected, rules.version)
    else:
        # One figure stands for all that is estimated beside weights and cache.
        runtime = exact(overhead, "--overhead, activations and graphs included")
    after.append(Component("runtime", runtime))
    weights = Component("weights", on_device(loaded, server.asked))
    # Mostly what the profile run left free serves the warm-up; two gpt-oss-20b servers died in it
    # whose room beside the pool was smaller than the logits.
    warm_up = Quantity(0, 0, WARM_UP_COPIES * terms.logits if samples else 0, "calibrated", WARM_UP_WHY)
    return Share(
        server=server,
        stage=stage,
        weights=weights,
        after=tuple(after),
        fixed=total((weights.bytes, *(part.bytes for part in after))),
        taken=before_snapshot(num_ranks, beside),
        outside=warm_up if rules.graphs_inside else warm_up + graphs,
        terms=terms,
        samples=samples,
        activation=ZERO
        if overhead is not None
        else activations(terms, model, 0, rules.version, samples=samples, sees=settings.sees),
        overhead_is_given=overhead is not None,
    )


def _fixed_pool_bytes(settings: Settings, layout: Layout, stage: int) -> int | None:
    """Return the bytes of a pool that the flags fix on one stage; None where the card's share decides."""
    if settings.num_gpu_blocks_override:
        return settings.num_gpu_blocks_override * layout.pool.stage_bytes_per_block[stage]
    return settings.kv_cache_memory_bytes or None


def loaded_plans(
    server: Server, ranks: Sequence[Rank], blocks: int, context_tokens: int, num_sequences: int
) -> tuple[DevicePlan, ...]:
    """Put the load on every rank: ``blocks`` a sequence; replicas of data parallelism share them."""
    each = ceil_div(num_sequences, server.parallel.data)
    if len(ranks) == 1:
        return (_loaded(server, ranks[0], blocks, context_tokens, each),)
    plans: list[DevicePlan] = []
    made: dict[int, DevicePlan] = {}
    for rank in ranks:
        plan = made.get(id(rank))
        if plan is None:
            plan = made[id(rank)] = _loaded(server, rank, blocks, context_tokens, each)
        plans.append(plan)
    return tuple(plans)


def _loaded(server: Server, rank: Rank, blocks: int, context_tokens: int, num_sequences: int) -> DevicePlan:
    loaded = _with_load(rank.share, blocks, context_tokens, num_sequences)
    pool_bytes = _fixed_pool_bytes(server.settings, server.layout, rank.share.stage)
    if pool_bytes is not None:
        return _in_fixed_pool(rank, pool_bytes, loaded)
    budget = Check(
        "budget",
        loaded.required,
        rank.budget_bytes,
        "weights, overhead and cache exceed the share",
    )
    return DevicePlan(rank.device, rank.budget_bytes, loaded.components, (budget, *rank.tests), rank.name)


def _activation(share: Share, context_tokens: int) -> Quantity:
    if not share.terms.prefill or share.overhead_is_given:
        return share.activation
    return activations(
        share.terms,
        share.server.model,
        context_tokens,
        share.server.rules.version,
        samples=share.samples,
        sees=share.server.settings.sees,
    )


@lru_cache(maxsize=512)
def _with_load(share: Share, blocks: int, context_tokens: int, num_sequences: int) -> Loaded:
    """Put a load on a share; one card after the other asks for the same."""
    activation = _activation(share, context_tokens)
    load = _load(share.server, share.stage, blocks, context_tokens, num_sequences)
    components = (
        share.weights,
        Component("kv_cache", load, LOAD_NOTE),
        *((Component("activations", activation),) if activation.high else ()),
        *share.after,
    )
    return Loaded(load, activation, components, total((share.fixed, load, activation)))


def _in_fixed_pool(rank: Rank, pool_bytes: int, loaded: Loaded) -> DevicePlan:
    """Put the load into a pool whose bytes the flags give: the share of the card does not count.

    ``budget`` asks whether the load fits the pool, ``outside_pool`` whether the pool fits the card.
    """
    fixed = rank.share.fixed
    rest = fixed.expected + loaded.activation.expected
    budget = rest + pool_bytes
    checks = (
        Check(
            "budget",
            total((exact(rest), loaded.load)),
            budget,
            "the load exceeds the pool that the flags fix",
        ),
        Check(
            "outside_pool",
            total((fixed, loaded.activation, exact(pool_bytes), rank.taken)),
            rank.device.usable_bytes,
            "weights, overhead and the fixed pool exceed the card",
        ),
    )
    return DevicePlan(rank.device, budget, loaded.components, checks, rank.name)


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


def available_bytes(server: Server, ranks: Sequence[Rank], context_tokens: int) -> list[int] | None:
    """Return the memory left for blocks on each stage, that of its poorest rank; None if unknown."""
    num_stages = len(server.layout.pool.stage_bytes_per_block)
    settings = server.settings
    if settings.num_gpu_blocks_override or settings.kv_cache_memory_bytes:
        fixed = [_fixed_pool_bytes(settings, server.layout, stage) for stage in range(num_stages)]
        return [size or 0 for size in fixed]
    if not ranks:
        return None
    rooms: list[int | None] = [None] * num_stages
    for rank in dict.fromkeys(ranks) if len(ranks) > 1 else ranks:
        share = rank.share
        room = rank.budget_bytes - share.fixed.expected - _activation(share, context_tokens).expected
        so_far = rooms[share.stage]
        rooms[share.stage] = room if so_far is None else min(so_far, room)
    return [room or 0 for room in rooms]
