"""What transformers' caches hold, layer by layer, in bytes.

transformers 5.23 cache_utils.py and the modeling files, measured on real caches of small models of
94 classes. Caches follow the model's dtype; recurrent matrices are fp32; a window keeps one token
less than its length; 4.57 kept MLA decompressed.
"""

from typing import Literal

from kvplan.dtypes import DTYPE_BYTES
from kvplan.frozen import dataclass
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
# What each backend packs: QuantoQuantizedLayer, HQQQuantizedLayer, Fp8QuantizedLayer.
BACKEND_BITS: dict[str, tuple[int, ...]] = {"quanto": (2, 4), "hqq": (1, 2, 3, 4, 8), "fp8": (8,)}
# HQQ packs ten 3-bit values into 32 bits, along the rows (hqq 0.2.8 core/bitpack.py pack_3bit_32).
HQQ_ROWS_OF_3_BITS = 10


@dataclass(frozen=True, slots=True)
class CacheKind:
    """Which cache class generation uses.

    ``max_cache_len`` is what a static cache reserves; ``backend``, ``num_bits``, ``group_size``,
    ``axis_key``, ``axis_value`` and ``residual_length`` are a quantized cache's, whose last
    ``num_residual`` tokens are still in the model's dtype. ``decompresses_mla`` and
    ``broadcasts_heads`` are what a version or a class does before it caches.
    """

    implementation: Literal["dynamic", "static", "quantized"] = "dynamic"
    max_cache_len: int = 0
    backend: str = "quanto"
    num_bits: int = 4
    group_size: int = 64
    axis_key: int = 0
    axis_value: int = 0
    residual_length: int = 128
    num_residual: int = 0
    decompresses_mla: bool = False
    broadcasts_heads: bool = False


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes of one layer: what the tensors hold, and what their storage keeps at the peak.

    ``state_bytes`` is the part that does not depend on the length.
    """

    held_bytes: int
    peak_bytes: int
    state_bytes: int = 0


def held(
    cache: Cache, num_tokens: int, num_sequences: int, dtype: str, kind: CacheKind, encoder_tokens: int
) -> Held:
    """Return what one layer's cache takes for ``num_sequences`` of ``num_tokens`` each.

    All sequences are one tensor, so they multiply everything but a quantized tensor's own scale.
    """
    if kind.implementation == "quantized" and isinstance(cache, FullAttention | LatentAttention):
        return _same(_quantized_layer(cache, num_tokens, num_sequences, DTYPE_BYTES[dtype], kind))
    one = _one_sequence(cache, num_tokens, DTYPE_BYTES[dtype], kind, encoder_tokens)
    return Held(
        one.held_bytes * num_sequences, one.peak_bytes * num_sequences, one.state_bytes * num_sequences
    )


def _one_sequence(cache: Cache, num_tokens: int, element: int, kind: CacheKind, encoder_tokens: int) -> Held:
    length = kind.max_cache_len if kind.implementation == "static" else num_tokens
    match cache:
        case FullAttention():
            row = _heads(cache, kind) * (cache.head_dim + cache.v_head_dim) + cache.index_head_dim
            return _same(length * row * element)
        case SlidingWindow():
            row = cache.num_key_value_heads * (cache.head_dim + cache.v_head_dim) * element
            return _window(row, cache.sliding_window, length, kind)
        case ChunkedAttention():
            row = cache.num_key_value_heads * (cache.head_dim + cache.v_head_dim) * element
            return _window(row, cache.attention_chunk_size, length, kind)
        case LatentAttention():
            return _same(length * (sum(_latent_rows(cache, kind)) + cache.index_head_dim) * element)
        case CompressedAttention():
            rows = min(num_tokens, cache.sliding_window - 1)
            pending = num_tokens % cache.compress_ratio if cache.compress_ratio else 0
            return Held(
                _compressed(cache, num_tokens, rows, pending) * element,
                # After the prompt, slices of the window and of the inputs still hold all of it.
                _compressed(cache, num_tokens, num_tokens, num_tokens) * element,
            )
        case CrossAttention():
            tokens = cache.num_source_tokens or encoder_tokens
            return _same(tokens * cache.num_key_value_heads * (cache.head_dim + cache.v_head_dim) * element)
        case SharedCache():
            return _same(0)
    state = state_bytes(cache, element)
    return Held(state, state, state)


def _same(num_bytes: int) -> Held:
    return Held(num_bytes, num_bytes)


def _heads(cache: FullAttention, kind: CacheKind) -> int:
    return cache.num_attention_heads if kind.broadcasts_heads else cache.num_key_value_heads


def _window(row: int, window: int, length: int, kind: CacheKind) -> Held:
    if kind.implementation == "static":
        return _same(min(length, window) * row)
    # Right after the prompt the tensor is a view of the last window - 1 tokens; its storage keeps all.
    return Held(min(length, window - 1) * row, length * row)


def _latent_rows(cache: LatentAttention, kind: CacheKind) -> tuple[int, int]:
    """Return the elements a token of what is kept as keys and as values."""
    if kind.decompresses_mla:
        heads = cache.num_attention_heads
        return heads * (cache.qk_nope_head_dim + cache.qk_rope_head_dim), heads * cache.v_head_dim
    return cache.kv_lora_rank, cache.qk_rope_head_dim


def _compressed(cache: CompressedAttention, num_tokens: int, rows: int, pending: int) -> int:
    """Return DeepSeek-V4's elements: window rows, compressed rows, inputs not yet compressed.

    A layer with the window alone keeps keys and values apart; the others share one tensor
    (transformers 5.23 models/deepseek_v4/modeling_deepseek_v4.py).
    """
    head, index, ratio = cache.head_dim, cache.index_head_dim, cache.compress_ratio
    if not ratio:
        return rows * 2 * head
    compressed = num_tokens // ratio
    if not index:
        return (rows + compressed + 2 * pending) * head
    overlap = 2 * ratio if compressed else 0
    return rows * head + (compressed + 4 * pending + overlap) * (head + index)


def _quantized_layer(
    cache: FullAttention | LatentAttention, num_tokens: int, num_sequences: int, element: int, kind: CacheKind
) -> int:
    """Return the bytes of a quantized layer: what is packed, and the residual in the model's dtype."""
    if isinstance(cache, LatentAttention):
        key_row, value_row = _latent_rows(cache, kind)
    else:
        heads = _heads(cache, kind)
        key_row, value_row = heads * cache.head_dim, heads * cache.v_head_dim
    residual = min(kind.num_residual, max(0, num_tokens - 1))
    packed = (num_tokens - residual) * num_sequences
    return (
        _packed_bytes(key_row * packed, kind, kind.axis_key, element)
        + _packed_bytes(value_row * packed, kind, kind.axis_value, element)
        + (key_row + value_row) * residual * num_sequences * element
        + cache.index_head_dim * num_tokens * num_sequences * element
    )


def _packed_bytes(num_elements: int, kind: CacheKind, axis: int, element: int) -> int:
    """Return the bytes of one packed tensor; a group has a scale and a zero point in the model's dtype."""
    if kind.backend == "fp8":
        return num_elements + FLOAT32_BYTES
    groups = ceil_div(num_elements, kind.group_size)
    if kind.num_bits == 3:
        rows, columns = (groups, kind.group_size) if axis == 1 else (kind.group_size, groups)
        values = ceil_div(rows, HQQ_ROWS_OF_3_BITS) * columns * 4
    else:
        values = ceil_div(num_elements * kind.num_bits, 8)
    return values + 2 * groups * element


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
