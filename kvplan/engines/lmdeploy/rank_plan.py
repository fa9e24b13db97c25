"""One rank under LMDeploy: the blocks get a share of what is free once the model is loaded.

PyTorch backend: LMDeploy 0.18 pytorch/engine/executor/base.py (update_configs): states and a
runtime reserve come off the free memory first, then the share. TurboMind: src/turbomind/engine/
engine.cc ("Object cache budget"): the share is of what weights, executor and scratch leave, the least
of all ranks. Until 0.2.1 it was of the whole card (messages.py).
"""

from kvplan.device import Device
from kvplan.engines.base import Check, Component, DevicePlan, Parallel
from kvplan.engines.free_share import activation_peak, left_over, runtime_bytes, share_check
from kvplan.engines.lmdeploy.demand import Demand
from kvplan.engines.lmdeploy.settings import Settings
from kvplan.engines.lmdeploy.speculation import adapter_bytes, draft_of
from kvplan.frozen import dataclass
from kvplan.layers import LatentAttention
from kvplan.model import ModelSpec, cache_kinds
from kvplan.quantity import ZERO, Quantity, exact, total, worse_basis
from kvplan.sharding import stage_tensors, stage_weight_bytes
from kvplan.units import GIB, MIB
from kvplan.workload import Workload

LOGIT_BYTES = 2
# Below this many blocks the prefill budget is halved and the reserve with it.
ENOUGH_BLOCKS = 16
DSA_WORKSPACE_BYTES = 512 * MIB
# One public start-up of TurboMind left 3.4 GiB beside an 8 B model's weights on an A100: 6,214 blocks of
# 8 MiB at a share of 0.8 (InternLM/lmdeploy issue 3411). What it was made of was not said.
EXECUTOR = Quantity(
    0, 3 * GIB // 2, 5 * GIB // 2, "assumed", "executor, sampling and pages; near the one public start-up"
)
SCRATCH_WHY = "executor and scratch: 2 x max_prefill_token_num x width x a factor by tp (aiconfigurator)"
RESERVE_NOTE = "reserved for logits: (max_prefill_token_num + 2 x max_batch_size) x vocabulary x 2 B"
FOLDED_WHY = "TurboMind folds kv_b into q_b and o: how much wider they get was not run"
SHARE_NOTE = "the model, its reserve and the asked load exceed the share of free memory"
FIXED_NOTE = "the blocks set aside do not fit beside the model"
POOL_NOTE = "the asked load exceeds the blocks set aside"


@dataclass(frozen=True, slots=True)
class Rank:
    """A planned rank: what the pool gets, and the tokens it holds (None where that is not worked out).

    ``left_free_bytes`` is the share of free memory that nothing takes.
    """

    plan: DevicePlan
    pool: Quantity
    pool_tokens: int | None
    left_free_bytes: int


def rank_plan(
    model: ModelSpec,
    workload: Workload,
    settings: Settings,
    format_name: str,
    parallel: Parallel,
    device: Device,
    demand: Demand,
) -> Rank:
    """Plan one rank: weights, runtime, states, the reserve and the asked load."""
    weights = _weights(model, settings, format_name, parallel)
    runtime = runtime_bytes(parallel.tensor, device)
    if workload.overhead_bytes is not None:
        runtime = exact(workload.overhead_bytes, "--overhead")
    elif settings.backend == "turbomind":
        runtime += EXECUTOR
    others = exact(workload.reserve_bytes + device.used_bytes)
    usable = device.usable_bytes
    draft = draft_of(model, settings, format_name, parallel.tensor)
    adapters = adapter_bytes(model, workload, settings, parallel.tensor)
    loaded = total((weights, draft.weights, adapters, runtime, others, demand.states))
    reserve = _reserve(model, settings, parallel, loaded, usable, demand)
    taken = loaded + reserve
    set_aside = _set_aside(settings, demand, usable)
    if set_aside is None:
        held = left_over(taken.expected, usable, settings.cache_max_entry_count)
        checks = [share_check(taken, demand.kv, usable, settings.cache_max_entry_count, SHARE_NOTE)]
        pool = max(0, usable - taken.expected) - held
    else:
        pool = set_aside
        held = max(0, pool - demand.kv.expected)
        checks = [
            Check("budget", demand.kv, pool, POOL_NOTE),
            Check("outside_pool", taken + exact(pool), usable, FIXED_NOTE),
        ]
    parts = [
        Component("weights", weights),
        Component("kv_cache", demand.kv, "blocks of the asked load"),
        Component("activations", reserve, RESERVE_NOTE if settings.backend == "pytorch" else ""),
        Component("runtime", runtime + exact(held), "with what of the free memory is left to others"),
    ]
    if demand.states.high:
        parts.append(Component("recurrent_state", demand.states, "slots for max_batch_size + 2 sequences"))
    if draft.note:
        parts.append(Component("draft_model", draft.weights, draft.note))
    if adapters.high:
        parts.append(Component("adapters", adapters))
    if others.expected:
        parts.append(Component("other_processes", others))
    given = exact(pool)
    if set_aside is None:
        low, expected, high = (
            max(0, usable - amount) - left_over(amount, usable, settings.cache_max_entry_count)
            for amount in (taken.high, taken.expected, taken.low)
        )
        given = Quantity(low, expected, high, taken.basis)
    planned = DevicePlan(device, usable, tuple(parts), tuple(checks))
    return Rank(planned, given, _tokens(settings, demand, pool), held)


