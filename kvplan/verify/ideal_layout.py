"""The textbook's tensors: exact tokens, the window itself, no blocks."""

from kvplan.engines.base import Plan
from kvplan.layers import (
    Cache,
    ChunkedAttention,
    CompressedAttention,
    CrossAttention,
    FullAttention,
    LatentAttention,
    SharedCache,
    SlidingWindow,
    kind_name,
)
from kvplan.model import cache_kinds
from kvplan.verify.cache_layout import CacheLayout, LayoutGroup, with_planned
from kvplan.verify.state_tensors import StateTypes, state_tensors
from kvplan.verify.storage import TensorShape, rows


def layout(plan: Plan) -> CacheLayout:
    """Return keys and values of exactly the tokens asked, states in the textbook's types."""
    groups = tuple(
        LayoutGroup(kind_name(cache), count, _tensors(cache, plan))
        for cache, count in cache_kinds(plan.model)
    )
    return with_planned(plan, groups, plan.num_sequences)


def _tensors(cache: Cache, plan: Plan) -> tuple[TensorShape, ...]:
    batch, tokens = plan.num_sequences, plan.context_tokens
    key, value = plan.kv_dtype_k, plan.kv_dtype_v
    match cache:
        case FullAttention():
            index = rows("index keys", key, (batch, tokens), cache.index_head_dim)
            return (*_heads(cache, (batch, tokens), key, value), *index)
        case SlidingWindow():
            return _heads(cache, (batch, min(tokens, cache.sliding_window)), key, value)
        case ChunkedAttention():
            return _heads(cache, (batch, min(tokens, cache.attention_chunk_size)), key, value)
        case LatentAttention():
            return (
                *rows("latents", key, (batch, tokens), cache.kv_lora_rank + cache.qk_rope_head_dim),
                *rows("index keys", key, (batch, tokens), cache.index_head_dim),
            )
        case CompressedAttention():
            window = rows("window", key, (batch, min(tokens, cache.sliding_window)), cache.head_dim)
            if not cache.compress_ratio:
                return window
            lead = (batch, tokens // cache.compress_ratio)
            return (
                *window,
                *rows("compressed", key, lead, cache.head_dim),
                *rows("index keys", key, lead, cache.index_head_dim),
            )
        case CrossAttention():
            source = cache.num_source_tokens or plan.workload.encoder_tokens
            return _heads(cache, (batch, source), key, value)
        case SharedCache():
            return ()
    conv = "float32" if plan.model.dtype == "float32" else "bfloat16"
    return state_tensors(cache, batch, StateTypes(conv, "float32", "float32", "float32"))


def _heads(
    cache: FullAttention | SlidingWindow | ChunkedAttention | CrossAttention,
    lead: tuple[int, ...],
    key: str,
    value: str,
) -> tuple[TensorShape, ...]:
    heads = (*lead, cache.num_key_value_heads)
    return (*rows("keys", key, heads, cache.head_dim), *rows("values", value, heads, cache.v_head_dim))
