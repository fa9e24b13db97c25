"""vLLM: the caches of one layer as its planner sees them, by kind of layer and KV dtype.

vLLM 0.33: v1/kv_cache_interface.py (page sizes), config/model.py (heads per rank),
model_executor/layers/attention (which spec a layer makes), models/deepseek_v4 and
models/minimax_m3 (compressed rows, index caches).
"""

from typing import Literal

from kvplan.engines.vllm.kv_dtypes import head_row_bytes, latent_row_bytes
from kvplan.engines.vllm.states import StateDtypes, state_bytes
from kvplan.frozen import dataclass
from kvplan.layers import (
    Cache,
    ChunkedAttention,
    CompressedAttention,
    CrossAttention,
    FullAttention,
    LatentAttention,
    SharedCache,
    SlidingWindow,
)
from kvplan.units import round_up

SpecKind = Literal["full", "sliding", "sliding_mla", "chunked", "mla", "mamba", "cross"]

# The indexer keeps its key in fp8 with one fp32 scale per 128 elements, whatever the cache's dtype.
INDEXER_SCALE_GROUP = 128
# MiniMax-M3's index key is bf16.
INDEX_KEY_BYTES = 2
# DeepSeek-V4: 448 B of fp8 latent, 128 B of rope and 8 B of scales; pages in multiples of 576 B.
COMPRESSED_ROW_BYTES = 584
COMPRESSED_ALIGNMENT = 576
COMPRESSED_BLOCK_SIZE = 256
COMPRESSED_WINDOW_BLOCK = 64
# Partial sums that a compressor still works on: fp32, keys and scores, by ratio: (block, rows wide).
COMPRESSOR_BLOCKS: dict[int, int] = {4: 4, 128: 8}


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One cache as vLLM's planner sees it.

    ``bytes_per_token`` of one stored row of one layer on this rank, or 0 for a state of
    ``state_bytes``; ``window`` is the sliding window, the chunk or a fixed source length. One row
    covers ``tokens_per_row`` tokens. ``block_size`` 0 takes the pool's; ``alignment`` rounds a page
    up.
    """

    kind: SpecKind
    bytes_per_token: int = 0
    state_bytes: int = 0
    window: int = 0
    tokens_per_row: int = 1
    block_size: int = 0
    alignment: int = 0

    def page_size_bytes(self, block_size: int) -> int:
        """Return the bytes of one block of ``block_size`` tokens."""
        if self.kind == "mamba":
            return self.state_bytes
        page = block_size // self.tokens_per_row * self.bytes_per_token
        return round_up(page, self.alignment) if self.alignment else page


def heads_per_rank(num_key_value_heads: int, tensor: int) -> int:
    """Return the KV heads one rank holds: at least one, replicated beyond the head count."""
    return max(1, num_key_value_heads // tensor)


def indexer_bytes(index_head_dim: int) -> int:
    """Return the bytes of one token's indexer key: fp8 and fp32 scales."""
    return index_head_dim + index_head_dim // INDEXER_SCALE_GROUP * 4


def specs_of(
    cache: Cache, tensor: int, dtype: str, states: StateDtypes, num_speculative: int
) -> tuple[LayerSpec, ...] | None:
    """Return the planner's specs of one layer's cache; none for a shared one, None if not modelled."""
    match cache:
        case FullAttention():
            full = LayerSpec("full", _row(cache, tensor, dtype))
            if not cache.index_head_dim:
                return (full,)
            return (full, LayerSpec("mla", cache.index_head_dim * INDEX_KEY_BYTES))
        case SlidingWindow():
            return (LayerSpec("sliding", _row(cache, tensor, dtype), window=cache.sliding_window),)
        case ChunkedAttention():
            return (LayerSpec("chunked", _row(cache, tensor, dtype), window=cache.attention_chunk_size),)
        case LatentAttention():
            width = cache.kv_lora_rank + cache.qk_rope_head_dim
            latent = LayerSpec("mla", latent_row_bytes(width, dtype))
            if not cache.index_head_dim:
                return (latent,)
            return (latent, LayerSpec("mla", indexer_bytes(cache.index_head_dim)))
        case CrossAttention():
            return (LayerSpec("cross", _row(cache, tensor, dtype)),)
        case SharedCache():
            return ()
        case CompressedAttention():
            return _compressed(cache)
    state = state_bytes(cache, tensor, states, num_speculative)
    return None if state is None else (LayerSpec("mamba", state_bytes=state),)


def _row(
    cache: FullAttention | SlidingWindow | ChunkedAttention | CrossAttention, tensor: int, dtype: str
) -> int:
    heads = heads_per_rank(cache.num_key_value_heads, tensor)
    return head_row_bytes(heads, cache.head_dim, cache.v_head_dim, dtype)


def _compressed(cache: CompressedAttention) -> tuple[LayerSpec, ...]:
    """DeepSeek-V4: a window of packed rows, compressed rows, and what the compressors work on.

    vLLM 0.33 models/deepseek_v4 (attention.py, compressor.py) and
    v1/attention/backends/mla/sparse_swa.py, in its packed fp8 layout.
    """
    window = LayerSpec(
        "sliding_mla",
        COMPRESSED_ROW_BYTES,
        window=cache.sliding_window,
        block_size=COMPRESSED_WINDOW_BLOCK,
        alignment=COMPRESSED_ALIGNMENT,
    )
    ratio = cache.compress_ratio
    if ratio not in COMPRESSOR_BLOCKS:
        return (window,)
    rows = LayerSpec("mla", COMPRESSED_ROW_BYTES, tokens_per_row=ratio, alignment=COMPRESSED_ALIGNMENT)
    found = [window, rows, _compressor(cache.head_dim, ratio)]
    if cache.index_head_dim:
        keys = indexer_bytes(cache.index_head_dim)
        found.append(LayerSpec("mla", keys, tokens_per_row=ratio, alignment=COMPRESSED_ALIGNMENT))
        found.append(_compressor(cache.index_head_dim, ratio))
    return tuple(found)


def _compressor(head_dim: int, ratio: int) -> LayerSpec:
    # With ratio 4 neighbouring windows overlap: twice the width, twice the window.
    overlap = 2 if ratio == 4 else 1
    return LayerSpec(
        "sliding_mla",
        2 * overlap * head_dim * 4,
        window=overlap * ratio,
        block_size=COMPRESSOR_BLOCKS[ratio],
        alignment=COMPRESSED_ALIGNMENT,
    )
