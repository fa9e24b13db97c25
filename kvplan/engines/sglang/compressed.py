"""DeepSeek-V4 under SGLang: window rows, rows compressed 4 and 128 to 1, and their running states.

SGLang 0.5.23 srt/model_executor/pool_configurator.py (DSV4PoolConfigurator),
srt/mem_cache/deepseek_v4_memory_pool.py (what is allocated) and
kernels/ops/attention/dsv4/kv_layout.py (rows in pages). The window pool is a share of the full
tokens; the states of the 128-to-1 layers are a ring per request and come off the budget first.
"""

from math import ceil

from kvplan.engines.sglang.pools import (
    Pools,
    Refused,
    no_room_message,
    req_to_token_bytes,
    rest_gib,
    running_requests,
)
from kvplan.engines.sglang.settings import Settings
from kvplan.frozen import dataclass
from kvplan.layers import CompressedAttention, LayerGroup
from kvplan.units import GIB, ceil_div, round_up

# FlashMLA's V4 rows: fp8 values, 64 rope values in bf16, 7 scales and a pad; pages of whole 576 bytes.
ROPE_HEAD_DIM = 64
SCALE_BYTES = 8
PAGE_ALIGNMENT = 576
# Running states are fp32 pairs of value and score.
STATE_ELEMENT_BYTES = 4
RINGS = {4: 8, 128: 128}
RINGS_SPECULATIVE = {4: 16, 128: 256}


@dataclass(frozen=True, slots=True)
class CompressedLayout:
    """One stage's compressed layers on a rank: how many, of those 4 and 128 to 1, and their sizes."""

    num_layers: int
    num_four: int
    num_many: int
    head_dim: int
    index_head_dim: int
    sliding_window: int


def layout_of(groups: tuple[LayerGroup, ...]) -> CompressedLayout:
    """Read a stage's compressed layers."""
    counts: dict[int, int] = {}
    head_dim = index_head_dim = window = total = 0
    for group in groups:
        for cache in group.layer.caches:
            if isinstance(cache, CompressedAttention):
                counts[cache.compress_ratio] = counts.get(cache.compress_ratio, 0) + group.count
                head_dim, window = cache.head_dim, cache.sliding_window
                index_head_dim = max(index_head_dim, cache.index_head_dim)
                total += group.count
    return CompressedLayout(total, counts.get(4, 0), counts.get(128, 0), head_dim, index_head_dim, window)


def page_bytes(layout: CompressedLayout, page_size: int) -> int:
    """Return the bytes of a page of ``page_size`` rows."""
    row = layout.head_dim + ROPE_HEAD_DIM + SCALE_BYTES
    return round_up(page_size * row, PAGE_ALIGNMENT)


def window_token_bytes(layout: CompressedLayout, settings: Settings) -> float:
    """Return the bytes of one window slot, the 4-to-1 layers' states included, all layers."""
    page = settings.page_size
    state = 4 * (layout.head_dim + layout.index_head_dim) * STATE_ELEMENT_BYTES
    ring = _rings(settings)[4] if layout.num_four else 0
    rows = page_bytes(layout, page) / page * layout.num_layers
    return (rows + ring / page * state * layout.num_four) * _draft_factor(layout, settings)


