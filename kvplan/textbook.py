"""What one layer's cache holds in theory: exact tokens, the window itself, no rounding.

This is the formula of the paper or model card; engines start from it and add their own rules. The
model's dtype decides the recurrent state unless the config says otherwise: matrices in fp32,
convolution columns (``conv_kernel - 1`` of them) in the model's type.
"""

from kvplan.dtypes import DTYPE_BYTES
from kvplan.kv_formats import KvFormat
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

FLOAT32_BYTES = 4


def cache_bytes(
    cache: Cache, num_tokens: int, key: KvFormat, value: KvFormat, encoder_tokens: int = 0
) -> int:
    """Return the bytes that one layer's cache holds for one sequence of ``num_tokens``.

    ``encoder_tokens`` is the other sequence's length for cross attention whose length the model
    does not fix. Recurrent states take the key format's width as the model's own type.
    """
    match cache:
        case FullAttention():
            row = _row(cache.num_key_value_heads, cache.head_dim, cache.v_head_dim, key, value)
            return num_tokens * (row + (key.row_bytes(cache.index_head_dim) if cache.index_head_dim else 0))
        case SlidingWindow():
            row = _row(cache.num_key_value_heads, cache.head_dim, cache.v_head_dim, key, value)
            return min(num_tokens, cache.sliding_window) * row
        case ChunkedAttention():
            row = _row(cache.num_key_value_heads, cache.head_dim, cache.v_head_dim, key, value)
            return min(num_tokens, cache.attention_chunk_size) * row
        case LatentAttention():
            row = key.row_bytes(cache.kv_lora_rank + cache.qk_rope_head_dim)
            return num_tokens * (row + (key.row_bytes(cache.index_head_dim) if cache.index_head_dim else 0))
        case CompressedAttention():
            return _compressed_bytes(cache, num_tokens, key)
        case CrossAttention():
            source_tokens = cache.num_source_tokens or encoder_tokens
            return source_tokens * _row(
                cache.num_key_value_heads, cache.head_dim, cache.v_head_dim, key, value
            )
        case SharedCache():
            return 0
    return state_bytes(cache, "float32" if key.name == "fp32" else "bfloat16") if num_tokens else 0


def _row(num_key_value_heads: int, head_dim: int, v_head_dim: int, key: KvFormat, value: KvFormat) -> int:
    return num_key_value_heads * (key.row_bytes(head_dim) + value.row_bytes(v_head_dim))


def _compressed_bytes(cache: CompressedAttention, num_tokens: int, key: KvFormat) -> int:
    window = min(num_tokens, cache.sliding_window) * key.row_bytes(cache.head_dim)
    if not cache.compress_ratio:
        return window
    row = key.row_bytes(cache.head_dim)
    if cache.index_head_dim:
        row += key.row_bytes(cache.index_head_dim)
    return window + num_tokens // cache.compress_ratio * row


def state_bytes(cache: Cache, dtype: str) -> int:
    """Return the fixed bytes of a recurrent layer for one sequence; 0 for attention."""
    if not isinstance(cache, RECURRENT_STATES):
        return 0
    element = DTYPE_BYTES.get(dtype, 2)
    match cache:
        case Mamba1State():
            conv = cache.intermediate_size * (cache.conv_kernel - 1)
            return conv * element + cache.intermediate_size * cache.state_size * FLOAT32_BYTES
        case Mamba2State():
            channels = cache.num_heads * cache.head_dim + 2 * cache.n_groups * cache.state_size
            state = cache.num_heads * cache.head_dim * cache.state_size
            return channels * (cache.conv_kernel - 1) * element + state * FLOAT32_BYTES
        case GatedDeltaState():
            channels = 2 * cache.num_k_heads * cache.head_k_dim + cache.num_v_heads * cache.head_v_dim
            state = cache.num_v_heads * cache.head_k_dim * cache.head_v_dim
            return channels * (cache.conv_kernel - 1) * element + state * FLOAT32_BYTES
        case KimiDeltaState():
            channels = 3 * cache.num_heads * cache.head_dim
            state = cache.num_heads * cache.head_dim**2
            return channels * (cache.conv_kernel - 1) * element + state * FLOAT32_BYTES
        case LightningState():
            return cache.num_heads * cache.head_dim**2 * FLOAT32_BYTES
        case ShortConvState():
            return cache.hidden_size * (cache.conv_kernel - 1) * element
        case RgLruState():
            return cache.lru_width * (FLOAT32_BYTES + (cache.conv_kernel - 1) * element)
        case RwkvState():
            rows = cache.num_model_dtype_rows * cache.hidden_size * element
            return rows + cache.num_float32_elements * FLOAT32_BYTES
        case XlstmState():
            head = cache.qk_head_dim * cache.v_head_dim + cache.qk_head_dim + 1
            return cache.num_heads * head * element
