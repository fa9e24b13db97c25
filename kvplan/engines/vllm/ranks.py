"""vLLM: what one rank holds and the three tests that must hold on its device.

vLLM 0.33 v1/worker/gpu_worker.py and v1/worker/utils.py: ``budget`` (weights, overhead and one load of
requests inside the share), ``free_at_start`` (as much free memory as is requested, or vLLM refuses)
and ``outside_pool`` (what lives beside the share).
"""

from collections.abc import Sequence

from kvplan.device import Device
from kvplan.engines.base import Check, Component, DevicePlan, Parallel
from kvplan.engines.vllm.budget import (
    NO_GRAPHS,
    activations,
    before_snapshot,
    cuda_graphs,
    non_torch,
    sampler_logits,
)
from kvplan.engines.vllm.settings import Settings
from kvplan.engines.vllm.stages import Layout
from kvplan.engines.vllm.versions import Behaviour
from kvplan.model import ModelSpec
from kvplan.quantity import ZERO, Quantity, exact, total
from kvplan.units import ceil_div
from kvplan.workload import Workload

NOT_IN_POOL = ("kv_cache",)


def device_plans(
    model: ModelSpec,
    workload: Workload,
    settings: Settings,
    rules: Behaviour,
    layout: Layout,
    devices: Sequence[Device],
    parallel: Parallel,
    context_tokens: int,
    num_sequences: int,
) -> tuple[DevicePlan, ...]:
    """Plan every device; replicas of data parallelism share the sequences."""
    plans: list[DevicePlan] = []
    made: dict[tuple[Device, int], DevicePlan] = {}
    per_replica = parallel.tensor * parallel.pipeline
    each = ceil_div(num_sequences, parallel.data)
    for index, device in enumerate(devices):
        stage = min((index % per_replica) // parallel.tensor, parallel.pipeline - 1)
        key = (device, stage)
        if key not in made:
            made[key] = _rank_plan(
                model, workload, settings, rules, layout, device, parallel, stage, context_tokens, each
            )
        plans.append(made[key])
    return tuple(plans)


def available_bytes(
    layout: Layout, settings: Settings, plans: Sequence[DevicePlan], parallel: Parallel
) -> list[int] | None:
    """Return the memory left for blocks on each stage, that of its poorest rank; None if unknown."""
    pool = layout.pool
    num_stages = len(pool.stage_bytes_per_block)
    if settings.num_gpu_blocks_override:
        return [settings.num_gpu_blocks_override * each for each in pool.stage_bytes_per_block]
    if settings.kv_cache_memory_bytes:
        return [settings.kv_cache_memory_bytes] * num_stages
    if not plans:
        return None
    rooms: list[list[int]] = [[] for _ in range(num_stages)]
    per_replica = parallel.tensor * parallel.pipeline
    for index, plan in enumerate(plans):
        stage = min((index % per_replica) // parallel.tensor, num_stages - 1)
        taken = sum(part.bytes.expected for part in plan.components if part.name not in NOT_IN_POOL)
        rooms[stage].append(plan.budget_bytes - taken)
    return [min(found, default=0) for found in rooms]


def _rank_plan(
    model: ModelSpec,
    workload: Workload,
    settings: Settings,
    rules: Behaviour,
    layout: Layout,
    device: Device,
    parallel: Parallel,
    stage: int,
    context_tokens: int,
    num_sequences: int,
) -> DevicePlan:
    usable = device.usable_bytes
    is_last = stage == parallel.pipeline - 1
    budget = settings.requested_bytes(usable)
    weight_bytes = layout.weight_bytes[stage]
    seqs = settings.max_num_seqs if is_last else 1
    activation = activations(model, seqs, settings.max_num_batched_tokens, parallel.tensor, rules.version)
    ranks = parallel.tensor * parallel.pipeline
    runtime = non_torch(ranks, device.architecture, weight_bytes, rules.version)
    graphs = NO_GRAPHS if settings.enforce_eager else cuda_graphs(model, parallel.tensor, rules.version)
    if workload.overhead_bytes is not None:
        # One figure stands for all that is estimated beside weights and cache.
        runtime = exact(workload.overhead_bytes, "--overhead, activations and graphs included")
        activation = ZERO
        graphs = NO_GRAPHS if rules.graphs_inside else graphs
    parts = [
        Component("weights", exact(weight_bytes)),
        Component(
            "kv_cache",
            _load(layout, settings, rules, stage, context_tokens, num_sequences),
            "blocks of the asked load",
        ),
    ]
    if activation.high:
        parts.append(Component("activations", activation))
    if rules.graphs_inside and graphs.high:
        parts.append(Component("cuda_graphs", graphs))
    parts.append(Component("runtime", runtime))
    components = tuple(parts)
    checks = [
        Check(
            "budget",
            total(part.bytes for part in components),
            budget,
            "weights, overhead and cache exceed the share",
        )
    ]
    if not settings.kv_cache_memory_bytes:
        context = before_snapshot(ranks, device.architecture)
        reserved = exact(workload.reserve_bytes + device.used_bytes)
        outside_parts = [context, reserved, sampler_logits(model, seqs)]
        if not rules.graphs_inside:
            outside_parts.append(graphs)
        checks += [
            Check(
                "free_at_start",
                total((exact(budget), context, reserved)),
                usable,
                "less memory is free at start than is requested",
            ),
            Check(
                "outside_pool",
                total(outside_parts),
                max(0, usable - budget),
                "what lives beside the share exceeds the rest",
            ),
        ]
    rank = f"pp {stage}" if parallel.pipeline > 1 else ""
    return DevicePlan(device, budget, components, tuple(checks), rank)


def _load(
    layout: Layout,
    settings: Settings,
    rules: Behaviour,
    stage: int,
    context_tokens: int,
    num_sequences: int,
) -> Quantity:
    """Price the asked load's blocks on one stage, with the block that is never handed out."""
    pool = layout.pool
    each = pool.stage_bytes_per_block[stage]
    blocks = pool.blocks_per_request(context_tokens, settings.in_flight_tokens, settings.encoder_tokens)
    amount = blocks * each
    low = layout.unmodelled_low_bytes[stage] * context_tokens
    high = layout.unmodelled_high_bytes[stage] * context_tokens
    null = each if rules.keeps_null_block and amount else 0
    return Quantity(
        (amount + low) * num_sequences + null,
        (amount + (low + high) // 2) * num_sequences + null,
        (amount + high) * num_sequences + null,
        "assumed" if high else "exact",
    )
