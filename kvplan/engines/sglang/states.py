"""Recurrent states under SGLang: their dtype, and how many a running request holds.

SGLang 0.5.23 srt/configs/mamba_utils.py (dtype), srt/arg_groups/overrides.py (radix cache strategy)
and srt/mem_cache/kv_cache_configurator.py (_calculate_mamba_ratio).
"""

from kvplan.engines.sglang.reading import share_or, whole_or_none
from kvplan.engines.sglang.traits import INKLING_RATIO, Traits
from kvplan.model import ModelSpec
from kvplan.workload import Workload

DEFAULT_MAMBA_RATIO = 0.9
SSM_DTYPES = ("float32", "float16", "bfloat16")


def slots_per_request(workload: Workload, traits: Traits, *, radix_cache: bool, overlap: bool) -> int:
    """Return _calculate_mamba_ratio: 3 states, and a ping-pong pair or half of it where one is kept."""
    if not traits.has_states or not radix_cache:
        return 1
    strategy = str(workload.option("mamba_radix_cache_strategy") or "auto")
    page = whole_or_none(workload.option("page_size")) or 1
    if strategy == "auto":
        linear = str(workload.option("linear_attn_backend") or "triton")
        wanted = not workload.option("disable_overlap_schedule") or page > 1
        strategy = "extra_buffer" if wanted and traits.extra_buffer and linear == "triton" else "no_buffer"
    if strategy == "no_buffer":
        return 3
    return 4 if strategy == "extra_buffer_lazy" or not overlap else 5


def ssm_dtype_of(workload: Workload, model: ModelSpec, traits: Traits) -> str:
    """Return the state's dtype: the flag, the config's, else float32; KDA reads no config."""
    asked = workload.option("mamba_ssm_dtype")
    if isinstance(asked, str) and asked in SSM_DTYPES:
        return asked
    if traits.has_kimi_delta or model.structure.ssm_dtype not in SSM_DTYPES:
        return "float32"
    return model.structure.ssm_dtype


def mamba_ratio_of(workload: Workload, traits: Traits) -> float:
    """Return mamba_full_memory_ratio: state memory for one of token memory."""
    default = INKLING_RATIO if traits.architecture.startswith("Inkling") else DEFAULT_MAMBA_RATIO
    return share_or(workload.option("mamba_full_memory_ratio"), default)