def _set_aside(settings: Settings, demand: Demand, usable_bytes: int) -> int | None:
    """Return the bytes of a pool that does not depend on what is free; None where it does."""
    if settings.fixed_blocks:
        return settings.fixed_blocks * demand.block_bytes
    return int(usable_bytes * settings.cache_max_entry_count) if settings.share_of_total else None


def _weights(model: ModelSpec, settings: Settings, format_name: str, parallel: Parallel) -> Quantity:
    num_bytes = stage_weight_bytes(model, format_name, parallel.tensor, 1, parallel.expert, 0)
    if settings.text_only:
        held = stage_tensors(model, format_name, parallel.tensor, 1, parallel.expert, 0)
        num_bytes -= sum(each * times for tensor, each, times in held if tensor.role in ("vision", "audio"))
    if settings.backend == "turbomind" and any(
        isinstance(cache, LatentAttention) for cache, _ in cache_kinds(model)
    ):
        return Quantity(num_bytes, num_bytes * 11 // 10, num_bytes * 3 // 2, "assumed", FOLDED_WHY)
    return exact(num_bytes)


def _reserve(
    model: ModelSpec, settings: Settings, parallel: Parallel, loaded: Quantity, usable: int, demand: Demand
) -> Quantity:
    """Return what comes off the free memory before the share is taken."""
    if settings.backend == "turbomind":
        return activation_peak(model, settings.max_prefill_token_num, parallel.tensor, SCRATCH_WHY)
    if settings.fixed_blocks:
        return ZERO
    low, expected, high = (
        settled_reserve(model, settings, usable - amount, demand.block_bytes)
        for amount in (loaded.low, loaded.expected, loaded.high)
    )
    bounds = sorted((low, expected, high))
    basis = "exact" if bounds[0] == bounds[2] else worse_basis("assumed", loaded.basis)
    return Quantity(bounds[0], expected, bounds[2], basis, RESERVE_NOTE)


def settled_reserve(model: ModelSpec, settings: Settings, free_bytes: int, block_bytes: int) -> int:
    """Return the PyTorch backend's runtime reserve: halved prefills until 16 blocks fit beside it.

    ``free_bytes`` are what is free after the states. Where not even two blocks fit the engine stops
    before it halves anything.
    """
    kinds = cache_kinds(model)
    sparse = any(isinstance(cache, LatentAttention) and cache.index_head_dim for cache, _ in kinds)
    workspace = DSA_WORKSPACE_BYTES if sparse else 0
    prefill, reserve = settings.max_prefill_token_num, 0
    while prefill > 0:
        rows = prefill + 2 * settings.max_batch_size
        reserve = rows * model.structure.vocab_size * LOGIT_BYTES + workspace
        available = int((free_bytes - reserve) * settings.cache_max_entry_count)
        num_blocks = available // block_bytes if block_bytes else ENOUGH_BLOCKS
        if num_blocks <= 2 or num_blocks >= ENOUGH_BLOCKS:
            break
        prefill //= 2
    return reserve


def _tokens(settings: Settings, demand: Demand, pool_bytes: int) -> int | None:
    if demand.kv.basis != "exact" or not demand.block_bytes:
        return None
    num_blocks = pool_bytes // demand.block_bytes
    spare = 1 if settings.backend == "pytorch" else 0
    return max(0, num_blocks - spare) * demand.block_length
