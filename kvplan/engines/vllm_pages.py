"""vLLM: what one block of one layer takes on a rank, by kind of layer and KV dtype.

vLLM 0.33: v1/kv_cache_interface.py (page sizes), model_executor/layers/mamba/mamba_utils.py (state
shapes), model_executor/layers/attention/mla_attention.py (latent rows), config/model.py (heads per
rank), v1/attention/backends (packed formats).
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
    SharedCache,
    ShortConvState,
    SlidingWindow,
)
from kvplan.units import ceil_div

SpecKind = Literal["full", "sliding", "chunked", "mla", "mamba", "cross"]

# A latent row of 512 + 64 in packed form: fp8 latent with scales and a bf16 rope part, and NVFP4.
FP8_DS_MLA_BYTES = 656
NVFP4_DS_MLA_BYTES = 352
# The indexer keeps its key in fp8 with one fp32 scale per 128 elements, whatever the cache's dtype.
INDEXER_SCALE_GROUP = 128


@dataclass(frozen=True, slots=True)
class KvDtype:
    """A cache dtype as vLLM stores it: element bytes, packing, and bytes per token and head."""

    name: str
    element_bits: int
    head_bytes_k: int = 0
    head_bytes_v: int = 0
    scale_divisor: int = 0

    def head_bytes(self, head_dim: int, *, is_key: bool) -> int:
        """Return the bytes of one head's keys (or values) of one token."""
        num_bytes = ceil_div(head_dim * self.element_bits, 8)
        if self.scale_divisor:
            num_bytes += head_dim // self.scale_divisor
        return num_bytes + (self.head_bytes_k if is_key else self.head_bytes_v)


