"""What one sequence takes under TensorRT-LLM: whole blocks, an interval where pools differ by version."""

from functools import lru_cache

from kvplan.engines.base import Parallel
from kvplan.engines.drafts import Draft
from kvplan.engines.tensorrt_llm.rows import NOT_ROWS, row_bytes, window_of
from kvplan.engines.tensorrt_llm.settings import Settings
from kvplan.engines.tensorrt_llm.speculation import bounded, draft_of
from kvplan.frozen import replace
from kvplan.layers import RECURRENT_STATES, Cache
from kvplan.model import ModelSpec
from kvplan.quantity import ZERO, Quantity, exact
from kvplan.sharding import stage_caches
from kvplan.units import round_up

PLAIN = ("bfloat16", "float16")
FORMAT_WHY = "the draft's cache follows the flag, or its own checkpoint where that is left to auto"
BEAM_WHY = "beams share their prompt's blocks and keep what they generate by themselves"


def per_sequence(cache: Cache, settings: Settings, ranks: int, tokens: int, hidden_size: int) -> Quantity:
    """Return one layer's bytes of one sequence in whole blocks; an interval where pools differ by version.

    States lie in slots beside the blocks (states.py).
    """
    block = settings.tokens_per_block
    if isinstance(cache, RECURRENT_STATES):
        return ZERO
    if isinstance(cache, NOT_ROWS):
        return Quantity(
            0, hidden_size * tokens, 4 * hidden_size * tokens, "assumed", "between nothing and full attention"
        )
    row = row_bytes(cache, settings.kv_dtype, ranks)
    whole = row * round_up(tokens, block)
    window = window_of(cache)
    if not window or window >= tokens:
        return exact(whole)
    short = row * min(round_up(window + block, block), round_up(tokens, block))
    return Quantity(short, whole, whole, "assumed", "a window pool by version, in full before")


@lru_cache(maxsize=2048)
def stage_request(
    model: ModelSpec, settings: Settings, parallel: Parallel, stage: int, tokens: int
) -> Quantity:
    """Return one sequence's bytes on a rank of ``stage``; the last one keeps a draft's rows as well.

    Some versions give every window size an equal share of the pool, so the larger of the two parts
    decides: twice its bytes is the upper bound where that exceeds keeping all in full.
    """
    ranks = 1 if settings.attention_dp else parallel.tensor
    windows, rest = exact(0), exact(0)
    for cache, count in stage_caches(model, parallel.pipeline, stage):
        amount = times(per_sequence(cache, settings, ranks, tokens, model.structure.hidden_size), count)
        if window_of(cache):
            windows += amount
        else:
            rest += amount
    drafted = ZERO
    if stage == parallel.pipeline - 1:
        draft = draft_of(model, settings.speculation, model.weights_format, parallel.tensor)
        drafted = draft_request(draft, settings, ranks, tokens, model.structure.hidden_size)
    both = windows + rest
    if not (windows.high and rest.high) or windows.basis == "exact":
        return both + drafted
    shared = 2 * max(windows.low, rest.high)
    return Quantity(both.low, both.expected, max(both.high, shared), "assumed", windows.why) + drafted


def draft_request(draft: Draft, settings: Settings, ranks: int, tokens: int, hidden_size: int) -> Quantity:
    """Return what one sequence keeps of the layers that draft, on one of ``ranks``."""
    rows = times(draft.token_bytes, round_up(tokens, settings.tokens_per_block))
    for group in draft.layers:
        for cache in group.layer.caches:
            rows += times(per_sequence(cache, settings, ranks, tokens, hidden_size), group.count)
    if settings.kv_dtype not in PLAIN and settings.speculation.kind != "mtp" and rows.high:
        wide = draft_request(draft, replace(settings, kv_dtype=PLAIN[0]), ranks, tokens, hidden_size)
        rows = Quantity(rows.low, rows.expected, max(rows.high, wide.high), "assumed", FORMAT_WHY)
    return bounded(rows, settings.speculation)


def times(amount: Quantity, count: int) -> Quantity:
    """Return ``count`` times an amount."""
    return Quantity(
        amount.low * count, amount.expected * count, amount.high * count, amount.basis, amount.why
    )


def with_beams(amount: Quantity, settings: Settings) -> Quantity:
    """Return what a load takes where each request searches with ``max_beam_width`` beams."""
    beams = settings.max_beam_width
    if beams == 1:
        return amount
    return Quantity(amount.low, amount.expected * beams, amount.high * beams, "assumed", BEAM_WHY)
