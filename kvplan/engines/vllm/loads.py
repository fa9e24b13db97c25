"""vLLM: a load of requests put on the ranks: the blocks it takes and the test of the budget.

vLLM 0.33 v1/core/kv_cache_planning.py (fit test, blocks a request) and v1/worker/gpu_worker.py.
"""

from collections.abc import Sequence

from kvplan.engines.base import Check, Component, DevicePlan, Parallel
from kvplan.engines.vllm.activations import activations
from kvplan.engines.vllm.ranks import Rank, fixed_pool_bytes
from kvplan.engines.vllm.settings import Settings
from kvplan.engines.vllm.stages import Layout
from kvplan.engines.vllm.versions import Behaviour
from kvplan.model import ModelSpec
from kvplan.quantity import Quantity, exact, total
from kvplan.units import ceil_div

LOAD_NOTE = "blocks of the asked load"


def loaded_plans(
    model: ModelSpec,
    ranks: Sequence[Rank],
    settings: Settings,
    rules: Behaviour,
    layout: Layout,
    parallel: Parallel,
    context_tokens: int,
    num_sequences: int,
) -> tuple[DevicePlan, ...]:
    """Put the load on every rank; replicas of data parallelism share the sequences."""
    each = ceil_div(num_sequences, parallel.data)
    pool = layout.pool
    blocks = pool.blocks_per_request(context_tokens, settings.in_flight_tokens, settings.encoder_tokens)
    made: dict[int, DevicePlan] = {}
    plans: list[DevicePlan] = []
    for rank in ranks:
        if id(rank) not in made:
            made[id(rank)] = _loaded(model, rank, rules, layout, blocks, context_tokens, each)
        plans.append(made[id(rank)])
    return tuple(plans)


def _loaded(
    model: ModelSpec,
    rank: Rank,
    rules: Behaviour,
    layout: Layout,
    blocks: int,
    context_tokens: int,
    num_sequences: int,
) -> DevicePlan:
    activation = rank.activation
    if rank.terms.prefill and not rank.overhead_is_given:
        activation = activations(
            rank.terms, model, context_tokens, rules.version, samples=rank.samples, sees=rank.sees
        )
    load = _load(layout, rules, rank.stage, blocks, context_tokens, num_sequences)
    components = (
        rank.weights,
        Component("kv_cache", load, LOAD_NOTE),
        *((Component("activations", activation),) if activation.high else ()),
        *rank.after,
    )
    if rank.pool_bytes is not None:
        return _in_fixed_pool(rank, rank.pool_bytes, load, activation, components)
    budget = Check(
        "budget",
        total((rank.fixed, load, activation)),
        rank.budget_bytes,
        "weights, overhead and cache exceed the share",
    )
    return DevicePlan(rank.device, rank.budget_bytes, components, (budget, *rank.beside), rank.name)


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
            total((rank.fixed, activation, exact(pool_bytes), *rank.taken)),
            rank.device.usable_bytes,
            "weights, overhead and the fixed pool exceed the card",
        ),
    )
    return DevicePlan(rank.device, budget, components, checks, rank.name)


def _load(
    layout: Layout, rules: Behaviour, stage: int, blocks: int, context_tokens: int, num_sequences: int
) -> Quantity:
    """Price the asked load's blocks on one stage, with the block that is never handed out."""
    each = layout.pool.stage_bytes_per_block[stage]
    amount = blocks * each
    null = each if rules.keeps_null_block and amount else 0
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


def available_bytes(
    layout: Layout, settings: Settings, ranks: Sequence[Rank], plans: Sequence[DevicePlan]
) -> list[int] | None:
    """Return the memory left for blocks on each stage, that of its poorest rank; None if unknown."""
    each = layout.pool.stage_bytes_per_block
    fixed = [fixed_pool_bytes(settings, layout, stage) for stage in range(len(each))]
    if fixed[0] is not None:
        return [size or 0 for size in fixed]
    if not plans:
        return None
    rooms: list[int | None] = [None] * len(each)
    for rank, plan in zip(ranks, plans, strict=True):
        budget, load = plan.checks[0], plan.components[1].bytes
        room = budget.limit_bytes - budget.required.expected + load.expected
        so_far = rooms[rank.stage]
        rooms[rank.stage] = room if so_far is None else min(so_far, room)
    return [room or 0 for room in rooms]
