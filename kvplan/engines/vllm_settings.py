"""vLLM's settings as it resolves them: its own flags, its defaults by device and version.

vLLM 0.33 engine/arg_utils.py (scheduler defaults by device memory), config/cache.py (utilization,
cache dtypes), config/vllm.py (batches in flight, windows kept in full).
"""

from dataclasses import dataclass

from kvplan.device import Device
from kvplan.engines.base import Notice, Parallel
from kvplan.engines.vllm_budget import Behaviour
from kvplan.engines.vllm_pages import KV_DTYPES, TURBOQUANT
from kvplan.errors import InvalidValue, UnknownFormat, did_you_mean
from kvplan.layers import LatentAttention
from kvplan.model import ModelSpec, cache_kinds
from kvplan.units import GIB
from kvplan.workload import Workload

# Generic names and what vLLM calls them.
GENERIC: dict[str, str] = {
    "bf16": "bfloat16",
    "fp16": "float16",
    "f16": "float16",
    "half": "float16",
    "fp32": "float32",
    "f32": "float32",
    "int8": "int8_per_token_head",
    "int4": "int4_per_token_head",
    "fp8_e4m3fn": "fp8_e4m3",
}
KV_NAMES: tuple[str, ...] = ("auto", *KV_DTYPES, *TURBOQUANT, *GENERIC)


