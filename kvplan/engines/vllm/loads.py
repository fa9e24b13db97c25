"""vLLM: a load of requests put on the ranks: the blocks it takes and the test of the budget.

vLLM 0.33 v1/core/kv_cache_planning.py (fit test, blocks a request) and v1/worker/gpu_worker.py.
"""

from collections.abc import Sequence
from functools import lru_cache

from kvplan.engines.base import Check, Component, DevicePlan
from kvplan.engines.vllm.activations import activations
from kvplan.engines.vllm.ranks import Rank, Share, activation_parts, fixed_pool_bytes
from kvplan.engines.vllm.server import Server
from kvplan.frozen import dataclass
from kvplan.quantity import Quantity, exact, total
from kvplan.units import ceil_div

LOAD_NOTE = "blocks of the asked load"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A share with its load: the cache's bytes, the activations, all components and their sum."""

    load: Quantity
    activation: Quantity
    components: tuple[Component, ...]
    required: Quantity


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
    pool_bytes = fixed_pool_bytes(server.settings, server.layout, rank.share.stage)
    if pool_bytes is not None:
        return _in_fixed_pool(rank, pool_bytes, loaded)
    budget = Check(
        "budget",
        loaded.required,
        rank.budget_bytes,
        "weights, overhead and cache exceed the share",
    )
    return DevicePlan(rank.device, rank.budget_bytes, loaded.components, (budget, *rank.tests), rank.name)


def _widens(share: Share) -> bool:
    """Tell whether a longer context takes more activations: sparse attention's buffer alone does."""
    return bool(share.terms.prefill) and not share.overhead_is_given


def _activation(share: Share, context_tokens: int) -> Quantity:
    if not _widens(share):
        return share.activation
    return activations(
        share.terms,
        share.server.model,
        context_tokens,
        share.held,
        share.kernels,
        samples=share.samples,
        sees=share.server.settings.sees,
    )


@lru_cache(maxsize=512)
def _with_load(share: Share, blocks: int, context_tokens: int, num_sequences: int) -> Loaded:
    """Put a load on a share; one card after the other asks for the same."""
    load = _load(share.server, share.stage, blocks, context_tokens, num_sequences)
    activation, beside, behind = share.activation, share.beside, share.behind
    if _widens(share):
        activation = _activation(share, context_tokens)
        beside, behind = share.fixed + activation, (*activation_parts(activation), *share.after)
    components = (share.weights, Component("kv_cache", load, LOAD_NOTE), *behind)
    return Loaded(load, activation, components, beside + load)


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


def available_bytes(server: Server, ranks: tuple[Rank, ...], context_tokens: int) -> tuple[int, ...] | None:
    """Return the memory left for blocks on each stage, that of its poorest rank; None if unknown."""
    return _available(server, ranks, context_tokens if ranks and _widens(ranks[0].share) else 0)


@lru_cache(maxsize=256)
def _available(server: Server, ranks: tuple[Rank, ...], context_tokens: int) -> tuple[int, ...] | None:
    num_stages = len(server.layout.pool.stage_bytes_per_block)
    settings = server.settings
    if settings.num_gpu_blocks_override or settings.kv_cache_memory_bytes:
        fixed = [fixed_pool_bytes(settings, server.layout, stage) for stage in range(num_stages)]
        return tuple(size or 0 for size in fixed)
    if not ranks:
        return None
    rooms: list[int | None] = [None] * num_stages
    for rank in dict.fromkeys(ranks) if len(ranks) > 1 else ranks:
        share = rank.share
        room = rank.budget_bytes - share.fixed.expected - _activation(share, context_tokens).expected
        so_far = rooms[share.stage]
        rooms[share.stage] = room if so_far is None else min(so_far, room)
    return tuple(room or 0 for room in rooms)
