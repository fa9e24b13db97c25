"""Bytes of one block of one layer, and of one slot of recurrent states, under each backend.

PyTorch: LMDeploy 0.18 pytorch/engine/cache_engine/schema.py (build_k_cache_desc, build_v_cache_desc,
build_quant_cache_descs), layout.py (PackedBlockCacheLayout: every tensor rounded up to 256 B),
consts.py (the indexer's row) and pytorch/configurations (which heads a model keeps). TurboMind:
src/turbomind/kernels/attention/block.h (Layout) and models/llama/object_cache_plan.cc.
"""

from collections.abc import Iterable

from kvplan.engines.lmdeploy.settings import Settings
from kvplan.layers import (
    RECURRENT_STATES,
    Cache,
    ChunkedAttention,
    FullAttention,
    GatedDeltaState,
    LatentAttention,
    SlidingWindow,
)
from kvplan.textbook import state_bytes
from kvplan.units import ceil_div, round_up

ALIGNMENT = 256
WIDTH = 2
# Head sizes from which the PyTorch backend's kernels take blocks of 32 tokens (executor/base.py).
LARGE_HEAD, SMALL_BLOCK = 512, 32
# DeepSeek-V3.2's packed row and the indexer's fp32 scale beside its fp8 key.
DS_MLA_ROW_BYTES, INDEX_SCALE_BYTES = 656, 4
# Kinds with no plain rows, which no backend was read for.
NOT_ROWS_WHY = "not read: between nothing and a full row of the hidden size"


def has_rows(cache: Cache) -> bool:
    """Tell whether a layer keeps rows of keys and values that were read."""
    return isinstance(cache, FullAttention | SlidingWindow | ChunkedAttention | LatentAttention)


def heads_and_sizes(cache: Cache, ranks: int, model_type: str) -> tuple[int, int, int]:
    """Return (KV heads on one rank, key size, value size) as LMDeploy configures them.

    Values are as wide as keys, MLA is one head of the latent and no values, MiniCPM3 decompresses;
    heads are repeated until every rank has one.
    """
    match cache:
        case LatentAttention():
            if model_type == "minicpm3":
                size = cache.qk_nope_head_dim + cache.qk_rope_head_dim
                return ceil_div(cache.num_attention_heads, ranks), size, size
            return 1, cache.kv_lora_rank + cache.qk_rope_head_dim, 0
        case FullAttention() | SlidingWindow() | ChunkedAttention():
            return ceil_div(cache.num_key_value_heads, ranks), cache.head_dim, cache.head_dim
    return 0, 0, 0


def block_length(caches: Iterable[Cache], settings: Settings, model_type: str) -> int:
    """Return the tokens of a block: as asked, 32 under PyTorch where heads are large (not MLA)."""
    if settings.backend == "turbomind":
        return settings.block_length
    sizes = [
        heads_and_sizes(cache, 1, model_type)[1]
        for cache in caches
        if has_rows(cache) and not isinstance(cache, LatentAttention)
    ]
    if max(sizes, default=0) >= LARGE_HEAD:
        return min(settings.block_length, SMALL_BLOCK)
    return settings.block_length


def pytorch_block_bytes(cache: Cache, tokens: int, ranks: int, quant_policy: int, model_type: str) -> int:
    """Return one layer's bytes of a block of ``tokens`` under the PyTorch backend."""
    heads, key, value = heads_and_sizes(cache, ranks, model_type)
    if not heads:
        return 0
    indexer = 0
    if isinstance(cache, LatentAttention) and cache.index_head_dim:
        indexer = tokens * (cache.index_head_dim + INDEX_SCALE_BYTES)
        if quant_policy == 16:
            return round_up(tokens * heads * DS_MLA_ROW_BYTES, ALIGNMENT) + indexer
    match quant_policy:
        case 4:
            rows = (key // 2, value // 2, 2 * WIDTH, 2 * WIDTH)
        case 8:
            rows = (key, value, 2 * WIDTH, 2 * WIDTH)
        case 16 | 17:
            rows = (key, value, 0, 0)
        case 42:
            rows = (key // 2, value // 4, 2 * WIDTH, WIDTH)
        case _:
            rows = (key * WIDTH, value * WIDTH, 0, 0)
    return sum(round_up(tokens * heads * row, ALIGNMENT) for row in rows) + indexer


def turbomind_block_bytes(cache: Cache, tokens: int, ranks: int, quant_policy: int) -> int:
    """Return one layer's bytes of a block under TurboMind.

    Quantized rows carry a 16-bit scale and zero point each; a head of 576 (DeepSeek's latent) is
    keys and values at once.
    """
    heads, key, value = heads_and_sizes(cache, ranks, "")
    sides = 1 if not value else 2
    data = (quant_policy or WIDTH * 8) * key // 8
    return heads * sides * tokens * (data + (2 * WIDTH if quant_policy else 0))


def slot_bytes(states: Iterable[tuple[Cache, int]], ranks: int, num_draft_tokens: int = 0) -> int:
    """Return one sequence's recurrent states on one rank.

    Drafting keeps a matrix for each token that may be taken back, and as many columns more.

    pytorch/configurations/qwen3_next.py: all layers' convolutions are one tensor, all recurrent
    matrices another, both 16-bit (matrices too, unless LMDEPLOY_FP32_MAMBA_SSM_DTYPE), the
    convolution with all ``conv_kernel`` columns; each is rounded up to 256 B.
    """
    convolutions = matrices = others = 0
    for cache, count in states:
        if isinstance(cache, GatedDeltaState):
            key_heads, value_heads = cache.num_k_heads // ranks, cache.num_v_heads // ranks
            channels = 2 * key_heads * cache.head_k_dim + value_heads * cache.head_v_dim
            convolutions += count * channels * (cache.conv_kernel + num_draft_tokens) * WIDTH
            matrix = value_heads * cache.head_v_dim * cache.head_k_dim * WIDTH
            matrices += count * matrix * (1 + num_draft_tokens)
        elif isinstance(cache, RECURRENT_STATES):
            others += count * ceil_div(state_bytes(cache, "bfloat16"), ranks)
    return round_up(convolutions, ALIGNMENT) + round_up(matrices, ALIGNMENT) + others
