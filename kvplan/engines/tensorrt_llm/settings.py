"""TensorRT-LLM's settings: its own options and their defaults.

TensorRT-LLM main of 2026 commands/serve.py and llmapi/llm_args.py (KvCacheConfig, BuildConfig).
"""

from kvplan.engines.tensorrt_llm.rows import kv_dtype_of
from kvplan.engines.tensorrt_llm.speculation import Speculation, speculation_of
from kvplan.errors import CannotTell, InvalidValue
from kvplan.frozen import dataclass
from kvplan.model import ModelSpec
from kvplan.workload import Workload

MAX_BATCH_SIZE = 2048
MAX_NUM_TOKENS = 8192
TOKENS_PER_BLOCK = 32
FREE_FRACTION = 0.9
# Values of --backend that run engines built ahead of time.
COMPILED = ("tensorrt", "trt")


@dataclass(frozen=True, slots=True)
class Settings:
    """What one server runs with. ``attention_dp``: every rank keeps its own requests' whole heads.

    ``max_tokens`` and ``max_gpu_total_bytes`` cap the pool, None and 0 where nothing does.
    """

    max_batch_size: int
    max_num_tokens: int
    free_gpu_memory_fraction: float
    tokens_per_block: int
    max_tokens: int | None
    max_gpu_total_bytes: int
    max_beam_width: int
    attention_dp: bool
    kv_dtype: str
    speculation: Speculation


def settings_of(model: ModelSpec, workload: Workload) -> Settings:
    """Resolve the settings.

    Raises InvalidValue for a share outside 0 to 1, CannotTell for engines built ahead of time.
    """
    backend = workload.option("backend")
    if isinstance(backend, str) and backend.casefold() in COMPILED:
        raise CannotTell(
            "engines that TensorRT-LLM builds ahead of time are not planned",
            why="their activation memory is fixed by the compiler",
            hint="leave --backend out for its PyTorch backend",
        )
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
        max_tokens=most if isinstance(most, int) and most > 0 else None,
        max_gpu_total_bytes=max(0, whole_or(workload.option("max_gpu_total_bytes"), 0)),
        max_beam_width=max(1, whole_or(workload.option("max_beam_width"), 1)),
        attention_dp=bool(workload.option("enable_attention_dp")),
        kv_dtype=kv_dtype_of(model, workload),
        speculation=speculation_of(workload),
    )


def whole_or(value: object, default: int) -> int:
    """Return a whole number, ``default`` for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) else default
