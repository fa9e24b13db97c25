"""What the cache costs under SGLang, whole model, ranks counted once."""

from dataclasses import replace

from kvplan.engines.base import CacheGroup, CacheUse
from kvplan.engines.sglang.asked import asked_bytes, states_for
from kvplan.engines.sglang.cells import Cells, cells_of, is_window, row_of, state_bytes
from kvplan.engines.sglang.compressed import full_token_bytes, layout_of, request_state_bytes
from kvplan.engines.sglang.pools import caps_by_requests
from kvplan.engines.sglang.settings import Settings
from kvplan.layers import RECURRENT_STATES, CompressedAttention, kind_name
from kvplan.model import ModelSpec, cache_kinds
from kvplan.quantity import Quantity, exact
from kvplan.units import round_up


def whole_model(settings: Settings) -> Settings:
    """Return the settings as if one rank held all heads."""
    return replace(settings, layout=replace(settings.layout, attention_tensor=1, dcp=1))


def cache_use(
    model: ModelSpec,
    settings: Settings,
    context_tokens: int,
    num_sequences: int,
    num_pool_tokens: int | None,
    unmodelled: Quantity,
) -> CacheUse:
    """Price the cache of the asked load. ``unmodelled`` is what kinds without a pool may take a sequence."""
    alone = whole_model(settings)
    compressed = layout_of(model.layers) if _has_compressed(model) else None
    cells = cells_of(model.layers, alone.layout)
    slots = (states_for(settings, 1) - 1) if cells.state_bytes else 0
    states = cells.state_bytes * slots
    if compressed is not None:
        states = request_state_bytes(compressed, alone, 1) - request_state_bytes(compressed, alone, 0)
    row = _token_bytes(cells, alone) if compressed is None else int(full_token_bytes(compressed, alone))
    one, draft = asked_bytes(cells, compressed, alone, context_tokens, 1)
    per_sequence = one + draft + states + unmodelled.expected
    every, every_draft = asked_bytes(cells, compressed, alone, context_tokens, num_sequences)
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
        bytes_per_sequence=per_sequence,
        state_bytes_per_sequence=states,
        total=total,
        peak_bytes=total.expected,
        groups=_groups(model, alone, context_tokens),
        block_size=page,
        page_size_bytes=row * page,
        num_blocks=None if num_pool_tokens is None else num_pool_tokens // page,
    )


def _has_compressed(model: ModelSpec) -> bool:
    return any(isinstance(cache, CompressedAttention) for cache, _ in cache_kinds(model))


def _token_bytes(cells: Cells, settings: Settings) -> int:
    """Return the marginal bytes of a token: a window slot's share comes with every full token."""
    full = cells.full_bytes + cells.draft_full_bytes
    window = cells.window_bytes + cells.draft_window_bytes
    if not window or caps_by_requests(settings):
        return full
    return round(full + settings.swa_full_tokens_ratio * window)


def _groups(model: ModelSpec, settings: Settings, context_tokens: int) -> tuple[CacheGroup, ...]:
    groups: list[CacheGroup] = []
    tokens = round_up(context_tokens, settings.page_size)
    for cache, count in cache_kinds(model):
        if isinstance(cache, RECURRENT_STATES):
            amount = sum(state_bytes(cache, settings.layout) or (0, 0)) * count
            slots = settings.slots_per_request
            groups.append(CacheGroup(kind_name(cache), count, 0, amount * slots, f"{slots} slots a request"))
            continue
        row = row_of(cache, settings.layout).num_bytes * count
        if isinstance(cache, CompressedAttention):
            part = layout_of(tuple(group for group in model.layers if cache in group.layer.caches))
            row = int(full_token_bytes(part, settings))
        detail, share = "", 1.0
        if settings.layout.hybrid_windows and is_window(cache):
            share = settings.swa_full_tokens_ratio
            detail = f"{share:g} window tokens for each full one"
        groups.append(CacheGroup(kind_name(cache), count, row, int(row * tokens * share), detail))
    return tuple(groups)
