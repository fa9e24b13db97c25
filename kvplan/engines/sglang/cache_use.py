"""What the cache costs under SGLang, whole model, ranks counted once."""

from functools import lru_cache

from kvplan.engines.base import CacheGroup, CacheUse
from kvplan.engines.sglang.asked import held_bytes, states_for
from kvplan.engines.sglang.cells import Cells, cells_of, is_compressed, is_window, row_of, state_bytes
from kvplan.engines.sglang.compressed import (
    CompressedLayout,
    full_token_bytes,
    layout_of,
    request_state_bytes,
)
from kvplan.engines.sglang.pools import caps_by_requests
from kvplan.engines.sglang.settings import Layout, Settings
from kvplan.frozen import dataclass, replace
from kvplan.layers import RECURRENT_STATES, CompressedAttention, kind_name
from kvplan.model import ModelSpec, cache_kinds
from kvplan.quantity import Quantity, exact
from kvplan.units import round_up


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of layer: how many, a token's row or a request's state over all of them."""

    name: str
    num_layers: int
    row_bytes: int
    state_bytes: int
    in_window_pool: bool
    compressed: CompressedLayout | None


@dataclass(frozen=True, slots=True)
class WholeModel:
    """The model as if one rank held all heads."""

    cells: Cells
    compressed: CompressedLayout | None
    kinds: tuple[Kind, ...]


@lru_cache(maxsize=1024)
def whole_model(model: ModelSpec, layout: Layout) -> WholeModel:
    """Price every layer without any split."""
    alone = replace(layout, attention_tensor=1, dcp=1)
    kinds: list[Kind] = []
    for cache, count in cache_kinds(model):
        state = row = 0
        part = None
        if isinstance(cache, RECURRENT_STATES):
            state = sum(state_bytes(cache, alone) or (0, 0)) * count
        else:
            row = row_of(cache, alone).num_bytes * count
        if isinstance(cache, CompressedAttention):
            part = layout_of(tuple(group for group in model.layers if cache in group.layer.caches))
        windowed = layout.hybrid_windows and is_window(cache)
        kinds.append(Kind(kind_name(cache), count, row, state, windowed, part))
    compressed = layout_of(model.layers) if is_compressed(model.layers) else None
    return WholeModel(cells_of(model.layers, alone), compressed, tuple(kinds))


def cache_use(
    whole: WholeModel,
    settings: Settings,
    context_tokens: int,
    num_sequences: int,
    num_pool_tokens: int | None,
    unmodelled: Quantity,
) -> CacheUse:
    """Price the cache of the asked load. ``unmodelled`` is what kinds without a pool may take a sequence."""
    cells, compressed = whole.cells, whole.compressed
    if compressed is not None:
        row = int(full_token_bytes(compressed, settings))
        states = request_state_bytes(compressed, settings, 1) - request_state_bytes(compressed, settings, 0)
    else:
        row = _token_bytes(cells, settings)
        states = cells.state_bytes * (states_for(settings, 1) - 1)
    one, draft = held_bytes(cells, compressed, settings, context_tokens, 1)
    every, every_draft = one, draft
    if num_sequences > 1:
        every, every_draft = held_bytes(cells, compressed, settings, context_tokens, num_sequences)
    known = every + every_draft + states * num_sequences
    total = exact(known)
    if unmodelled.high:
        total = Quantity(
            known + unmodelled.low * num_sequences,
            known + unmodelled.expected * num_sequences,
            known + unmodelled.high * num_sequences,
            "assumed",
            unmodelled.why,
        )
    page = settings.page_size
    return CacheUse(
        bytes_per_token=row,
        bytes_per_sequence=one + draft + states + unmodelled.expected,
        state_bytes_per_sequence=states,
        total=total,
        peak_bytes=total.expected,
        groups=tuple(_group(kind, settings, round_up(context_tokens, page)) for kind in whole.kinds),
        block_size=page,
        page_size_bytes=row * page,
        num_blocks=None if num_pool_tokens is None else num_pool_tokens // page,
    )


def _token_bytes(cells: Cells, settings: Settings) -> int:
    """Return the marginal bytes of a token: a window slot's share comes with every full token."""
    full = cells.full_bytes + cells.draft_full_bytes
    window = cells.window_bytes + cells.draft_window_bytes
    if not window or caps_by_requests(settings):
        return full
    return round(full + settings.swa_full_tokens_ratio * window)


def _group(kind: Kind, settings: Settings, tokens: int) -> CacheGroup:
    if kind.state_bytes or not (kind.row_bytes or kind.compressed):
        slots = settings.slots_per_request
        amount = kind.state_bytes * slots
        return CacheGroup(kind.name, kind.num_layers, 0, amount, f"{slots} slots a request")
    row = kind.row_bytes
    if kind.compressed is not None:
        row = int(full_token_bytes(kind.compressed, settings))
    if kind.in_window_pool:
        share = settings.swa_full_tokens_ratio
        detail = f"{share:g} window tokens for each full one"
        return CacheGroup(kind.name, kind.num_layers, row, int(row * tokens * share), detail)
    return CacheGroup(kind.name, kind.num_layers, row, row * tokens)
