"""vLLM's settings as it resolves them: its own flags, its defaults by device and version.

vLLM 0.33 engine/arg_utils.py (scheduler defaults by device memory and the clamps after them),
config/cache.py (utilization, dtypes), config/vllm.py (batches in flight, windows kept in full),
model_executor/models/config.py (state dtypes).
"""

from functools import lru_cache

from kvplan.device import Device
from kvplan.engines.base import Parallel
from kvplan.engines.vllm.activations import has_towers
from kvplan.engines.vllm.attention import generation
from kvplan.engines.vllm.checkpoints import NONE, checkpoints_of
from kvplan.engines.vllm.groups import PoolRules
from kvplan.engines.vllm.speculative import Speculation
from kvplan.engines.vllm.states import StateDtypes
from kvplan.engines.vllm.versions import Behaviour, runs_v1
from kvplan.errors import InvalidValue
from kvplan.frozen import dataclass
from kvplan.layers import ChunkedAttention, LatentAttention, SlidingWindow
from kvplan.model import ModelSpec, cache_kinds
from kvplan.units import GIB
from kvplan.workload import Workload

MODEL_DTYPES = ("float32", "float16", "bfloat16")
# Linear attention whose config class keeps its state in fp32 whatever the model's type.
FLOAT32_LINEAR = ("minimax", "minimax_text_01")
LARGE_DEVICE_BYTES, BIG_DEVICE_BYTES = 160 * GIB, 70 * GIB
PARTS_PER_MILLION = 1_000_000
# config/cache.py MambaCacheMode: ``all`` is gone.
WITHOUT_ALL_STATES = (0, 32)
LARGEST_CAPTURE = 512
# The V0 engine: 256 sequences, prompts in one step up to 32,768 tokens (0.8 engine/arg_utils.py).
V0_DEFAULTS = (2048, 256)
V0_LONG_CONTEXT_TOKENS = 32768


@dataclass(frozen=True, slots=True)
class Card:
    """What of a device decides how a server resolves itself; nothing where no device is named.

    ``is_named`` tells that there is one, whose kernels then count. ``generation`` is the major number of
    its compute capability, 0 where it changes nothing; ``max_num_batched_tokens`` and ``max_num_seqs``
    are the scheduler's defaults there.
    """

    generation: int
    max_num_batched_tokens: int
    max_num_seqs: int
    is_named: bool = True


