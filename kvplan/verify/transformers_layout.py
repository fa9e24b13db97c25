"""transformers' tensors, in the shapes that its cache classes keep.

transformers 5.23 cache_utils.py (DynamicLayer, DynamicSlidingWindowLayer, StaticLayer,
QuantizedLayer, LinearAttentionLayer) and models/deepseek_v4. Heads lie before tokens; a window
keeps one token less than its length; convolutions are ``conv_kernel`` wide.
"""

from dataclasses import replace

from kvplan.engines.base import Plan
from kvplan.engines.transformers.cache import CacheKind
from kvplan.engines.transformers.options import Generation, generation_of
from kvplan.engines.transformers.use import release_of
from kvplan.errors import CannotTell
from kvplan.layers import (
    Cache,
    ChunkedAttention,
    CompressedAttention,
    CrossAttention,
    FullAttention,
    LatentAttention,
    SharedCache,
    SlidingWindow,
    XlstmState,
    kind_name,
)
from kvplan.model import cache_kinds
from kvplan.verify.cache_layout import CacheLayout, LayoutGroup, with_planned
from kvplan.verify.state_tensors import StateTypes, state_tensors
from kvplan.verify.storage import TensorShape


def layout(plan: Plan) -> CacheLayout:
    """Return what ``generate`` keeps after the prompt, in the model's dtype."""
    asked = generation_for(plan)
    batch = plan.num_sequences * asked.num_copies
    groups = tuple(
        LayoutGroup(kind_name(cache), count, _tensors(cache, plan, asked.kind, batch))
        for cache, count in cache_kinds(plan.model)
    )
    if any(isinstance(cache, XlstmState) for cache, _ in cache_kinds(plan.model)):
        # models/xlstm keeps the number of tokens it has seen beside its states.
        groups = (*groups, LayoutGroup("token_counter", 1, (TensorShape("seen tokens", "int64", (1,)),)))
    return with_planned(plan, groups, batch)


def generation_for(plan: Plan) -> Generation:
    """Return the options that the plan's engine acted on."""
    model = plan.model
    grouped = any(
        isinstance(cache, FullAttention) and 1 < cache.num_key_value_heads < cache.num_attention_heads
        for cache, _ in cache_kinds(model)
    )
    workload = plan.workload
    if dict(plan.engine_options).get("cache_implementation") == "dynamic":
        # The engine's own word: a class that always uses its own cache ignores what was asked.
        kept = tuple(pair for pair in workload.engine_options if pair[0] != "cache_implementation")
        workload = replace(workload, engine_options=kept)
    return generation_of(
        workload,
        plan.context_tokens,
        decompresses_mla=release_of(plan.engine_version)[0] < 5,
        broadcasts_heads=model.model_type == "falcon" and grouped,
    )


def _tensors(cache: Cache, plan: Plan, kind: CacheKind, batch: int) -> tuple[TensorShape, ...]:
    dtype, tokens = plan.kv_dtype_k, plan.context_tokens
    static = kind.implementation == "static"
    length = kind.max_cache_len if static else tokens
    match cache:
        case FullAttention():
            heads = cache.num_attention_heads if kind.broadcasts_heads else cache.num_key_value_heads
            shapes = ((heads, cache.head_dim), (heads, cache.v_head_dim))
            index = _index(cache.index_head_dim, dtype, batch, length)
            if kind.implementation == "quantized":
                return (*_quantized(shapes, dtype, batch, tokens, kind), *index)
            return (*_pair(shapes, dtype, batch, length), *index)
        case SlidingWindow() | ChunkedAttention():
            window = cache.sliding_window if isinstance(cache, SlidingWindow) else cache.attention_chunk_size
            held = min(length, window if static else window - 1)
            shapes = (
                (cache.num_key_value_heads, cache.head_dim),
                (cache.num_key_value_heads, cache.v_head_dim),
            )
            return _pair(shapes, dtype, batch, held)
        case LatentAttention():
            heads = cache.num_attention_heads
            shapes = ((1, cache.kv_lora_rank), (1, cache.qk_rope_head_dim))
            if kind.decompresses_mla:
                shapes = (
                    (heads, cache.qk_nope_head_dim + cache.qk_rope_head_dim),
                    (heads, cache.v_head_dim),
                )
            index = _index(cache.index_head_dim, dtype, batch, length)
            if kind.implementation == "quantized":
                return (*_quantized(shapes, dtype, batch, tokens, kind), *index)
            return (*_pair(shapes, dtype, batch, length), *index)
        case CompressedAttention():
            return _compressed(cache, dtype, batch, tokens)
        case CrossAttention():
            source = cache.num_source_tokens or plan.workload.encoder_tokens
            heads = cache.num_key_value_heads
            return _pair(((heads, cache.head_dim), (heads, cache.v_head_dim)), dtype, batch, source)
        case SharedCache():
            return ()
    types = StateTypes(dtype, "float32", "float32", dtype, extra_columns=1)
    return state_tensors(cache, batch, types)


