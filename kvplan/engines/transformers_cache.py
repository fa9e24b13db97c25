"""What transformers' caches hold, layer by layer, in bytes.

transformers 5.23 cache_utils.py and the modeling files, measured on real caches of small models of
94 classes. Caches follow the model's dtype; recurrent matrices are fp32; a window keeps one token
less than its length; 4.57 kept MLA decompressed.
"""

from dataclasses import dataclass
from typing import Literal

from kvplan.dtypes import DTYPE_BYTES
from kvplan.layers import (
    Cache,
    ChunkedAttention,
    CompressedAttention,
    CrossAttention,
    FullAttention,
    GatedDeltaState,
    KimiDeltaState,
    LatentAttention,
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
from kvplan.units import ceil_div

FLOAT32_BYTES = 4
SCALE_BYTES = 2


@dataclass(frozen=True, slots=True)
class CacheKind:
    """Which cache class generation uses.

    ``max_cache_len`` is what a static cache reserves; ``num_bits``, ``group_size`` and
    ``residual_length`` are a quantized cache's (transformers QuantizedCacheConfig).
    """

    implementation: Literal["dynamic", "static", "quantized"] = "dynamic"
    max_cache_len: int = 0
    backend: str = "quanto"
    num_bits: int = 4
    group_size: int = 64
    residual_length: int = 128
    decompresses_mla: bool = False
    broadcasts_heads: bool = False


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes of one layer for one sequence: what the tensors hold, and what they keep at the peak.

    ``state_bytes`` is the part that does not depend on the length.
    """

    held_bytes: int
    peak_bytes: int
    state_bytes: int = 0


def held(cache: Cache, num_tokens: int, dtype: str, kind: CacheKind, encoder_tokens: int) -> Held:
    """Return what one layer's cache takes for one sequence of ``num_tokens``."""
    element = DTYPE_BYTES[dtype]
    length = kind.max_cache_len if kind.implementation == "static" else num_tokens
    match cache:
        case FullAttention():
            heads = cache.num_attention_heads if kind.broadcasts_heads else cache.num_key_value_heads
            index = cache.index_head_dim * length * element
            if kind.implementation == "quantized":
                return _same(
                    _quantized(heads * cache.head_dim * length, kind)
                    + _quantized(heads * cache.v_head_dim * length, kind)
                    + index
                )
            return _same(length * heads * (cache.head_dim + cache.v_head_dim) * element + index)
        case SlidingWindow():
            row = cache.num_key_value_heads * (cache.head_dim + cache.v_head_dim) * element
            return _window(row, cache.sliding_window, length, kind)
        case ChunkedAttention():
            row = cache.num_key_value_heads * (cache.head_dim + cache.v_head_dim) * element
            return _window(row, cache.attention_chunk_size, length, kind)
        case LatentAttention():
            return _same(length * _latent_row(cache, kind) * element)
        case CompressedAttention():
            # After the prompt the window's storage and the compressor's inputs are still whole.
            inputs = 2 if not cache.index_head_dim else 4
            width = cache.head_dim + cache.index_head_dim
            whole = num_tokens * (cache.head_dim + (inputs * width if cache.compress_ratio else 0))
            held_bytes = _compressed(cache, num_tokens) * element
            return Held(held_bytes, held_bytes + whole * element)
        case CrossAttention():
            tokens = cache.num_source_tokens or encoder_tokens
            return _same(tokens * cache.num_key_value_heads * (cache.head_dim + cache.v_head_dim) * element)
        case SharedCache():
            return _same(0)
    state = state_bytes(cache, element)
    return Held(state, state, state)


def _same(num_bytes: int) -> Held:
    return Held(num_bytes, num_bytes)


def _window(row: int, window: int, length: int, kind: CacheKind) -> Held:
    if kind.implementation == "static":
        return _same(min(length, window) * row)
    # Right after the prompt the tensor is a view of the last window - 1 tokens; its storage keeps all.
    return Held(min(length, window - 1) * row, length * row)


def _latent_row(cache: LatentAttention, kind: CacheKind) -> int:
    if kind.decompresses_mla:
        keys = cache.qk_nope_head_dim + cache.qk_rope_head_dim
        return cache.num_attention_heads * (keys + cache.v_head_dim)
    return cache.kv_lora_rank + cache.qk_rope_head_dim + cache.index_head_dim


def _compressed(cache: CompressedAttention, num_tokens: int) -> int:
    """Return DeepSeek-V4's elements: window rows, compressed rows, and the tokens not yet compressed."""
    rows = min(num_tokens, cache.sliding_window - 1)
    head, index, ratio = cache.head_dim, cache.index_head_dim, cache.compress_ratio
    if not ratio:
        return rows * 2 * head
    compressed, pending = divmod(num_tokens, ratio)
    if not index:
        return (rows + compressed + 2 * pending) * head
    overlap = 2 * ratio if compressed else 0
    return rows * head + (compressed + 4 * pending + overlap) * (head + index)


def _quantized(num_elements: int, kind: CacheKind) -> int:
    """Return the bytes of a quantized tensor: packed values, and a scale and a zero point a group."""
    if kind.backend == "fp8":
        return num_elements + FLOAT32_BYTES
    groups = ceil_div(num_elements, kind.group_size)
    return ceil_div(num_elements * kind.num_bits, 8) + 2 * groups * SCALE_BYTES


def state_bytes(cache: Cache, element: int) -> int:
    """Return the bytes of a recurrent layer's state; convolutions are ``conv_kernel`` wide here."""
    match cache:
        case Mamba1State():
            inner = cache.intermediate_size
            return inner * cache.conv_kernel * element + inner * cache.state_size * FLOAT32_BYTES
        case Mamba2State():
            inner = cache.num_heads * cache.head_dim
            channels = inner + 2 * cache.n_groups * cache.state_size
            return channels * cache.conv_kernel * element + inner * cache.state_size * FLOAT32_BYTES
        case GatedDeltaState():
            values = cache.num_v_heads * cache.head_v_dim
            channels = 2 * cache.num_k_heads * cache.head_k_dim + values
            return channels * cache.conv_kernel * element + values * cache.head_k_dim * FLOAT32_BYTES
        case KimiDeltaState():
            inner = cache.num_heads * cache.head_dim
            return 3 * inner * cache.conv_kernel * element + inner * cache.head_dim * FLOAT32_BYTES
        case LightningState():
            return cache.num_heads * cache.head_dim**2 * element
        case ShortConvState():
            return cache.hidden_size * cache.conv_kernel * element
        case RgLruState():
            return cache.lru_width * (FLOAT32_BYTES + (cache.conv_kernel - 1) * element)
        case RwkvState():
            model_rows = cache.num_model_dtype_rows * cache.hidden_size * element
            return model_rows + cache.num_float32_elements * FLOAT32_BYTES
        case XlstmState():
            head = cache.qk_head_dim * cache.v_head_dim + cache.qk_head_dim + 1
            return cache.num_heads * head * element
    return 0
