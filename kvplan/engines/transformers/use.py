"""What transformers' cache takes for a whole model, and how sure that is for a version.

4.57 and 5.23 were measured. Between them MLA went from decompressed heads to the latent, at a
release that was not measured, so there the answer covers both; 4.x's recurrent states may have been
in the model's dtype, and releases before 4.57 may not have cut windows.
"""

from dataclasses import replace
from functools import lru_cache

from kvplan.engines.base import CacheGroup, CacheUse
from kvplan.engines.transformers.cache import CacheKind, held
from kvplan.engines.transformers.options import Generation
from kvplan.frozen import dataclass
from kvplan.layers import RECURRENT_STATES, LatentAttention, RgLruState, XlstmState, kind_name
from kvplan.model import ModelSpec, cache_kinds
from kvplan.quantity import Quantity, exact
from kvplan.units import ceil_div
from kvplan.workload import Workload

OLDEST, NEWEST = (4, 57), (5, 23)
# xLSTMCache counts the tokens it has seen in one int64 (models/xlstm/modeling_xlstm.py).
XLSTM_COUNTER_BYTES = 8


@dataclass(frozen=True, slots=True)
class Footprint:
    """The cache as reported, and what all cards together hold of it.

    ``attention`` is the peak without recurrent states, which are ``state_bytes``.
    """

    cache: CacheUse
    attention: Quantity
    state_bytes: int


def release_of(version: str) -> tuple[int, int]:
    """Return (major, minor); a bare major version is its newest known release."""
    parts = version.split(".")
    if len(parts) > 1:
        return int(parts[0]), int(parts[1])
    return {4: OLDEST, 5: NEWEST}.get(int(parts[0]), (int(parts[0]), 0))


def is_measured(version: str) -> bool:
    """Tell whether the rules here were measured on that release (or are the newest known)."""
    release = release_of(version)
    return release >= NEWEST or OLDEST <= release < (5, 0)


def footprint_of(
    model: ModelSpec, workload: Workload, context_tokens: int, dtype: str, asked: Generation, version: str
) -> Footprint:
    """Return what ``num_sequences`` of ``context_tokens`` take, each beam or sample a sequence."""
    kind, encoder = asked.kind, workload.encoder_tokens
    batch = workload.num_sequences * asked.num_copies
    one = _sizes(model, context_tokens, 1, dtype, kind, encoder)
    longer = _sizes(model, context_tokens + 1, 1, dtype, kind, encoder)
    all_of_them = _sizes(model, context_tokens, batch, dtype, kind, encoder)
    bounds = _bounds(model, context_tokens, batch, dtype, kind, encoder, version)
    cache = CacheUse(
        bytes_per_token=max(0, longer.whole - one.whole),
        bytes_per_sequence=one.whole,
        state_bytes_per_sequence=one.states,
        total=bounds,
        peak_bytes=all_of_them.peak,
        groups=tuple(
            CacheGroup(name, count, max(0, after - now), now)
            for (name, count, now), (_, _, after) in zip(one.groups, longer.groups, strict=True)
        ),
    )
    attention = _at_peak(cache, all_of_them, asked)
    if kind.implementation == "quantized" and not kind.num_residual and kind.residual_length > 1:
        # Up to a residual of generated tokens waits unpacked, where the prompt would be packed.
        waiting = replace(kind, num_residual=kind.residual_length - 1)
        unpacked = _sizes(model, context_tokens, batch, dtype, waiting, encoder).whole
        attention = Quantity(
            attention.low,
            attention.expected,
            attention.high + max(0, unpacked - all_of_them.whole),
            "assumed",
            "packed prompt; up to residual_length generated tokens in the model's dtype",
        )
    return Footprint(cache, attention, all_of_them.states)


def _at_peak(cache: CacheUse, sizes: "_Sizes", asked: Generation) -> Quantity:
    most, whole, states = sizes.growing, sizes.whole, sizes.states
    if asked.offloads_cache:
        # The layer at work and the one fetched ahead (cache_utils.py Cache.prefetch).
        widest = max(
            (ceil_div(group.bytes_per_sequence, group.num_layers) for group in cache.groups), default=0
        )
        two = min(most, 2 * widest * ceil_div(whole, max(1, cache.bytes_per_sequence)))
        return Quantity(two // 2, two, min(most, 2 * two), "assumed", "offloaded: two layers at a time")
    why = "what the tensors' storage keeps at the peak"
    if cache.total.basis == "exact":
        return exact(most, why)
    low = max(0, cache.total.low - states)
    return Quantity(min(low, most), most, most + cache.total.high - whole, "assumed", cache.total.why)


@dataclass(frozen=True, slots=True)
class _Sizes:
    """What all layers hold: the cache object, its storage at the peak, the parts of both kinds.

    ``growing`` is the storage that follows the length, ``states`` what does not; ``groups`` are
    (kind, layers, bytes held).
    """

    whole: int
    peak: int
    growing: int
    states: int
    groups: tuple[tuple[str, int, int], ...]


@lru_cache(maxsize=4096)
def _sizes(
    model: ModelSpec, num_tokens: int, num_sequences: int, dtype: str, kind: CacheKind, encoder_tokens: int
) -> _Sizes:
    whole = peak = growing = states = 0
    if any(isinstance(cache, XlstmState) for cache, _ in cache_kinds(model)):
        whole = peak = XLSTM_COUNTER_BYTES
    groups: list[tuple[str, int, int]] = []
    for cache, count in cache_kinds(model):
        part = held(cache, num_tokens, num_sequences, dtype, kind, encoder_tokens)
        # RG-LRU's states lie in the modules: a static cache, made beforehand, does not hold them.
        outside = isinstance(cache, RgLruState)
        whole += 0 if outside and kind.implementation == "static" else part.held_bytes * count
        peak += 0 if outside else part.peak_bytes * count
        growing += (max(part.peak_bytes, part.held_bytes) - part.state_bytes) * count
        states += part.state_bytes * count
        groups.append((kind_name(cache), count, part.held_bytes * count))
    return _Sizes(whole, peak, growing, states, tuple(groups))


def _bounds(
    model: ModelSpec, num_tokens: int, batch: int, dtype: str, kind: CacheKind, encoder: int, version: str
) -> Quantity:
    release = release_of(version)
    low = high = whole = _sizes(model, num_tokens, batch, dtype, kind, encoder).whole
    if release >= NEWEST:
        return exact(whole, "transformers 5.23 cache_utils.py")
    for cache, count in cache_kinds(model):
        now = held(cache, num_tokens, batch, dtype, kind, encoder)
        if isinstance(cache, LatentAttention) and release >= (5, 0):
            wide = replace(kind, decompresses_mla=True)
            high += (held(cache, num_tokens, batch, dtype, wide, encoder).held_bytes - now.held_bytes) * count
        elif isinstance(cache, RECURRENT_STATES) and release < (5, 0):
            low -= now.state_bytes // 2 * count
        elif release < OLDEST:
            high += (now.peak_bytes - now.held_bytes) * count
    if low == high:
        return exact(whole, "transformers 4.57 cache_utils.py")
    return Quantity(low, whole, high, "assumed", f"transformers {version} was not measured on these layers")