def _pair(
    shapes: tuple[tuple[int, int], tuple[int, int]], dtype: str, batch: int, length: int
) -> tuple[TensorShape, ...]:
    (key_heads, key_dim), (value_heads, value_dim) = shapes
    return (
        TensorShape("keys", dtype, (batch, key_heads, length, key_dim)),
        TensorShape("values", dtype, (batch, value_heads, length, value_dim)),
    )


def _index(index_head_dim: int, dtype: str, batch: int, length: int) -> tuple[TensorShape, ...]:
    if not index_head_dim:
        return ()
    return (TensorShape("index keys", dtype, (batch, 1, length, index_head_dim)),)


def _compressed(cache: CompressedAttention, dtype: str, batch: int, tokens: int) -> tuple[TensorShape, ...]:
    head, index, ratio = cache.head_dim, cache.index_head_dim, cache.compress_ratio
    held = min(tokens, cache.sliding_window - 1)
    window = TensorShape("window", dtype, (batch, 1, held, head))
    if not ratio:
        return (window, TensorShape("window values", dtype, (batch, 1, held, head)))
    done, waiting = tokens // ratio, tokens % ratio
    if not index:
        return (
            window,
            TensorShape("compressed", dtype, (batch, 1, done, head)),
            TensorShape("waiting inputs", dtype, (batch, 2, waiting, head)),
        )
    overlap = 2 * ratio if done else 0
    return (
        window,
        TensorShape("compressed", dtype, (batch, 1, done, head)),
        TensorShape("index keys", dtype, (batch, 1, done, index)),
        TensorShape("waiting inputs", dtype, (batch, 4, waiting, head + index)),
        TensorShape("overlap", dtype, (batch, 1, overlap, head + index)),
    )


def _quantized(
    shapes: tuple[tuple[int, int], tuple[int, int]], dtype: str, batch: int, tokens: int, kind: CacheKind
) -> tuple[TensorShape, ...]:
    if kind.backend == "hqq" and kind.num_bits == 3:
        raise CannotTell(
            "the layout of HQQ's 3-bit caches is not written down here",
            why="hqq packs ten values into 32 bits along rows that depend on the axis",
            hint="use nbits 2 or 4",
        )
    residual = min(kind.num_residual, max(0, tokens - 1))
    packed: list[TensorShape] = []
    for name, (heads, width) in zip(("keys", "values"), shapes, strict=True):
        elements = batch * heads * (tokens - residual) * width
        if kind.backend == "fp8":
            packed += [
                TensorShape(f"{name} packed", "float8_e4m3fn", (elements,)),
                TensorShape(f"{name} scale", "float32", (1,)),
            ]
        else:
            groups = -(-elements // kind.group_size)
            packed += [
                TensorShape(f"{name} packed", "uint8", (-(-elements * kind.num_bits // 8),)),
                TensorShape(f"{name} scales", dtype, (groups,)),
                TensorShape(f"{name} zeros", dtype, (groups,)),
            ]
        packed.append(TensorShape(f"{name} residual", dtype, (batch, heads, residual, width)))
    return tuple(packed)
