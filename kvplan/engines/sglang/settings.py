"""SGLang's settings as it resolves them: its own flags, its defaults by card and model.

SGLang 0.5.23 srt/arg_groups/pipeline.py runs the hooks in this order: card defaults and the static
share first, then kernels and pages by model, then data parallelism, which divides the chunk.
"""

from functools import lru_cache

from kvplan.device import Device
from kvplan.engines.sglang.fraction import Load, default_mem_fraction
from kvplan.engines.sglang.kernels import (
    FP4_NAMES,
    Asked,
    Kernels,
    Platform,
    kernels_of,
    kv_name,
    platform_of,
)
from kvplan.engines.sglang.load import is_qwen3_vl_on_hopper, load_of
from kvplan.engines.sglang.reading import share_or, whole_or_none
from kvplan.engines.sglang.speculation import MAX_RUNNING, algorithm_of, draft_layers, draft_tokens
from kvplan.engines.sglang.states import mamba_ratio_of, slots_per_request, ssm_dtype_of
from kvplan.engines.sglang.traits import INKLING_RATIO, WHOLE_PROMPT_CLASSES, Traits, text_config, traits_of
from kvplan.errors import CannotTell, InvalidValue, UnknownFormat
from kvplan.frozen import dataclass, replace
from kvplan.layers import FullAttention
from kvplan.model import ModelSpec, cache_kinds
from kvplan.units import MIB
from kvplan.workload import Workload

DEFAULT_SWA_RATIO = 0.8
COMPRESSED_SWA_RATIO = 0.1
COMPRESSED_MAX_RUNNING = 256
DTYPE_NAMES = {"half": "float16", "float16": "float16", "bfloat16": "bfloat16"}


@dataclass(frozen=True, slots=True)
class Layout:
    """What the size of a token's row and of a state depends on, on one rank."""

    attention_tensor: int
    dcp: int
    kernels: Kernels
    platform: Platform
    hybrid_windows: bool
    ssm_dtype: str
    draft_layers: int
    draft_path: str

    @property
    def kv_dtype(self) -> str:
        """The cache's dtype under SGLang's name."""
        return self.kernels.kv_dtype


@dataclass(frozen=True, slots=True)
class Settings:
    """What one server runs with.

    ``tensor`` ranks share a layer, ``layout.attention_tensor`` of them its attention
    (runtime_context.py derive_attn_tp_size); ``attention_dp`` groups of them keep their own requests.
    ``max_running_requests`` is the flag's value or the default that stands for it, None where the
    pool decides. ``multimodal_reserve_mib`` comes off the pool. ``slots_per_request`` is how many
    states one running request holds.
    """

    layout: Layout
    tensor: int
    pipeline: int
    data: int
    attention_dp: int
    expert: int
    context_length: int
    mem_fraction_static: float
    chunked_prefill_size: int
    max_total_tokens: int | None
    max_running_requests: int | None
    decode_graph_batch: int
    decode_graphs: bool
    prefill_graphs: bool
    num_prefill_graphs: int
    radix_cache: bool
    overlap_schedule: bool
    sliding_window: int
    swa_full_tokens_ratio: float
    mamba_full_memory_ratio: float
    max_mamba_cache_size: int | None
    slots_per_request: int
    speculative_algorithm: str
    draft_tokens: int
    disaggregation: str
    multimodal_reserve_mib: int
    model_dtype: str

    @property
    def page_size(self) -> int:
        """Tokens of one page."""
        return self.layout.kernels.page_size

    @property
    def kv_dtype(self) -> str:
        """The cache's dtype under SGLang's name."""
        return self.layout.kernels.kv_dtype


def settings_of(
    model: ModelSpec, workload: Workload, device: Device | None, tensor: int, pipeline: int, data: int = 1
) -> Settings:
    """Resolve the settings for ``tensor`` x ``pipeline`` ranks of ``device``.

    Raises InvalidValue for a share outside 0 to 1 and UnknownFormat for a cache dtype SGLang lacks.
    """
    context_length = workload.context_tokens or model.context_limit_tokens or 2048
    asked = Workload(
        kv_cache_dtype_k=workload.kv_cache_dtype_k,
        kv_cache_dtype_v=workload.kv_cache_dtype_v,
        engine_options=workload.engine_options,
    )
    try:
        settings = _cached(model, asked, device, tensor, pipeline, data)
    except TypeError:
        # An option with a JSON value cannot be a key.
        settings = _resolved(model, asked, device, tensor, pipeline, data)
    return replace(settings, context_length=context_length)