@dataclass(frozen=True, slots=True)
class Settings:
    """What one server runs with."""

    gpu_memory_utilization: float
    max_num_seqs: int
    max_num_batched_tokens: int
    enforce_eager: bool
    in_flight_tokens: int
    kv_cache_memory_bytes: int
    num_gpu_blocks_override: int
    pool: PoolRules
    states: StateDtypes
    speculation: Speculation
    encoder_tokens: int
    model_dtype: str
    largest_capture: int
    sees: bool

    def requested_bytes(self, usable_bytes: int) -> int:
        """Return the share of the device vLLM asks for: ceil(total x utilization)."""
        # In parts per million, so that 0.92 of a total is not off by a float's last bit.
        parts = round(self.gpu_memory_utilization * PARTS_PER_MILLION)
        return -(-usable_bytes * parts // PARTS_PER_MILLION)


def settings_of(
    model: ModelSpec,
    workload: Workload,
    card: Card,
    rules: Behaviour,
    *,
    block_size: int,
    least_block_size: int,
    speculation: Speculation,
    pipeline: int,
    max_model_len: int,
) -> Settings:
    """Resolve the settings. Raises InvalidValue for a utilization outside 0 to 1."""
    tokens, seqs = _scheduler(model, workload, card, rules, max_model_len)
    share = workload.option("gpu_memory_utilization")
    utilization = float(share) if isinstance(share, int | float) else rules.gpu_memory_utilization
    if not 0 < utilization <= 1:
        raise InvalidValue(
            f"--gpu-memory-utilization {utilization:g} is not a share",
            why="vLLM takes more than 0 and at most 1",
            hint=f"leave it out for {rules.gpu_memory_utilization:g}",
        )
    mamba_mode = _mamba_mode(model, workload, rules.version)
    checkpoints = NONE
    if card.is_named and mamba_mode == "align":
        checkpoints = checkpoints_of(model, card.generation, rules.version)
    eager = _is_eager(workload)
    asked_block = whole(workload.option("block_size"), 0)
    return Settings(
        gpu_memory_utilization=utilization,
        max_num_seqs=seqs,
        max_num_batched_tokens=tokens,
        enforce_eager=eager,
        in_flight_tokens=_batches_in_flight(workload, rules, pipeline) * tokens,
        kv_cache_memory_bytes=whole(workload.option("kv_cache_memory_bytes"), 0),
        num_gpu_blocks_override=whole(workload.option("num_gpu_blocks_override"), 0),
        pool=PoolRules(
            block_size=max(asked_block or block_size, least_block_size),
            mamba_mode=mamba_mode,
            num_speculative=speculation.num_tokens,
            max_model_len=max_model_len if mamba_mode == "none" else 0,
            unify_windows=_unifies_windows(model, workload, speculation),
            dcp=max(1, whole(workload.option("decode_context_parallel_size"), 1)),
            num_checkpoints=checkpoints.num_blocks,
            checkpoint_alignment=checkpoints.alignment,
        ),
        states=_state_dtypes(model, workload),
        speculation=speculation,
        # Cross attention keeps room for what one step may encode (config/scheduler.py).
        encoder_tokens=tokens,
        model_dtype=model_dtype(model, workload),
        largest_capture=0 if eager else _largest_capture(workload, seqs),
        sees=sees(workload),
    )


def _batches_in_flight(workload: Workload, rules: Behaviour, pipeline: int) -> int:
    if rules.steps_in_flight == 1 or workload.option("async_scheduling") is False:
        return pipeline
    return pipeline + 1


def _is_eager(workload: Workload) -> bool:
    """Tell whether no graph is captured: eager mode, no optimization, or graphs switched off."""
    if workload.option("enforce_eager") or workload.option("uncompiled"):
        return True
    config = workload.option("compilation_config")
    if not isinstance(config, dict):
        return False
    mode = str(config.get("cudagraph_mode", "")).upper()
    return mode == "NONE" or config.get("level", config.get("mode")) == 0


def _largest_capture(workload: Workload, max_num_seqs: int) -> int:
    """Return the largest batch that is captured: twice the sequences, at most 512 (config/vllm.py)."""
    default = min(2 * max_num_seqs, LARGEST_CAPTURE)
    asked = workload.option("max_cudagraph_capture_size")
    given = workload.option("cudagraph_capture_sizes")
    if isinstance(given, tuple) and given:
        asked = max(given)
    config = workload.option("compilation_config")
    if isinstance(config, dict):
        sizes = config.get("cudagraph_capture_sizes")
        asked = config.get("max_cudagraph_capture_size", asked)
        if isinstance(sizes, list) and sizes and all(isinstance(size, int) for size in sizes):
            asked = max(sizes)
    return max(0, whole(asked, default))


def sees(workload: Workload) -> bool:
    """Tell whether the towers are loaded: not with ``--language-model-only`` or all limits at 0."""
    limits = workload.option("limit_mm_per_prompt")
    if isinstance(limits, dict) and limits and all(limit == 0 for limit in limits.values()):
        return False
    return not workload.option("language_model_only")


def _mamba_mode(model: ModelSpec, workload: Workload, version: tuple[int, int]) -> str:
    if workload.option("enable_prefix_caching") is False or model.structure.kind == "encoder-decoder":
        return "none"
    asked = workload.option("mamba_cache_mode")
    return "all" if asked == "all" and version < WITHOUT_ALL_STATES else "align"


def _unifies_windows(model: ModelSpec, workload: Workload, speculation: Speculation) -> bool:
    asked = workload.option("disable_hybrid_kv_cache_manager")
    if asked is not None:
        return bool(asked)
    # Chunked attention with a drafting head has no hybrid manager.
    drafts = speculation.uses_eagle or speculation.uses_mtp
    return drafts and any(isinstance(cache, ChunkedAttention) for cache, _ in cache_kinds(model))


def model_dtype(model: ModelSpec, workload: Workload) -> str:
    """Return what vLLM runs the model in: ``--dtype``, else the model's own, bf16 where that is odd.

    fp32 checkpoints are loaded in 16 bits unless the flag asks for 32: float16 where they pool, else
    bfloat16 (vLLM 0.33 config/model.py _resolve_auto_dtype; cards before Ampere take float16, as wide).
    """
    asked = {"half": "float16", "float": "float32"}.get(
        str(workload.option("dtype") or "auto"), str(workload.option("dtype") or "auto")
    )
    if asked in MODEL_DTYPES:
        return asked
    if model.dtype == "float32":
        return "float16" if model.structure.kind == "encoder" else "bfloat16"
    return model.dtype if model.dtype in MODEL_DTYPES else "bfloat16"


def _state_dtypes(model: ModelSpec, workload: Workload) -> StateDtypes:
    """Resolve the states' dtypes: the flag, the config's own, fp32 for Nemotron-H, else the cache's."""
    own = model_dtype(model, workload)
    asked_cache = str(workload.option("mamba_cache_dtype") or "auto")
    conv = asked_cache if asked_cache in MODEL_DTYPES else own
    asked = str(workload.option("mamba_ssm_cache_dtype") or "auto")
    if asked == "auto":
        asked = model.structure.ssm_dtype or ("float32" if model.model_type == "nemotron_h" else "auto")
    linear = "float32" if model.model_type in FLOAT32_LINEAR and asked_cache == "auto" else conv
    return StateDtypes(conv, asked, linear)


@lru_cache(maxsize=1024)
def card_of(device: Device | None, version: tuple[int, int], *, by_generation: bool) -> Card:
    """Return a device's kind: the defaults of an API server by its memory, and its generation if asked.

    engine/arg_utils.py get_batch_defaults: the A100 is kept small since 0.9, the largest tier is new in
    0.28, the GB10 is kept small since 0.33.
    """
    if device is None:
        return Card(0, 8192, 1024, is_named=False)
    # CUDA's total, which is what vLLM asks for.
    memory = device.usable_bytes
    is_small_tier = "a100" in device.name and version >= (0, 9)
    is_small_tier |= device.compute_capability == "12.1" and version >= (0, 33)
    tokens, seqs = 2048, 256
    if memory >= LARGE_DEVICE_BYTES and version >= (0, 28):
        tokens, seqs = 16384, 1024
    elif memory >= BIG_DEVICE_BYTES and not is_small_tier:
        tokens, seqs = 8192, 1024
    return Card(generation(device.compute_capability) if by_generation else 0, tokens, seqs)


def _scheduler(
    model: ModelSpec, workload: Workload, card: Card, rules: Behaviour, max_model_len: int
) -> tuple[int, int]:
    """Return (max_num_batched_tokens, max_num_seqs): the flags, else defaults and their clamps."""
    is_v1 = runs_v1(rules.version, card.generation)
    tokens, seqs = (card.max_num_batched_tokens, card.max_num_seqs) if is_v1 else V0_DEFAULTS
    asked_tokens = whole(workload.option("max_num_batched_tokens"), 0)
    asked_seqs = whole(workload.option("max_num_seqs"), 0)
    if workload.option("performance_mode") == "throughput":
        tokens, seqs = 2 * tokens, 2 * seqs
    seqs = asked_seqs or seqs
    if asked_tokens:
        tokens = asked_tokens
    else:
        asked = workload.option("enable_chunked_prefill")
        chunked = (is_v1 or _v0_chunks(model, workload, max_model_len)) if asked is None else bool(asked)
        if not chunked or model.structure.kind == "encoder-decoder":
            tokens = max(max_model_len, tokens)
        tokens = min(seqs * max_model_len, tokens) if max_model_len else tokens
    if not asked_seqs:
        seqs = min(seqs, tokens)
    return max(1, tokens), max(1, seqs)


def _v0_chunks(model: ModelSpec, workload: Workload, max_model_len: int) -> bool:
    """Tell whether the V0 engine chunks prompts unasked: text alone, long, and plain attention."""
    if max_model_len <= V0_LONG_CONTEXT_TOKENS or has_towers(model):
        return False
    if workload.option("enable_lora") or workload.option("speculative_model"):
        return False
    return not any(isinstance(cache, LatentAttention | SlidingWindow) for cache, _ in cache_kinds(model))


def engine_options(settings: Settings, dtype: str, parallel: Parallel) -> tuple[tuple[str, object], ...]:
    """Return the settings under vLLM's own names, all but the length."""
    return (
        ("gpu_memory_utilization", settings.gpu_memory_utilization),
        ("max_num_seqs", settings.max_num_seqs),
        ("max_num_batched_tokens", settings.max_num_batched_tokens),
        ("kv_cache_dtype", dtype),
        ("enforce_eager", settings.enforce_eager),
        ("enable_prefix_caching", settings.pool.mamba_mode == "align"),
        ("tensor_parallel_size", parallel.tensor),
        ("pipeline_parallel_size", parallel.pipeline),
        ("data_parallel_size", parallel.data),
        ("decode_context_parallel_size", settings.pool.dcp),
        ("disable_hybrid_kv_cache_manager", settings.pool.unify_windows),
        ("num_speculative_tokens", settings.speculation.num_tokens),
    )


def whole(value: object, default: int) -> int:
    """Return an option's whole number, ``default`` where it has none."""
    return value if isinstance(value, int) and not isinstance(value, bool) else default
