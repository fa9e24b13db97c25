"""What a load needs on one rank: whole blocks, and slots for recurrent states.

PyTorch backend: LMDeploy 0.18 pytorch/engine/executor/base.py (_get_num_gpu_blocks,
_get_state_cache_mem), engine/engine.py (_get_max_session_len) and paging/block_manager. TurboMind
keeps every attention layer in full (src/turbomind/models/llama/object_cache_plan.cc).
"""

from functools import lru_cache

from kvplan.engines.lmdeploy.blocks import (
    NOT_ROWS_WHY,
    block_length,
    has_rows,
    pytorch_block_bytes,
    slot_bytes,
    turbomind_block_bytes,
)
from kvplan.engines.lmdeploy.settings import Settings
from kvplan.engines.lmdeploy.speculation import draft_of
from kvplan.frozen import dataclass
from kvplan.layers import RECURRENT_STATES, Cache, ChunkedAttention, SlidingWindow
from kvplan.model import ModelSpec, cache_kinds
from kvplan.quantity import Quantity, exact
from kvplan.units import ceil_div

# One block is kept for padding. The engine stops with "No enough gpu memory for kv cache." at two, and
# with "No enough gpu memory for runtime." where halving its prefills does not bring 16.
RESERVED_BLOCKS, MIN_FIXED_BLOCKS, MIN_BLOCKS = 1, 3, 16
# State slots beside the batch: one for the system, one for a rolling prefill.
SPARE_SLOTS = 2
# Families whose config builders turn the window off: every layer is kept in full
# (pytorch/configurations/gpt_oss.py, gemma.py).
WINDOW_OFF = ("gpt_oss", "gemma3")
WINDOW_WHY = "blocks before the window are freed as a sequence grows; how soon was not run"
STATES_WHY = "live states lie in the same region as the blocks; their padding was not read"


@dataclass(frozen=True, slots=True)
class Demand:
    """One rank's needs.

    ``block_bytes`` is a block of all layers, a draft's too, ``num_blocks`` what the load takes of them,
    ``kv`` those in bytes (TurboMind: with live states), ``states`` what is set aside for states
    whatever runs, ``slot_bytes`` one sequence's.
    """

    block_length: int
    block_bytes: int
    num_blocks: int
    kv: Quantity
    states: Quantity
    slot_bytes: int


@dataclass(frozen=True, slots=True)
class Blocks:
    """What a rank's blocks and slots are, whatever the load.

    ``length`` in tokens; ``kinds`` the bytes of a block by kind of cache, all its layers together;
    ``drafted`` what the layers that draft add to it.
    """

    length: int
    kinds: tuple[int, ...]
    drafted: Quantity
    slot_bytes: int


@lru_cache(maxsize=1024)
def blocks_of(model: ModelSpec, settings: Settings, ranks: int) -> Blocks:
    """Return the blocks of one of ``ranks`` tensor ranks."""
    kinds, model_type = cache_kinds(model), model.model_type
    length = block_length((cache for cache, _ in kinds), settings, model_type)
    states = [row for row in kinds if isinstance(row[0], RECURRENT_STATES)]
    return Blocks(
        length,
        tuple(block_bytes(cache, settings, length, ranks, model_type) * count for cache, count in kinds),
        draft_block(model, settings, length, ranks),
        slot_bytes(states, ranks, settings.num_draft_tokens),
    )


