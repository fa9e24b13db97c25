"""A model's layers as a sentence, and the KV formula with its numbers in it."""

from collections.abc import Callable, Iterator
from typing import Any

from kvplan.dtypes import format_of_dtype
from kvplan.layers import (
    RECURRENT_STATES,
    Cache,
    ChunkedAttention,
    CompressedAttention,
    CrossAttention,
    FullAttention,
    GatedDeltaState,
    KimiDeltaState,
    LatentAttention,
    Layer,
    LightningState,
    Mamba1State,
    Mamba2State,
    RgLruState,
    RwkvState,
    SharedCache,
    ShortConvState,
    SlidingWindow,
    XlstmState,
)
from kvplan.model import ModelSpec, cache_kinds, layer_kinds, num_layers
from kvplan.textbook import state_bytes

NO_CACHE = "without a cache"


def layout_text(model: ModelSpec) -> str:
    """Return the layers in words: ``48 layers: 12 full attention (2 KV heads × 256), 36 …``.

    What grows with the text comes first, states of a fixed size after it; a layer that holds both
    is named by both.
    """
    counts: dict[tuple[bool, str], int] = {}
    for layer, count in layer_kinds(model):
        fixed = bool(layer.caches) and all(isinstance(cache, RECURRENT_STATES) for cache in layer.caches)
        key = (fixed, _layer_text(layer, model))
        counts[key] = counts.get(key, 0) + count
    parts = sorted(counts.items(), key=lambda item: (item[0][1] == NO_CACHE, item[0][0]))
    words = ", ".join(f"{count} {text}" for (_, text), count in parts)
    return f"{num_layers(model.structure)} layers: {words or 'no cache'}"


def _layer_text(layer: Layer, model: ModelSpec) -> str:
    if not layer.caches:
        return NO_CACHE
    texts = [cache_text(cache, model) for cache in layer.caches]
    once = dict.fromkeys(texts)
    return " beside ".join(
        text if texts.count(text) == 1 else f"{texts.count(text)} × {text}" for text in once
    )


def cache_text(cache: Cache, model: ModelSpec) -> str:
    """Return one kind of cache in words, with its sizes."""
    writer: Callable[[Any], str] | None = _WRITERS.get(type(cache))
    if writer is not None:
        return writer(cache)
    state = _size(state_bytes(cache, model.dtype))
    return f"{_STATES[type(cache)]} (state {state} a sequence, {_state_dtype(cache, model)})"


def formula(cache: Cache) -> str:
    """Return the formula of one layer's cache with this layer's numbers in it, in elements."""
    match cache:
        case FullAttention() | SlidingWindow() | ChunkedAttention() | CrossAttention():
            heads = f"{cache.num_key_value_heads} KV heads"
            text = f"{heads} × ({cache.head_dim} K + {cache.v_head_dim} V)"
            if cache.head_dim == cache.v_head_dim:
                text = f"2 (K and V) × {heads} × {cache.head_dim}"
            if isinstance(cache, FullAttention) and cache.index_head_dim:
                text += f" + {cache.index_head_dim} index key"
            return text
        case LatentAttention():
            text = f"{cache.kv_lora_rank} latent + {cache.qk_rope_head_dim} rope key"
            return f"{text} + {cache.index_head_dim} index key" if cache.index_head_dim else text
        case CompressedAttention():
            ratio = f" + one row every {cache.compress_ratio} tokens" if cache.compress_ratio else ""
            return f"{cache.head_dim} in a window of {cache.sliding_window:,}{ratio}"
        case SharedCache():
            return "0: reads another layer's cache"
    return "fixed, whatever the context"


def formula_lines(model: ModelSpec) -> Iterator[str]:
    """Yield one line a kind of cache: how many layers, what each caches a token."""
    for cache, count in cache_kinds(model):
        yield f"{count} layers × {formula(cache)}"


def multi_head_ratio(model: ModelSpec) -> tuple[int, int] | None:
    """Return (query heads, KV heads) where all full layers group queries alike, else None."""
    pairs = {
        (cache.num_attention_heads, cache.num_key_value_heads)
        for cache, _ in cache_kinds(model)
        if isinstance(cache, FullAttention | SlidingWindow | ChunkedAttention)
    }
    if len(pairs) != 1:
        return None
    query, kv = next(iter(pairs))
    return (query, kv) if query > kv else None


def _state_dtype(cache: Cache, model: ModelSpec) -> str:
    """Return what the state's matrices are kept in: fp32, but for rows that follow the model's type."""
    if isinstance(cache, ShortConvState | XlstmState):
        return format_of_dtype(model.dtype)
    return "fp32"


def _size(num_bytes: int) -> str:
    if num_bytes >= 2**20:
        return f"{num_bytes / 2**20:.1f} MiB"
    return f"{num_bytes / 2**10:.1f} KiB"


def _heads(cache: FullAttention | SlidingWindow | ChunkedAttention | CrossAttention) -> str:
    dims = (
        f"{cache.head_dim}" if cache.head_dim == cache.v_head_dim else f"{cache.head_dim}/{cache.v_head_dim}"
    )
    return f"{cache.num_key_value_heads} KV heads × {dims}"


_WRITERS: dict[type, Callable[[Any], str]] = {
    FullAttention: lambda cache: (
        f"full attention ({_heads(cache)}"
        + (f", index {cache.index_head_dim})" if cache.index_head_dim else ")")
    ),
    SlidingWindow: lambda cache: f"sliding window {cache.sliding_window:,} ({_heads(cache)})",
    ChunkedAttention: lambda cache: f"chunked attention {cache.attention_chunk_size:,} ({_heads(cache)})",
    LatentAttention: lambda cache: (
        f"latent attention ({cache.kv_lora_rank} + {cache.qk_rope_head_dim}"
        + (f", index {cache.index_head_dim})" if cache.index_head_dim else ")")
    ),
    CompressedAttention: lambda cache: (
        f"compressed attention (window {cache.sliding_window:,}"
        + (f", 1 of {cache.compress_ratio})" if cache.compress_ratio else ")")
    ),
    CrossAttention: lambda cache: f"cross attention to the {cache.source} ({_heads(cache)})",
    SharedCache: lambda _: "sharing another layer's cache",
}
_STATES: dict[type, str] = {
    Mamba1State: "Mamba",
    Mamba2State: "Mamba-2",
    GatedDeltaState: "gated DeltaNet",
    KimiDeltaState: "Kimi delta attention",
    LightningState: "lightning attention",
    ShortConvState: "short convolution",
    RgLruState: "RG-LRU",
    RwkvState: "RWKV",
    XlstmState: "xLSTM",
}
