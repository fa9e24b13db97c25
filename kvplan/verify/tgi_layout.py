"""TGI's tensors: a K and a V pool of blocks a layer, one block of which is kept for health checks.

text-generation-inference 3.3 server/text_generation_server/layers/attention/kv_cache.py (KVCache:
``[blocks, block, heads, head_size]`` for flashinfer and flashdecoding, paged kernels the same in
another order), models/flash_causal_lm.py (values as wide as keys) and models/__init__.py (DeepSeek's
latents decompressed, heads of at least 192). Windows that a sequence outgrows are assumed, so there is
nothing exact to hold against.
"""

from kvplan.engines.base import Plan
from kvplan.errors import CannotTell
from kvplan.layers import Cache, ChunkedAttention, FullAttention, LatentAttention, SlidingWindow, kind_name
from kvplan.model import cache_kinds
from kvplan.units import ceil_div
from kvplan.verify.cache_layout import CacheLayout, LayoutGroup
from kvplan.verify.storage import TensorShape, rows

LATENT_HEAD = 192
SPARE_BLOCKS = 1


def layout(plan: Plan) -> CacheLayout:
    """Return the blocks of the asked load, one shard with every head on it."""
    size = plan.cache.block_size or 1
    speculate = plan.workload.option("speculate")
    # A request's last token is never stored, drafted ones are.
    stored = max(1, plan.context_tokens - 1 + (speculate if isinstance(speculate, int) else 0))
    blocks = max(
        plan.num_sequences * ceil_div(stored, size) + SPARE_BLOCKS, ceil_div(plan.context_tokens, size)
    )
    return CacheLayout(
        tuple(
            LayoutGroup(
                kind_name(cache),
                count,
                _blocks(cache, plan.kv_dtype_k, (blocks, size)),
                detail=f"{blocks:,} blocks of {size:,} token{'s' if size > 1 else ''}",
            )
            for cache, count in cache_kinds(plan.model)
        )
    )


def _blocks(cache: Cache, dtype: str, lead: tuple[int, int]) -> tuple[TensorShape, ...]:
    match cache:
        case LatentAttention():
            heads, width = cache.num_attention_heads, max(LATENT_HEAD, cache.v_head_dim)
        case FullAttention() | SlidingWindow() | ChunkedAttention():
            heads, width = cache.num_key_value_heads, cache.head_dim
        case _:
            raise CannotTell(
                f"{kind_name(cache)} is not modelled under TGI",
                why="there is no exact figure to hold against",
                hint="add --engine transformers",
            )
    return (*rows("keys", dtype, (*lead, heads), width), *rows("values", dtype, (*lead, heads), width))
