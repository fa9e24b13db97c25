"""One rank under TensorRT-LLM: the pool gets a share of what weights and the profile run leave.

Also read: kv_cache_manager (``max_gpu_total_bytes`` and ``max_tokens`` cap the pool) and
_torch/modules/fused_moe (MXFP4 experts padded to 128 in both dimensions of a rank: one public start-up of
gpt-oss-120b loads 63.32 GiB, which is that to the second decimal).
"""

from functools import lru_cache

from kvplan.device import Device
from kvplan.engines.base import Check, Component, DevicePlan, Parallel
from kvplan.engines.drafts import NONE
from kvplan.engines.free_share import activation_peak, left_over, runtime_bytes, share_check
from kvplan.engines.tensorrt_llm.adapters import adapter_bytes
from kvplan.engines.tensorrt_llm.request import stage_request, times, with_beams
from kvplan.engines.tensorrt_llm.settings import Settings
from kvplan.engines.tensorrt_llm.speculation import draft_of
from kvplan.engines.tensorrt_llm.states import state_slots
from kvplan.frozen import dataclass
from kvplan.model import ModelSpec, num_layers
from kvplan.quantity import Quantity, exact, total
from kvplan.sharding import (
    attention_replicas,
    pipeline_split,
    stage_groups,
    stage_tensors,
    stage_weight_bytes,
)
from kvplan.units import GIB, ceil_div, round_up
from kvplan.workload import Workload

SHARE_NOTE = "weights, activations and the asked load exceed the share"
STATES_NOTE = "slots for max_batch_size sequences, whatever runs"
ACTIVATION_WHY = "profile run: 2 x max_num_tokens x hidden size x a factor by tp (aiconfigurator)"
PADDED_WHY = "MXFP4 experts padded for their kernels: to 128 in the one public start-up, by kernel to 512"
# GiB beside weights, activations and a bare process, by three public start-ups whose weights are known:
# 2.1 for Llama 3.1 8B on one H100 (TensorRT-LLM issue 6294), 8.4 for DeepSeek-R1 on 8 H200, 11 for
# Kimi-K2.5 on 8 B300; what of it is CUDA graphs, all-reduce or expert workspace was not printed.
WORKSPACES: dict[str, tuple[float, float, float]] = {
    "one": (0, 1.5, 4),
    "several": (0.5, 3, 8),
    "experts": (1, 8, 14),
}
WORKSPACES_WHY = "CUDA graphs and workspaces; near three public start-ups"
PAGES_WHY = "the checkpoint's cached pages count as taken where memory is the host's"
# What the experts' two dimensions are rounded up to: at least, as seen, at most.
EXPERT_ALIGNMENTS = (1, 128, 512)


@dataclass(frozen=True, slots=True)
class Rank:
    """A planned rank: what the pool gets there, a block of it, the process beside weights and activations.

    ``tokens`` is what the pool holds, None where that is assumed; ``left_free_bytes`` the share of free
    memory that nothing takes.
    """

    plan: DevicePlan
    pool: Quantity
    block: Quantity
    runtime: Quantity
    tokens: int | None
    left_free_bytes: int


def rank_plan(
    model: ModelSpec,
    workload: Workload,
    settings: Settings,
    format_name: str,
    parallel: Parallel,
    stage: int,
    device: Device,
    context_tokens: int,
    num_sequences: int,
) -> Rank:
    """Plan one rank: weights, the asked load, the profile run's peak, and what is left free."""
    weights = _weights(model, settings, format_name, parallel, stage)
    here = ceil_div(num_sequences, parallel.tensor if settings.attention_dp else 1)
    held_tokens = context_tokens + settings.speculation.extra_tokens
    kv = with_beams(times(stage_request(model, settings, parallel, stage, held_tokens), here), settings)
    activations = activation_peak(model, settings.max_num_tokens, parallel.tensor, ACTIVATION_WHY)
    runtime = _runtime(model, parallel, device, weights)
    if workload.overhead_bytes is not None:
        runtime = exact(workload.overhead_bytes, "--overhead")
    others = workload.reserve_bytes + device.used_bytes
    usable = device.usable_bytes
    last = stage == parallel.pipeline - 1
    draft = draft_of(model, settings.speculation, format_name, parallel.tensor) if last else NONE
    states = state_slots(model, settings, parallel, stage, here)
    loaded = weights.expected + draft.weights.expected + states.expected + runtime.expected + others
    adapters = adapter_bytes(model, workload, parallel.tensor, usable - loaded)
    taken = total((weights, draft.weights, states, adapters, activations, runtime, exact(others)))
    pool = _pool(settings, usable, taken)
    spare = left_over(taken.expected, usable, settings.free_gpu_memory_fraction)
    parts = [
        Component("weights", weights),
        Component("kv_cache", kv, "blocks of the asked load"),
        Component("activations", activations),
        Component("runtime", runtime + exact(spare), "with the share of free memory that is left free"),
    ]
    if states.high:
        parts.append(Component("recurrent_state", states, STATES_NOTE))
    if draft.note:
        parts.append(Component("draft_model", draft.weights, draft.note))
    if adapters.high:
        parts.append(Component("adapters", adapters))
    if others:
        parts.append(Component("other_processes", exact(others)))
    checks = [share_check(taken, kv, usable, settings.free_gpu_memory_fraction, SHARE_NOTE)]
    if settings.max_tokens is not None or settings.max_gpu_total_bytes:
        checks += _capped(settings, model, parallel, stage, kv)
    rank = f"pp {stage}" if parallel.pipeline > 1 else ""
    block = stage_request(model, settings, parallel, stage, settings.tokens_per_block)
    planned = DevicePlan(device, usable, tuple(parts), tuple(checks), rank)
    return Rank(planned, pool, block, runtime, pool_tokens(settings, block, pool), spare)


