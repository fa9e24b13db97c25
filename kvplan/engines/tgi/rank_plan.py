"""One rank under TGI: a warm-up at full prefill, then the pool from what is still free.

text-generation-inference server/text_generation_server/models/flash_causal_lm.py (warmup) and
utils/import_utils.py (get_cuda_free_memory). Before 3.0 the pool is ``TGI_WIGGLE_ROOM`` of what the
warm-up left free, and the warm-up's own blocks; since 3.0 what is free above the share of the card that
is kept free (read in the 3.x server's copy for Gaudi, which has CUDA's arithmetic).
"""

from kvplan.device import Device
from kvplan.engines.base import Check, Component, DevicePlan, Parallel
from kvplan.engines.free_share import activation_peak, left_over, runtime_bytes, share_check
from kvplan.engines.tgi.beside import adapter_bytes
from kvplan.engines.tgi.rows import load_bytes, token_bytes
from kvplan.engines.tgi.settings import Settings
from kvplan.frozen import dataclass
from kvplan.model import ModelSpec
from kvplan.quantity import Quantity, exact, total
from kvplan.sharding import stage_weight_bytes
from kvplan.workload import Workload

PEAK_WHY = "warm-up: 2 x max_batch_prefill_tokens x hidden size x a factor by shards (aiconfigurator)"
LOGITS_WHY = "the warm-up asks for the log-probabilities of its whole prompt"
# Bytes of a logit while it is sampled: 16-bit alone, with fp32 copies, with its log-softmax.
LOGIT_BYTES = (2, 6, 10)


@dataclass(frozen=True, slots=True)
class Rank:
    """A planned rank: what its pool gets, a block of it, and how many blocks that is.

    ``left_free_bytes`` is the share of free memory that nothing takes, where it counts as taken.
    """

    plan: DevicePlan
    pool: Quantity
    block: Quantity
    num_blocks: int
    left_free_bytes: int


def rank_plan(
    model: ModelSpec,
    workload: Workload,
    settings: Settings,
    format_name: str,
    parallel: Parallel,
    device: Device,
    num_sequences: int,
    context_tokens: int,
) -> Rank:
    """Plan one rank: weights, runtime, the warm-up's peak and the asked load."""
    weights = exact(stage_weight_bytes(model, format_name, parallel.tensor, 1, 1, 0))
    runtime = runtime_bytes(parallel.tensor, device)
    if workload.overhead_bytes is not None:
        runtime = exact(workload.overhead_bytes, "--overhead")
    others = exact(workload.reserve_bytes + device.used_bytes)
    peak = _peak(model, settings, parallel)
    adapters = adapter_bytes(model, workload, parallel.tensor)
    taken = total((weights, adapters, runtime, others, peak))
    load = load_bytes(model, settings, parallel.tensor, num_sequences, context_tokens)
    usable = device.usable_bytes
    allowed = int(usable * settings.cuda_memory_fraction)
    block_bytes = settings.block_size * token_bytes(model, settings, parallel.tensor)
    warmup = settings.warmup_blocks() * block_bytes
    prefill_note = (
        f"Not enough memory to handle {settings.max_batch_prefill_tokens} prefill tokens. "
        "You need to decrease `--max-batch-prefill-tokens`"
    )
    pool_note = f"Not enough memory to handle `max_total_tokens={context_tokens}`"
    checks = [Check("free_at_start", taken + exact(warmup), allowed, prefill_note)]
    budget, held = allowed, 0
    if settings.room_of_total:
        room = int(usable * settings.cuda_memory_fraction * settings.room)
        free = room - taken.expected - warmup
        if load.high > warmup:
            budget = room
            checks.append(Check("budget", taken + load, room, pool_note))
    else:
        measured = taken + exact(warmup)
        free = int(max(0, allowed - measured.expected) * settings.room)
        if load.high > warmup:
            beyond = _beyond(load, warmup)
            checks.append(share_check(measured, beyond, allowed, settings.room, pool_note))
            held = left_over(measured.expected, allowed, settings.room)
    parts = [
        Component("weights", weights),
        Component("kv_cache", load, "blocks of the asked load"),
        Component("activations", peak),
        Component(
            "runtime",
            runtime + exact(held),
            "with the share of free memory that is left free" if held else "",
        ),
    ]
    if adapters.high:
        parts.append(Component("adapters", adapters))
    if others.expected:
        parts.append(Component("other_processes", others))
    num_blocks = settings.warmup_blocks() + (max(0, free) // block_bytes if block_bytes else 0)
    planned = DevicePlan(device, budget, tuple(parts), tuple(checks))
    pool = _pool(settings, usable, taken, warmup)
    return Rank(planned, pool, exact(block_bytes), num_blocks, held)


def _pool(settings: Settings, usable_bytes: int, taken: Quantity, warmup_bytes: int) -> Quantity:
    """Return what the pool gets: the warm-up's blocks, and the allowed part of what is free then."""
    allowed = int(usable_bytes * settings.cuda_memory_fraction)

    def given(taken_bytes: int) -> int:
        if settings.room_of_total:
            room = int(usable_bytes * settings.cuda_memory_fraction * settings.room)
            return max(warmup_bytes, room - taken_bytes)
        return warmup_bytes + int(max(0, allowed - taken_bytes - warmup_bytes) * settings.room)

    return Quantity(given(taken.high), given(taken.expected), given(taken.low), taken.basis)


def _beyond(load: Quantity, warmup_bytes: int) -> Quantity:
    """Return what a load takes of the pool beyond the blocks that the warm-up has."""
    low, expected, high = (max(0, part - warmup_bytes) for part in (load.low, load.expected, load.high))
    return Quantity(low, expected, high, load.basis, load.why)


def _peak(model: ModelSpec, settings: Settings, parallel: Parallel) -> Quantity:
    tokens = settings.max_batch_prefill_tokens
    peak = activation_peak(model, tokens, parallel.tensor, PEAK_WHY)
    if not settings.prefill_logprobs:
        return peak
    low, expected, high = (tokens * model.structure.vocab_size * each for each in LOGIT_BYTES)
    return peak + Quantity(low, expected, high, "assumed", LOGITS_WHY)