def _check_sparse(model: ModelSpec, kv_dtype: str) -> None:
    """Refuse to price a sparse model's pool in 4 bits: which of SGLang's two pools it gets is not known.

    SGLang 0.5.23 srt/model_executor/pool_configurator.py: a byte a value, or the native NVFP4 pool.
    """
    sparse = any(isinstance(cache, FullAttention) and cache.index_head_dim for cache, _ in cache_kinds(model))
    if sparse and kv_dtype in FP4_NAMES:
        raise CannotTell(
            f"{kv_dtype} caches of {model.name} are not planned under SGLang",
            why="its sparse layers go to a pool of their own, which depends on how the weights are quantized",
            hint="see: --kv fp8, or --kv bf16",
        )


def _resolved(
    model: ModelSpec, workload: Workload, device: Device | None, tensor: int, pipeline: int, data: int
) -> Settings:
    traits = _as_served(traits_of(model), workload)
    platform = platform_of(device)
    option = workload.option
    algorithm = algorithm_of(workload)
    drafted = draft_tokens(workload, algorithm, traits)
    attention_dp = _attention_dp(workload)
    radix_cache, disaggregation = _radix_cache(workload)
    asked = Asked(
        attention=str(option("attention_backend") or ""),
        prefill=str(option("prefill_attention_backend") or ""),
        decode=_decode_backend(workload, traits, device),
        sparse_prefill=str(option("dsa_prefill_backend") or ""),
        sparse_decode=str(option("dsa_decode_backend") or ""),
        page_size=whole_or_none(option("page_size")) or 0,
        kv_dtype=_asked_kv(workload),
        speculates=algorithm,
        eagle_topk=whole_or_none(option("speculative_eagle_topk")) or 0,
        radix_cache=radix_cache,
        extra_buffer=str(option("mamba_radix_cache_strategy") or "").startswith("extra_buffer"),
        dcp=whole_or_none(option("dcp_size")) or 1,
    )
    kernels = kernels_of(traits, platform, asked)
    _check_sparse(model, kv_name(asked.kv_dtype))
    load, chunk = load_of(model, traits, workload, device, tensor, pipeline, attention_dp, drafted)
    if traits.is_multimodal and traits.architecture in WHOLE_PROMPT_CLASSES:
        chunk = -1
    max_running = load.max_running_requests
    if max_running is None:
        if algorithm:
            max_running = MAX_RUNNING
        elif traits.is_compressed:
            max_running = COMPRESSED_MAX_RUNNING
    served_dtype = served_dtype_of(model, workload)
    overlap = not option("disable_overlap_schedule") and pipeline == 1
    attention_cp = max(1, whole_or_none(option("attn_cp_size")) or 1)
    layout = Layout(
        attention_tensor=max(1, tensor // attention_dp // attention_cp),
        dcp=asked.dcp,
        kernels=_resolve_kv(kernels, model, served_dtype),
        platform=platform,
        hybrid_windows=traits.hybrid_windows and not option("disable_hybrid_swa_memory"),
        ssm_dtype=ssm_dtype_of(workload, model, traits),
        draft_layers=draft_layers(model, workload, traits, algorithm),
        draft_path=str(option("speculative_draft_model_path") or ""),
    )
    return Settings(
        layout=layout,
        tensor=tensor,
        pipeline=pipeline,
        data=data,
        attention_dp=attention_dp,
        expert=_expert_ranks(workload, tensor),
        context_length=0,
        mem_fraction_static=_mem_fraction(workload, load, traits, device),
        chunked_prefill_size=chunk // attention_dp if chunk > 0 else chunk,
        max_total_tokens=whole_or_none(option("max_total_tokens")),
        max_running_requests=max_running,
        decode_graph_batch=load.decode_graph_batch,
        decode_graphs=load.decode_graphs,
        prefill_graphs=load.prefill_graphs,
        num_prefill_graphs=load.num_prefill_graphs,
        radix_cache=radix_cache,
        overlap_schedule=overlap,
        sliding_window=traits.sliding_window,
        swa_full_tokens_ratio=_swa_ratio(workload, traits),
        mamba_full_memory_ratio=mamba_ratio_of(workload, traits),
        max_mamba_cache_size=whole_or_none(option("max_mamba_cache_size")),
        slots_per_request=slots_per_request(workload, traits, radix_cache=radix_cache, overlap=overlap),
        speculative_algorithm=algorithm,
        draft_tokens=drafted,
        disaggregation=disaggregation,
        multimodal_reserve_mib=_multimodal_reserve(traits, platform, device, max_running),
        model_dtype=served_dtype,
    )


def _decode_backend(workload: Workload, traits: Traits, device: Device | None) -> str:
    asked = str(workload.option("decode_attention_backend") or "")
    if asked or workload.option("attention_backend") or not is_qwen3_vl_on_hopper(traits, device):
        return asked
    return "flashinfer"


def _as_served(traits: Traits, workload: Workload) -> Traits:
    """Return the traits with images switched on or off as the command line says."""
    asked = workload.option("enable_multimodal")
    if asked is False or workload.option("language_only") or workload.option("language_model_only"):
        return replace(traits, is_multimodal=False)
    if asked and traits.vision is not None:
        return replace(traits, is_multimodal=True)
    return traits


_cached = lru_cache(maxsize=2048)(_resolved)


def _mem_fraction(workload: Workload, load: Load, traits: Traits, device: Device | None) -> float:
    asked = workload.option("mem_fraction_static")
    if isinstance(asked, int | float) and not isinstance(asked, bool):
        if not 0 < asked < 1:
            raise InvalidValue(
                f"--mem-fraction-static {asked:g} is not a share",
                why="SGLang takes more than 0 and less than 1",
                hint="leave it out for the card's default",
            )
        return float(asked)
    if device is None:
        return 0.95
    return default_mem_fraction(load, traits, device.memory_bytes / MIB)


def _radix_cache(workload: Workload) -> tuple[bool, str]:
    """Return whether prefixes are kept, and the disaggregation mode: decode servers keep none."""
    mode = str(workload.option("disaggregation_mode") or "null")
    if mode == "decode" and not workload.option("disaggregation_decode_enable_radix_cache"):
        return False, mode
    return not workload.option("disable_radix_cache"), mode


def _attention_dp(workload: Workload) -> int:
    explicit = whole_or_none(workload.option("attn_dp_size"))
    if explicit:
        return explicit
    return (whole_or_none(workload.option("dp_size")) or 1) if workload.option("enable_dp_attention") else 1


def _expert_ranks(workload: Workload, tensor: int) -> int:
    if workload.option("moe_a2a_backend") == "deepep" or workload.option("enable_deepep_moe"):
        return tensor
    return max(1, whole_or_none(workload.option("ep_size")) or 1)


def _swa_ratio(workload: Workload, traits: Traits) -> float:
    default = DEFAULT_SWA_RATIO
    if traits.is_compressed:
        default = COMPRESSED_SWA_RATIO
    elif traits.architecture.startswith("Inkling"):
        default = INKLING_RATIO
    return share_or(workload.option("swa_full_tokens_ratio"), default)


def served_dtype_of(model: ModelSpec, workload: Workload) -> str:
    """Return the dtype the model runs in (model_config.py _get_and_verify_dtype).

    fp32 checkpoints, and those that name no dtype, are served in float16, Gemma and gpt-oss's MXFP4
    in bfloat16.
    """
    asked = DTYPE_NAMES.get(str(workload.option("dtype") or ""))
    if asked:
        return asked
    config = model.config or {}
    parts = (config, text_config(config))
    stated = not config or any(part.get(key) for part in parts for key in ("torch_dtype", "dtype"))
    if stated and model.dtype in ("float16", "bfloat16"):
        return model.dtype
    wide = model.model_type.startswith("gemma") or model.architecture == "GptOssForCausalLM"
    return "bfloat16" if wide else "float16"


def _asked_kv(workload: Workload) -> str:
    if workload.kv_cache_dtype_k != workload.kv_cache_dtype_v:
        raise UnknownFormat(
            f"SGLang keeps keys and values in one format, not {workload.kv_cache_dtype_k} and "
            f"{workload.kv_cache_dtype_v}",
            why="--kv-cache-dtype sets both",
            hint="use --kv with one format",
        )
    return workload.kv_cache_dtype_k


def _resolve_kv(kernels: Kernels, model: ModelSpec, model_dtype: str) -> Kernels:
    """Replace ``auto``: fp8 where the checkpoint says so, else the model's dtype (kv_cache_dtype.py)."""
    if kernels.kv_dtype != "auto":
        return kernels
    own = model.quantization.kv_cache_dtype if model.quantization else None
    name = "fp8_e4m3" if own and own.startswith("fp8") else model_dtype
    return Kernels(kernels.prefill, kernels.decode, kernels.sparse, kernels.page_size, name)


def _multimodal_reserve(
    traits: Traits, platform: Platform, device: Device | None, max_running: int | None
) -> int:
    """Return the MiB kept for image features: 100 (mm_runtime_reservation_gb), more on Qwen3-VL.

    On large Hopper cards Qwen3-VL keeps no embeddings but passes features through CUDA memory.
    """
    if not traits.is_multimodal:
        return 0
    if is_qwen3_vl_on_hopper(traits, device) and platform.is_sm90:
        return 3 * 1024 if max_running is not None and max_running >= 400 else 1024
    return 100