@dataclass(frozen=True, slots=True)
class Settings:
    """What one server runs with."""

    gpu_memory_utilization: float
    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int
    enforce_eager: bool
    block_size: int
    mamba_mode: str
    conv_dtype: str
    ssm_dtype: str
    num_speculative: int
    uses_mtp: bool
    unify_windows: bool
    dcp: int
    in_flight_tokens: int
    kv_cache_memory_bytes: int

    def layout_key(self) -> tuple[object, ...]:
        """Return what the pool's layout depends on."""
        return (
            self.block_size,
            self.mamba_mode,
            self.conv_dtype,
            self.ssm_dtype,
            self.num_speculative,
            self.uses_mtp,
            self.unify_windows,
            self.dcp,
            self.max_model_len if self.mamba_mode == "none" else 0,
        )

    @staticmethod
    def from_layout_key(key: tuple[object, ...]) -> "Settings":
        """Return settings that have a layout's part filled in, the rest neutral."""
        block, mode, conv, ssm, spec, mtp, unify, dcp, length = key
        return Settings(
            gpu_memory_utilization=0.0,
            max_num_seqs=1,
            max_num_batched_tokens=1,
            max_model_len=_int(length, 0),
            enforce_eager=True,
            block_size=_int(block, 0),
            mamba_mode=str(mode),
            conv_dtype=str(conv),
            ssm_dtype=str(ssm),
            num_speculative=_int(spec, 0),
            uses_mtp=bool(mtp),
            unify_windows=bool(unify),
            dcp=_int(dcp, 1),
            in_flight_tokens=0,
            kv_cache_memory_bytes=0,
        )

    def requested_bytes(self, usable_bytes: int) -> int:
        """Return the share of the device vLLM asks for: ceil(total x utilization)."""
        # In parts per million, so that 0.92 of a total is not off by a float's last bit.
        parts = round(self.gpu_memory_utilization * 1_000_000)
        return -(-usable_bytes * parts // 1_000_000)


def settings_of(model: ModelSpec, workload: Workload, device: Device | None, rules: Behaviour) -> Settings:
    """Resolve the settings. Raises InvalidValue for a utilization outside 0 to 1."""
    tokens, seqs = scheduler_defaults(device)
    share = workload.option("gpu_memory_utilization")
    utilization = float(share) if isinstance(share, int | float) else rules.gpu_memory_utilization
    if not 0 < utilization <= 1:
        raise InvalidValue(
            f"--gpu-memory-utilization {utilization:g} is not a share",
            why="vLLM takes more than 0 and at most 1",
            hint=f"leave it out for {rules.gpu_memory_utilization:g}",
        )
    tokens = _int(workload.option("max_num_batched_tokens"), tokens)
    speculative = workload.option("speculative_config")
    num_speculative, uses_mtp = 0, False
    if isinstance(speculative, dict):
        num_speculative = _int(speculative.get("num_speculative_tokens"), 1)
        uses_mtp = "mtp" in str(speculative.get("method", "")) or "nextn" in str(
            speculative.get("method", "")
        )
    prefix_caching = workload.option("enable_prefix_caching", True) is not False
    pipeline = workload.pipeline_parallel or 1
    steps = rules.steps_in_flight
    if workload.option("async_scheduling") is False:
        steps = 1
    if pipeline > 1:
        steps = pipeline + 1 if steps == 2 else pipeline
    model_dtype = model.dtype if model.dtype in ("float32", "float16", "bfloat16") else "bfloat16"
    asked_ssm = workload.option("mamba_ssm_cache_dtype")
    return Settings(
        gpu_memory_utilization=utilization,
        max_num_seqs=max(1, _int(workload.option("max_num_seqs"), seqs)),
        max_num_batched_tokens=max(1, tokens),
        max_model_len=workload.context_tokens or model.context_limit_tokens,
        enforce_eager=bool(workload.option("enforce_eager")),
        block_size=_int(workload.option("block_size"), 0),
        mamba_mode="align" if prefix_caching else "none",
        conv_dtype=model_dtype,
        ssm_dtype=str(asked_ssm) if isinstance(asked_ssm, str) and asked_ssm != "auto" else _ssm_dtype(model),
        num_speculative=num_speculative,
        uses_mtp=uses_mtp,
        unify_windows=bool(workload.option("disable_hybrid_kv_cache_manager")),
        dcp=max(1, _int(workload.option("decode_context_parallel_size"), 1)),
        in_flight_tokens=steps * max(1, tokens),
        kv_cache_memory_bytes=_int(workload.option("kv_cache_memory_bytes"), 0),
    )


def _ssm_dtype(model: ModelSpec) -> str:
    """Return the state's dtype: the config's, fp32 for Nemotron-H, else the model's own.

    vLLM 0.33 model_executor/models/config.py.
    """
    if model.structure.ssm_dtype is not None:
        return model.structure.ssm_dtype
    if model.model_type == "nemotron_h":
        return "float32"
    return model.dtype if model.dtype in ("float32", "float16", "bfloat16") else "bfloat16"


def scheduler_defaults(device: Device | None) -> tuple[int, int]:
    """Return (max_num_batched_tokens, max_num_seqs) of an API server by device memory."""
    if device is None:
        return 8192, 1024
    memory = device.memory_bytes
    is_a100 = "a100" in device.name or "a800" in device.name
    if memory >= 160 * GIB:
        return 16384, 1024
    if memory >= 70 * GIB and not is_a100 and not device.unified_memory:
        return 8192, 1024
    return 2048, 256


def kv_dtype_of(model: ModelSpec, workload: Workload) -> tuple[str, tuple[Notice, ...]]:
    """Return vLLM's cache dtype and a notice where a generic name was mapped.

    ``auto`` follows the checkpoint's own cache scheme, else the model. Sparse latent attention packs
    its rows in fp8 whatever is asked (FlashMLA sparse). Raises UnknownFormat for what vLLM lacks.
    """
    if workload.kv_cache_dtype_k != workload.kv_cache_dtype_v:
        raise UnknownFormat(
            f"vLLM keeps keys and values in one format, not {workload.kv_cache_dtype_k} and "
            f"{workload.kv_cache_dtype_v}",
            why="--kv-cache-dtype sets both",
            hint="use --kv with one format",
        )
    asked = workload.kv_cache_dtype_k
    name = GENERIC.get(asked, asked)
    notices: tuple[Notice, ...] = ()
    if name != asked and asked in ("int8", "int4"):
        notices = (Notice("kv-format-mapped", f"{asked} is vLLM's {name}"),)
    if name == "auto":
        own = model.quantization.kv_cache_dtype if model.quantization else None
        default = model.dtype if model.dtype in ("float32", "float16", "bfloat16") else "bfloat16"
        name = own or default
    if name not in KV_DTYPES and name not in TURBOQUANT:
        raise UnknownFormat(
            f"vLLM has no KV cache format '{asked}'",
            why=did_you_mean(asked, KV_NAMES) or f"it takes {', '.join(KV_NAMES[:11])}",
            hint="name one of them, or the engine that has it: kvplan list engines",
        )
    if _is_sparse_latent(model) and name not in ("fp8_ds_mla", "nvfp4_ds_mla", "fp8_e4m3"):
        name = "fp8_ds_mla"
        notices = (
            *notices,
            Notice("kv-format-mapped", "sparse latent attention keeps fp8_ds_mla rows of 656 B (FlashMLA)"),
        )
    return name, notices


def _is_sparse_latent(model: ModelSpec) -> bool:
    return any(isinstance(cache, LatentAttention) and cache.index_head_dim for cache, _ in cache_kinds(model))


def engine_options(
    settings: Settings, context_tokens: int, dtype: str, parallel: Parallel
) -> tuple[tuple[str, object], ...]:
    """Return the settings under vLLM's own names."""
    return (
        ("gpu_memory_utilization", settings.gpu_memory_utilization),
        ("max_model_len", context_tokens),
        ("max_num_seqs", settings.max_num_seqs),
        ("max_num_batched_tokens", settings.max_num_batched_tokens),
        ("kv_cache_dtype", dtype),
        ("enforce_eager", settings.enforce_eager),
        ("enable_prefix_caching", settings.mamba_mode == "align"),
        ("tensor_parallel_size", parallel.tensor),
        ("pipeline_parallel_size", parallel.pipeline),
        ("data_parallel_size", parallel.data),
        ("decode_context_parallel_size", settings.dcp),
        ("disable_hybrid_kv_cache_manager", settings.unify_windows),
    )


def _int(value: object, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else default