def pool_tokens(settings: Settings, block: Quantity, pool: Quantity) -> int | None:
    """Return the tokens of a pool where every layer keeps plain rows; None where that is assumed.

    As many as the memory holds, in blocks that are rounded up (kvCacheManager.cpp): real start-ups
    print 86,711 tokens to fit and 86,720 allocated.
    """
    if block.basis != "exact" or not block.expected:
        return None
    tokens = pool.expected * settings.tokens_per_block // block.expected
    if settings.max_tokens is not None:
        tokens = min(tokens, settings.max_tokens)
    return round_up(tokens, settings.tokens_per_block)


def _runtime(model: ModelSpec, parallel: Parallel, device: Device, weights: Quantity) -> Quantity:
    """Return what a rank's process holds beside weights and activations.

    Where memory is the host's, the cached pages of the checkpoint count as taken: 49 GiB of 63 in the one
    public start-up on such a device.
    """
    ranks = parallel.tensor * parallel.pipeline
    is_moe = any(part.role == "expert" for group in model.layers for part in group.layer.tensors)
    low, expected, high = WORKSPACES["one" if ranks == 1 else "experts" if is_moe else "several"]
    workspaces = Quantity(int(low * GIB), int(expected * GIB), int(high * GIB), "assumed", WORKSPACES_WHY)
    runtime = runtime_bytes(ranks, device) + workspaces
    if device.unified_memory:
        runtime += Quantity(0, 0, weights.high, "assumed", PAGES_WHY)
    return runtime


def _pool(settings: Settings, usable_bytes: int, taken: Quantity) -> Quantity:
    """Return what the pool gets of what ``taken`` leaves."""
    low, expected, high = (
        int(max(0, usable_bytes - amount) * settings.free_gpu_memory_fraction)
        for amount in (taken.high, taken.expected, taken.low)
    )
    most = settings.max_gpu_total_bytes
    if most:
        low, expected, high = min(low, most), min(expected, most), min(high, most)
    return Quantity(low, expected, high, taken.basis)


def _capped(
    settings: Settings, model: ModelSpec, parallel: Parallel, stage: int, kv: Quantity
) -> list[Check]:
    """Return the test against a pool that a flag keeps smaller than memory would."""
    limits = [settings.max_gpu_total_bytes] if settings.max_gpu_total_bytes else []
    if settings.max_tokens is not None:
        tokens = round_up(settings.max_tokens, settings.tokens_per_block)
        limits.append(stage_request(model, settings, parallel, stage, tokens).expected)
    return [
        Check(
            "budget",
            kv,
            min(limits),
            "the asked load exceeds the pool that max_tokens or max_gpu_total_bytes allow",
        )
    ]


def _weights(
    model: ModelSpec, settings: Settings, format_name: str, parallel: Parallel, stage: int
) -> Quantity:
    weights = stage_weight_bytes(
        model, format_name, parallel.tensor, parallel.pipeline, parallel.expert, stage
    )
    if settings.attention_dp and parallel.tensor > 1:
        sizes = pipeline_split(num_layers(model.structure), parallel.pipeline)
        first = sum(sizes[:stage])
        groups = stage_groups(model.layers, first, sizes[stage])
        weights += attention_replicas(model, format_name, parallel.tensor, 1, groups, first)
    if format_name != "mxfp4":
        return exact(weights)
    low, expected, high = (
        weights + _expert_padding(model, parallel, stage, size) for size in EXPERT_ALIGNMENTS
    )
    return Quantity(low, expected, high, "assumed", PADDED_WHY)


@lru_cache(maxsize=512)
def _expert_padding(model: ModelSpec, parallel: Parallel, stage: int, size: int) -> int:
    """Return what rounding a rank's experts up to ``size`` in both dimensions adds."""
    ranks = parallel.tensor if parallel.expert <= 1 else 1
    amount = 0
    for tensor, each, count in stage_tensors(
        model, "mxfp4", parallel.tensor, parallel.pipeline, parallel.expert, stage
    ):
        if tensor.role != "expert" or len(tensor.shape) != 2:
            continue
        rows, columns = tensor.shape
        rows, columns = (
            (ceil_div(rows, ranks), columns) if tensor.split == "out" else (rows, ceil_div(columns, ranks))
        )
        padded = round_up(rows, size) * round_up(columns, size)
        amount += each * count * (padded - rows * columns) // (rows * columns)
    return amount