def full_token_bytes(layout: CompressedLayout, settings: Settings) -> float:
    """Return the bytes of one token: its share of window slots and of compressed rows."""
    page = settings.page_size
    indexer = layout.index_head_dim + layout.index_head_dim // 128 * 4
    four = 1 / 4 * (page_bytes(layout, page // 4) / (page // 4)) + 1 / 4 * indexer
    many = 1 / 128 * (page_bytes(layout, page // 128) / (page // 128))
    plain = window_token_bytes(layout, settings) / _draft_factor(layout, settings)
    amount = settings.swa_full_tokens_ratio * plain + four * layout.num_four + many * layout.num_many
    return amount * _draft_factor(layout, settings)


def _draft_factor(layout: CompressedLayout, settings: Settings) -> float:
    """Return what a draft layer adds to every token: one more layer of as many."""
    return (layout.num_layers + 1) / layout.num_layers if settings.speculative_algorithm else 1.0


def _rings(settings: Settings) -> dict[int, int]:
    return RINGS_SPECULATIVE if settings.draft_tokens else RINGS


def request_state_bytes(layout: CompressedLayout, settings: Settings, max_running_requests: int) -> int:
    """Return the 128-to-1 layers' states: a ring of rows for every request slot."""
    layers = layout.num_many
    if not layers:
        return 0
    ring = _rings(settings)[128]
    rows = round_up((max_running_requests + 1) * ring + ring + 1, 128)
    return rows * 2 * layout.head_dim * STATE_ELEMENT_BYTES * layers


def size_compressed(
    layout: CompressedLayout, settings: Settings, before_gib: float, after_gib: float
) -> Pools | Refused:
    """Size one rank's pools."""
    rest = rest_gib(settings, before_gib, after_gib)
    if rest <= 0:
        return Refused(no_room_message(settings, before_gib, after_gib))
    budget = int(rest * GIB)
    requests = max(1, (settings.max_running_requests or 1) // settings.attention_dp)
    fixed = request_state_bytes(layout, settings, requests)
    page = settings.page_size
    full = int(max(budget - fixed, 0) / full_token_bytes(layout, settings)) // page * page
    if settings.max_total_tokens is not None:
        full = min(full, settings.max_total_tokens // page * page)
    window = window_tokens(settings, full)
    if layout.sliding_window + page >= window:
        return Refused(
            f"SWA pool ({window} tokens) cannot hold even one request: the prefill admission floor is "
            f"sliding_window_size ({layout.sliding_window}) + page_size ({page}). "
            "Increase --swa-full-tokens-ratio or the total KV budget."
        )
    running = running_requests(settings, full, None)
    if isinstance(running, Refused):
        return running
    return Pools(
        budget_bytes=budget,
        max_total_num_tokens=full,
        full_tokens=full,
        window_tokens=window,
        mamba_slots=0,
        max_running_requests=running,
        pool_bytes=allocated_bytes(layout, settings, full, running),
        state_bytes=request_state_bytes(layout, settings, running),
        intermediate_bytes=0,
        draft_bytes=0,
        req_to_token_bytes=req_to_token_bytes(settings, running),
    )


def window_tokens(settings: Settings, full_tokens: int) -> int:
    """Return the window slots beside ``full_tokens``."""
    page = settings.page_size
    return int(full_tokens * settings.swa_full_tokens_ratio) // page * page


def pages_bytes(layout: CompressedLayout, settings: Settings, full_tokens: int) -> int:
    """Return what the pages of ``full_tokens`` take with the 4-to-1 states, nothing added for padding.

    With speculation as the budget charges it: a draft layer has no pages of a size that is known.
    """
    if settings.speculative_algorithm:
        return ceil(full_token_bytes(layout, settings) * full_tokens)
    page = settings.page_size
    num_pages, num_windows = full_tokens // page, window_tokens(settings, full_tokens) // page
    indexer = layout.index_head_dim + layout.index_head_dim // 128 * 4
    state = 4 * (layout.head_dim + layout.index_head_dim) * STATE_ELEMENT_BYTES
    four = num_pages * (page_bytes(layout, page // 4) + page // 4 * indexer)
    four += num_windows * _rings(settings)[4] * state
    many = num_pages * page_bytes(layout, page // 128)
    windows = num_windows * page_bytes(layout, page)
    return windows * layout.num_layers + four * layout.num_four + many * layout.num_many


def allocated_bytes(
    layout: CompressedLayout, settings: Settings, full_tokens: int, max_running_requests: int
) -> int:
    """Return what the pools and states take, padding pages and rows included."""
    page = settings.page_size
    window = window_tokens(settings, full_tokens)
    amount = (window + page) // page * page_bytes(layout, page) * layout.num_layers
    rings = _rings(settings)
    if layout.num_four:
        small = page // 4
        amount += ceil_div(full_tokens // 4 + page, small) * page_bytes(layout, small) * layout.num_four
        indexer = layout.index_head_dim + layout.index_head_dim // 128 * 4
        indexed = full_tokens // 128 * 32
        amount += ceil_div(indexed + page, small) * small * indexer * layout.num_four
        rows = round_up(window // page * rings[4] + rings[4] + 1, 4)
        state = 4 * (layout.head_dim + layout.index_head_dim) * STATE_ELEMENT_BYTES
        amount += rows * state * layout.num_four
    if layout.num_many:
        small = page // 128
        amount += ceil_div(full_tokens // 128 + page, small) * page_bytes(layout, small) * layout.num_many
        amount += request_state_bytes(layout, settings, max_running_requests)
    return amount
