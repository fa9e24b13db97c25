"""Models as llama.cpp runs them: which latents it expands before it caches them, which see all at once.

src/models/minicpm3.cpp caches whole heads, as its converter (conversion/minicpm.py) writes them; the
other latent architectures cache the latent itself.
"""

from functools import lru_cache

from kvplan.frozen import replace
from kvplan.gguf.names import llama_cpp_arch
from kvplan.layers import Cache, FullAttention, LatentAttention, LayerGroup
from kvplan.model import ModelSpec

EXPANDS_LATENT = frozenset(("minicpm3",))


@lru_cache(maxsize=256)
def as_converted(model: ModelSpec) -> ModelSpec:
    """Return the model with the caches that llama.cpp gives it; a file that was read has them."""
    if model.stored or llama_cpp_arch(model) not in EXPANDS_LATENT:
        return model
    groups = tuple(
        LayerGroup(replace(group.layer, caches=tuple(map(_expanded, group.layer.caches))), group.count)
        for group in model.structure.layers
    )
    return replace(model, structure=replace(model.structure, layers=groups))


def is_causal(model: ModelSpec) -> bool:
    """Tell whether a token sees only those before it: not in embedding and diffusion models."""
    return model.structure.kind != "encoder"


def _expanded(cache: Cache) -> Cache:
    if not isinstance(cache, LatentAttention):
        return cache
    heads = cache.num_attention_heads
    return FullAttention(heads, heads, cache.qk_nope_head_dim + cache.qk_rope_head_dim, cache.v_head_dim)