KV_DTYPES: dict[str, KvDtype] = {
    dtype.name: dtype
    for dtype in (
        KvDtype("float32", 32),
        KvDtype("bfloat16", 16),
        KvDtype("float16", 16),
        KvDtype("fp8", 8),
        KvDtype("fp8_e4m3", 8),
        KvDtype("fp8_e5m2", 8),
        KvDtype("fp8_per_token_head", 8, 4, 4),
        KvDtype("int8_per_token_head", 8, 4, 4),
        KvDtype("int4_per_token_head", 4, 4, 4),
        KvDtype("nvfp4", 4, scale_divisor=16),
        KvDtype("fp8_ds_mla", 8),
        KvDtype("nvfp4_ds_mla", 4),
    )
}
# Keys and values of different widths: v1 turboquant presets (K norm 2 bytes, V scale and zero 4).
TURBOQUANT: dict[str, tuple[KvDtype, KvDtype]] = {
    "turboquant_k8v4": (KvDtype("turboquant_k8v4", 8), KvDtype("turboquant_k8v4", 4, 0, 4)),
    "turboquant_4bit_nc": (KvDtype("turboquant_4bit_nc", 4, 2), KvDtype("turboquant_4bit_nc", 4, 0, 4)),
    "turboquant_k3v4_nc": (KvDtype("turboquant_k3v4_nc", 3, 2), KvDtype("turboquant_k3v4_nc", 4, 0, 4)),
    "turboquant_3bit_nc": (KvDtype("turboquant_3bit_nc", 3, 2), KvDtype("turboquant_3bit_nc", 3, 0, 4)),
}


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One cache as vLLM's planner sees it.

    ``bytes_per_token`` of one layer on this rank, or 0 for a state of ``state_bytes``; ``window`` is
    the sliding window or the chunk.
    """

    kind: SpecKind
    bytes_per_token: int = 0
    state_bytes: int = 0
    window: int = 0


def heads_per_rank(num_key_value_heads: int, tensor: int) -> int:
    """Return the KV heads one rank holds: at least one, replicated beyond the head count."""
    return max(1, num_key_value_heads // tensor)


def _row(heads: int, head_dim: int, v_head_dim: int, dtype: str) -> int:
    key, value = TURBOQUANT.get(dtype) or (KV_DTYPES[dtype], KV_DTYPES[dtype])
    return heads * (key.head_bytes(head_dim, is_key=True) + value.head_bytes(v_head_dim, is_key=False))


def indexer_bytes(index_head_dim: int) -> int:
    """Return the bytes of one indexer key: fp8 with fp32 scales (132 for 128 elements)."""
    return index_head_dim + index_head_dim // INDEXER_SCALE_GROUP * 4


def latent_bytes(cache: LatentAttention, dtype: str) -> int:
    """Return the bytes of one latent row; it is whole on every tensor-parallel rank."""
    if dtype == "fp8_ds_mla":
        return FP8_DS_MLA_BYTES
    if dtype == "nvfp4_ds_mla":
        return NVFP4_DS_MLA_BYTES
    return ceil_div((cache.kv_lora_rank + cache.qk_rope_head_dim) * KV_DTYPES[dtype].element_bits, 8)


def specs_of(
    cache: Cache, tensor: int, dtype: str, conv_dtype: str, ssm_dtype: str, num_speculative: int
) -> tuple[LayerSpec, ...] | None:
    """Return the planner's specs of one layer's cache; none for a shared one, None if not modelled."""
    match cache:
        case FullAttention(index_head_dim=0):
            heads = heads_per_rank(cache.num_key_value_heads, tensor)
            return (LayerSpec("full", _row(heads, cache.head_dim, cache.v_head_dim, dtype)),)
        case SlidingWindow():
            heads = heads_per_rank(cache.num_key_value_heads, tensor)
            row = _row(heads, cache.head_dim, cache.v_head_dim, dtype)
            return (LayerSpec("sliding", row, window=cache.sliding_window),)
        case ChunkedAttention():
            heads = heads_per_rank(cache.num_key_value_heads, tensor)
            row = _row(heads, cache.head_dim, cache.v_head_dim, dtype)
            return (LayerSpec("chunked", row, window=cache.attention_chunk_size),)
        case LatentAttention():
            latent = LayerSpec("mla", latent_bytes(cache, dtype))
            if not cache.index_head_dim:
                return (latent,)
            return (latent, LayerSpec("mla", indexer_bytes(cache.index_head_dim)))
        case CrossAttention():
            heads = heads_per_rank(cache.num_key_value_heads, tensor)
            row = _row(heads, cache.head_dim, cache.v_head_dim, dtype)
            return (LayerSpec("cross", row, window=cache.num_source_tokens),)
        case SharedCache():
            return ()
        case FullAttention() | CompressedAttention():
            return None
    state = state_bytes(cache, tensor, conv_dtype, ssm_dtype, num_speculative)
    return None if state is None else (LayerSpec("mamba", state_bytes=state),)


def state_bytes(
    cache: Cache, tensor: int, conv_dtype: str, ssm_dtype: str, num_speculative: int
) -> int | None:
    """Return the bytes of a recurrent layer's state on one rank, None for a kind vLLM lacks.

    Convolutions keep ``conv_kernel - 1`` columns, one more per speculative token.
    """
    conv, ssm = DTYPE_BYTES[conv_dtype], DTYPE_BYTES[ssm_dtype]
    match cache:
        case Mamba1State():
            columns = cache.conv_kernel - 1
            inner = ceil_div(cache.intermediate_size, tensor)
            return inner * columns * conv + inner * cache.state_size * ssm
        case Mamba2State():
            # Groups are padded so that every rank has whole ones.
            groups = cache.n_groups if cache.n_groups % tensor == 0 else tensor
            channels = (cache.num_heads * cache.head_dim + 2 * groups * cache.state_size) // tensor
            columns = cache.conv_kernel - 1 + num_speculative
            state = ceil_div(cache.num_heads, tensor) * cache.head_dim * cache.state_size
            return channels * columns * conv + state * ssm
        case GatedDeltaState():
            channels = 2 * cache.num_k_heads * cache.head_k_dim + cache.num_v_heads * cache.head_v_dim
            columns = cache.conv_kernel - 1 + num_speculative
            state = ceil_div(cache.num_v_heads, tensor) * cache.head_v_dim * cache.head_k_dim
            return channels // tensor * columns * conv + state * ssm
        case KimiDeltaState():
            columns = cache.conv_kernel - 1 + num_speculative
            channels = 3 * cache.num_heads * cache.head_dim // tensor
            # The delta state is fp32 by default whatever the model's dtype.
            return channels * columns * conv + ceil_div(cache.num_heads, tensor) * cache.head_dim**2 * 4
        case LightningState():
            return ceil_div(cache.num_heads, tensor) * cache.head_dim**2 * 4
        case ShortConvState():
            columns = cache.conv_kernel - 1 + num_speculative
            return cache.hidden_size // tensor * columns * conv
    return None
