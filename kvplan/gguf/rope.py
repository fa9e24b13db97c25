"""Tables of rotary factors in a GGUF file: what scaled rotations need beside a model's own tensors.

llama.cpp 0c1e57098 convert_hf_to_gguf.py and conversion/: ``rope_freqs`` for llama3's scaling,
and Gemma 4's proportional scaling, ``rope_factors_long`` and ``rope_factors_short`` for longrope's (Phi-3,
MiniCPM). All are fp32; each device with a layer gets a copy (src/models/*.cpp, TENSOR_DUPLICATED).
"""

from types import UnionType

from kvplan.layers import FullAttention, SlidingWindow
from kvplan.model import ModelSpec

FREQUENCIES = "rope_freqs.weight"
PROPORTIONAL = frozenset(("gemma4", "gemma4_text"))
LONG, SHORT = "rope_factors_long.weight", "rope_factors_short.weight"


def rope_tables(model: ModelSpec) -> tuple[tuple[str, int], ...]:
    """Return (name in the file, number of factors) of each table that a model's file has."""
    if model.gguf_metadata and model.stored:
        names = (FREQUENCIES, LONG, SHORT)
        return tuple((each.name, each.shape[0]) for each in model.stored if each.name in names)
    if model.model_type in PROPORTIONAL and (head_dim := _head_dim(model, FullAttention)):
        return ((FREQUENCIES, head_dim // 2),)
    for key in ("rope_scaling", "rope_parameters"):
        section = (model.config or {}).get(key)
        if not isinstance(section, dict):
            continue
        kind = section.get("rope_type") or section.get("type")
        if kind == "llama3" and (head_dim := _head_dim(model)):
            return ((FREQUENCIES, head_dim // 2),)
        long, short = section.get("long_factor"), section.get("short_factor")
        if kind in ("longrope", "su") and isinstance(long, list) and isinstance(short, list):
            return ((LONG, len(long)), (SHORT, len(short)))
    return ()


def _head_dim(
    model: ModelSpec, kind: type[FullAttention | SlidingWindow] | UnionType = FullAttention | SlidingWindow
) -> int:
    for group in model.layers:
        for cache in group.layer.caches:
            if isinstance(cache, kind):
                return int(cache.head_dim)
    return 0
