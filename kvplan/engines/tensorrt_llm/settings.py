"""TensorRT-LLM's settings: its own options and their defaults.

TensorRT-LLM main of 2026 commands/serve.py and llmapi/llm_args.py (KvCacheConfig, BuildConfig).
"""

from kvplan.engines.tensorrt_llm.rows import kv_dtype_of
from kvplan.errors import InvalidValue
from kvplan.frozen import dataclass
from kvplan.model import ModelSpec
from kvplan.workload import Workload

MAX_BATCH_SIZE = 2048
MAX_NUM_TOKENS = 8192
TOKENS_PER_BLOCK = 32
FREE_FRACTION = 0.9


@dataclass(frozen=True, slots=True)
class Settings:
    """What one server runs with. ``attention_dp``: every rank keeps its own requests' whole heads."""

    max_batch_size: int
    max_num_tokens: int
    free_gpu_memory_fraction: float
    tokens_per_block: int
    max_tokens: int | None
    attention_dp: bool
    kv_dtype: str


def settings_of(model: ModelSpec, workload: Workload) -> Settings:
    """Resolve the settings. Raises InvalidValue for a share outside 0 to 1."""
    asked = workload.option("free_gpu_memory_fraction", FREE_FRACTION)
    fraction = float(asked) if isinstance(asked, int | float) else FREE_FRACTION
    if not 0 < fraction < 1:
        raise InvalidValue(
            f"free_gpu_memory_fraction {fraction:g} is not a share",
            why="TensorRT-LLM takes more than 0 and less than 1",
            hint=f"leave it out for {FREE_FRACTION:g}",
        )
    most = workload.option("max_tokens")
    return Settings(
        max_batch_size=max(1, whole_or(workload.option("max_batch_size"), MAX_BATCH_SIZE)),
        max_num_tokens=max(1, whole_or(workload.option("max_num_tokens"), MAX_NUM_TOKENS)),
        free_gpu_memory_fraction=fraction,
        tokens_per_block=max(1, whole_or(workload.option("tokens_per_block"), TOKENS_PER_BLOCK)),
        max_tokens=most if isinstance(most, int) else None,
        attention_dp=bool(workload.option("enable_attention_dp")),
        kv_dtype=kv_dtype_of(model, workload),
    )


def whole_or(value: object, default: int) -> int:
    """Return a whole number, ``default`` for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) else default