@lru_cache(maxsize=2048)
def rank_demand(
    model: ModelSpec, settings: Settings, ranks: int, context_tokens: int, num_sequences: int
) -> Demand:
    """Return what ``num_sequences`` of ``context_tokens`` need on one of ``ranks`` tensor ranks."""
    sized = blocks_of(model, settings, ranks)
    length, drafted, slot = sized.length, sized.drafted, sized.slot_bytes
    whole = num_sequences * ceil_div(context_tokens + settings.num_draft_tokens, length)
    block = sum(sized.kinds) + drafted.expected
    if settings.backend == "turbomind":
        kv = exact(whole * block)
        if slot:
            live = slot * num_sequences
            kv += Quantity(live, live, 2 * live, "assumed", STATES_WHY)
        return Demand(
            length, block, whole, kv + _not_rows(model, context_tokens, num_sequences), exact(0), slot
        )
    # A single session may not use the last block either.
    least = MIN_FIXED_BLOCKS if settings.fixed_blocks else MIN_BLOCKS
    needed = max(least, whole + RESERVED_BLOCKS, ceil_div(context_tokens, length) + RESERVED_BLOCKS + 1)
    kv = exact(needed * block)
    fewest, likely = _window_blocks(model, settings, length, context_tokens)
    if fewest is not None and likely is not None:
        low, expected = (
            max(least, num_sequences * each + RESERVED_BLOCKS) * block for each in (fewest, likely)
        )
        kv = Quantity(min(low, kv.high), min(expected, kv.high), kv.high, "assumed", WINDOW_WHY)
    kv += Quantity(
        needed * (drafted.low - drafted.expected),
        0,
        needed * (drafted.high - drafted.expected),
        drafted.basis,
    )
    slots = settings.max_batch_size + SPARE_SLOTS + settings.state_budget
    return Demand(
        length,
        block,
        needed,
        kv + _not_rows(model, context_tokens, num_sequences),
        exact(slot * slots),
        slot,
    )


def draft_block(model: ModelSpec, settings: Settings, length: int, ranks: int) -> Quantity:
    """Return what the layers that draft add to a block of ``length`` tokens on one of ``ranks``."""
    draft = draft_of(model, settings, model.weights_format, ranks)
    rows = sum(
        block_bytes(cache, settings, length, ranks, model.model_type) * group.count
        for group in draft.layers
        for cache in group.layer.caches
    )
    unread = draft.token_bytes
    return Quantity(
        rows + unread.low * length, rows + unread.expected * length, rows + unread.high * length, unread.basis
    )


def block_bytes(cache: Cache, settings: Settings, length: int, ranks: int, model_type: str) -> int:
    """Return one layer's bytes of a block of ``length`` tokens; 0 for what keeps no rows."""
    if not has_rows(cache):
        return 0
    if settings.backend == "turbomind":
        return turbomind_block_bytes(cache, length, ranks, settings.quant_policy)
    return pytorch_block_bytes(cache, length, ranks, settings.quant_policy, model_type)


def _window_blocks(
    model: ModelSpec, settings: Settings, length: int, context_tokens: int
) -> tuple[int, int] | tuple[None, None]:
    """Return the fewest and the likely blocks of a sequence where the PyTorch backend frees some.

    It does so with one window for all layers, so a model that mixes windows with full attention
    likely keeps everything.
    """
    attending = [cache for cache, _ in cache_kinds(model) if has_rows(cache)]
    windows = [cache.sliding_window for cache in attending if isinstance(cache, SlidingWindow)]
    if not windows or model.model_type in WINDOW_OFF:
        return None, None
    window = max(windows)
    full = ceil_div(context_tokens, length)
    fewest = min(full, ceil_div(window, length) + 1)
    mixed = any(not isinstance(cache, SlidingWindow | ChunkedAttention) for cache in attending)
    likely = full if mixed else min(full, ceil_div(window + settings.max_prefill_token_num, length) + 1)
    return fewest, likely


def _not_rows(model: ModelSpec, context_tokens: int, num_sequences: int) -> Quantity:
    """Return what layers of other kinds (cross attention, compressed or shared rows) may take."""
    layers = sum(
        count
        for cache, count in cache_kinds(model)
        if not has_rows(cache) and not isinstance(cache, RECURRENT_STATES)
    )
    if not layers:
        return exact(0)
    each = model.structure.hidden_size * context_tokens * num_sequences * layers
    return Quantity(0, each, 4 * each, "assumed", NOT_ROWS_WHY)
