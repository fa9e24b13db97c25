"""TensorRT-LLM's tensors: a pool of blocks, each ``[keys and values, heads, tokens, head_dim]``.

TensorRT-LLM main of 2026 _torch/pyexecutor/resource_manager.py (KVCacheManager: ``kv_factor`` 2, 1 for
latents; ``tokens_per_block``; values as wide as keys), cpp/tensorrt_llm/batch_manager/kvCacheManager.cpp
(NVFP4: two values a byte, and a pool of fp8 scales per 16) and
_torch/attention_backend/sparse/dsa.py (the indexer's pool). Windows are assumed and the states' types
differ by version, so there is nothing exact to hold against.
"""

from kvplan.engines.base import Plan
from kvplan.errors import CannotTell
from kvplan.layers import Cache, ChunkedAttention, FullAttention, LatentAttention, SlidingWindow, kind_name
from kvplan.model import cache_kinds
from kvplan.units import ceil_div
from kvplan.verify.cache_layout import CacheLayout, LayoutGroup, with_planned
from kvplan.verify.storage import TensorShape, rows


def layout(plan: Plan) -> CacheLayout:
    """Return the blocks of the asked load, one rank with every head and layer on it."""
    options = dict(plan.engine_options)
    block = options["tokens_per_block"]
    size = block if isinstance(block, int) else 1
    blocks = ceil_div(plan.context_tokens, size) * plan.num_sequences
    groups = tuple(
        LayoutGroup(
            kind_name(cache),
            count,
            _blocks(cache, plan.kv_dtype_k, (blocks, size)),
            detail=f"{blocks:,} blocks of {size} tokens",
        )
        for cache, count in cache_kinds(plan.model)
    )
    return with_planned(plan, groups, plan.num_sequences)


def _blocks(cache: Cache, dtype: str, lead: tuple[int, int]) -> tuple[TensorShape, ...]:
    """Return one layer's tensors for ``lead`` = (blocks, tokens a block)."""
    blocks, size = lead
    match cache:
        case LatentAttention():
            width = cache.kv_lora_rank + cache.qk_rope_head_dim
            index = rows("index keys", "indexer", lead, cache.index_head_dim)
            return (*rows("latents", dtype, (blocks, 1, 1, size), width), *index)
        case FullAttention() | SlidingWindow() | ChunkedAttention():
            heads = cache.num_key_value_heads
            return rows("keys and values", dtype, (blocks, 2, heads, size), cache.head_dim)
    raise CannotTell(
        f"{kind_name(cache)} is not modelled under TensorRT-LLM",
        why="there is no exact figure to hold against",
        hint="add --engine transformers",
    )
