"""vLLM: the rotary tables that every rank keeps: cosine and sine of each position.

vLLM 0.33 model_executor/layers/rotary_embedding (one table a rope; ``base.py``: in the model's type).
"""

from collections.abc import Mapping
from functools import lru_cache

from kvplan.dtypes import DTYPE_BYTES
from kvplan.layers import LatentAttention, SlidingWindow
from kvplan.model import ModelSpec, cache_kinds

MROPE_POSITIONS = 4
NESTED = ("text_config", "llm_config", "language_config", "thinker_config")
# Classes that ask for their table in fp32 (models/gpt_oss.py).
FLOAT32_TABLES = ("GptOssForCausalLM",)


def _text_config(model: ModelSpec) -> Mapping[str, object]:
    config = model.config or {}
    for key in NESTED:
        inner = config.get(key)
        if isinstance(inner, Mapping):
            return inner
    return config


@lru_cache(maxsize=512)
def rotary_bytes(model: ModelSpec) -> int:
    """Return the rotary tables that every rank keeps: cosine and sine of each position.

    A table has as many positions as the config's limit, times a linear, YaRN or multimodal rope's
    factor; windows with a rope of their own have a second table.
    """
    positions = model.context_limit_tokens
    dim = _rotary_dim(model)
    if not positions or not dim:
        return 0
    config = _text_config(model)
    scaling = config.get("rope_scaling")
    scaled = positions
    if isinstance(scaling, Mapping):
        kind = str(scaling.get("rope_type", scaling.get("type", "")))
        factor, original = scaling.get("factor"), scaling.get("original_max_position_embeddings")
        if kind == "linear" and isinstance(factor, int | float):
            scaled = int(positions * factor)
        elif "yarn" in kind and isinstance(factor, int | float) and isinstance(original, int):
            scaled = int(original * factor)
        elif "mrope_section" in scaling:
            scaled = positions * MROPE_POSITIONS
    tables = scaled
    has_windows = any(isinstance(cache, SlidingWindow) for cache, _ in cache_kinds(model))
    if has_windows and scaled != positions:
        tables += positions
    dtype = "float32" if model.architecture in FLOAT32_TABLES else model.dtype
    return tables * dim * DTYPE_BYTES.get(dtype, 2)


def _rotary_dim(model: ModelSpec) -> int:
    """Return the rotary part of a head; 0 where the model has no rotary positions."""
    share = _text_config(model).get("partial_rotary_factor")
    for cache, _ in cache_kinds(model):
        if isinstance(cache, LatentAttention):
            return cache.qk_rope_head_dim
        head_dim = getattr(cache, "head_dim", 0)
        if head_dim and hasattr(cache, "num_key_value_heads"):
            return int(head_dim * share) if isinstance(share, float) else int(head_dim)
    return 0
