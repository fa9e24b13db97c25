"""SGLang's settings as it resolves them: its own flags, its defaults by card and model.

SGLang 0.5.23 srt/arg_groups/pipeline.py runs the hooks in this order: card defaults and the static
share first, then kernels and pages by model, then data parallelism, which divides the chunk.
"""

from dataclasses import dataclass

from kvplan.device import Device
from kvplan.engines.sglang_backends import Asked, Kernels, Platform, kernels_of, platform_of
from kvplan.engines.sglang_fraction import (
    MAX_PREFILL_TOKENS,
    MLA_MAX_PREFILL_GRAPH,
    Load,
    card_defaults,
    default_mem_fraction,
    num_prefill_graphs,
)
from kvplan.engines.sglang_traits import Traits, traits_of
from kvplan.errors import InvalidValue, UnknownFormat
from kvplan.model import ModelSpec
from kvplan.units import MIB
from kvplan.workload import Workload

DEFAULT_SWA_RATIO = 0.8
COMPRESSED_SWA_RATIO = 0.1
INKLING_RATIO = 0.1
DEFAULT_MAMBA_RATIO = 0.9
COMPRESSED_MAX_RUNNING = 256
SPECULATIVE_MAX_RUNNING = 48
DRAFT_TOKENS: dict[str, int] = {"NGRAM": 12, "DFLASH": 16}
SSM_DTYPES = ("float32", "float16", "bfloat16")
A2A_WITH_PREFILL_GRAPHS = ("none", "deepep", "megamoe", "flashinfer")
# What a card of no known size is taken for: SGLang then falls back to a share of 0.95.
UNKNOWN_CARD_CHUNK, UNKNOWN_CARD_GRAPH = 4096, 160


@dataclass(frozen=True, slots=True)
class Settings:
    """What one server runs with.

    ``tensor`` ranks share a layer, of which ``attention_tensor`` share its attention;
    ``attention_dp`` groups keep their own requests. ``max_running_requests`` is the flag's value or
    the default that stands for it, None where the pool decides. ``multimodal_reserve_mib`` comes off
    the pool. ``slots_per_request`` is how many states one running request holds.
    """

    tensor: int
    pipeline: int
    data: int
    attention_dp: int
    attention_cp: int
    dcp: int
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
    kernels: Kernels
    platform: Platform
    radix_cache: bool
    overlap_schedule: bool
    hybrid_windows: bool
    sliding_window: int
    swa_full_tokens_ratio: float
    mamba_full_memory_ratio: float
    max_mamba_cache_size: int | None
    ssm_dtype: str
    slots_per_request: int
    speculative_algorithm: str
    draft_tokens: int
    draft_layers: int
    draft_path: str
    disaggregation: str
    multimodal_reserve_mib: int
    model_dtype: str

    @property
    def page_size(self) -> int:
        """Tokens of one page."""
        return self.kernels.page_size

    @property
    def kv_dtype(self) -> str:
        """The cache's dtype under SGLang's name."""
        return self.kernels.kv_dtype

    @property
    def attention_tensor(self) -> int:
        """Ranks that one layer's attention is split over (runtime_context.py derive_attn_tp_size)."""
        return max(1, self.tensor // self.attention_dp // self.attention_cp)


def settings_of(
    model: ModelSpec, workload: Workload, device: Device | None, tensor: int, pipeline: int, data: int = 1
) -> Settings:
    """Resolve the settings for ``tensor`` x ``pipeline`` ranks of ``device``.

    Raises InvalidValue for a share outside 0 to 1 and UnknownFormat for a cache dtype SGLang lacks.
    """
    traits = traits_of(model)
    platform = platform_of(device)
    option = workload.option
    algorithm = str(option("speculative_algorithm") or "").upper()
    algorithm = "EAGLE" if algorithm == "NEXTN" else algorithm
    draft_tokens = _draft_tokens(workload, algorithm)
    attention_dp = _attention_dp(workload)
    radix_cache, disaggregation = _radix_cache(workload)
    asked = Asked(
        attention=str(option("attention_backend") or ""),
        prefill=str(option("prefill_attention_backend") or ""),
        decode=_decode_backend(workload, traits, device),
        sparse_prefill=str(option("dsa_prefill_backend") or ""),
        sparse_decode=str(option("dsa_decode_backend") or ""),
        page_size=_int(option("page_size")) or 0,
        kv_dtype=_asked_kv(workload),
        speculates=bool(algorithm),
        eagle_topk=_int(option("speculative_eagle_topk")) or 1,
        radix_cache=radix_cache,
        dcp=_int(option("dcp_size")) or 1,
    )
    kernels = kernels_of(traits, platform, asked)
    load, chunk = _load(model, traits, workload, device, tensor, pipeline, attention_dp, draft_tokens)
    max_running = load.max_running_requests
    if max_running is None:
        if algorithm:
            max_running = SPECULATIVE_MAX_RUNNING
        elif traits.is_compressed:
            max_running = COMPRESSED_MAX_RUNNING
    model_dtype = _model_dtype(model)
    overlap = not option("disable_overlap_schedule") and pipeline == 1
    return Settings(
        tensor=tensor,
        pipeline=pipeline,
        data=data,
        attention_dp=attention_dp,
        attention_cp=max(1, _int(option("attn_cp_size")) or 1),
        dcp=asked.dcp,
        expert=_expert_ranks(workload, tensor),
        context_length=workload.context_tokens or model.context_limit_tokens or 2048,
        mem_fraction_static=_mem_fraction(workload, load, traits, device),
        chunked_prefill_size=chunk // attention_dp if chunk > 0 else chunk,
        max_total_tokens=_int(option("max_total_tokens")),
        max_running_requests=max_running,
        decode_graph_batch=load.decode_graph_batch,
        decode_graphs=load.decode_graphs,
        prefill_graphs=load.prefill_graphs,
        num_prefill_graphs=load.num_prefill_graphs,
        kernels=_resolve_kv(kernels, model, model_dtype),
        platform=platform,
        radix_cache=radix_cache,
        overlap_schedule=overlap,
        hybrid_windows=traits.hybrid_windows and not option("disable_hybrid_swa_memory"),
        sliding_window=traits.sliding_window,
        swa_full_tokens_ratio=_swa_ratio(workload, traits),
        mamba_full_memory_ratio=_mamba_ratio(workload, traits),
        max_mamba_cache_size=_int(option("max_mamba_cache_size")),
        ssm_dtype=_ssm_dtype(workload, model, traits),
        slots_per_request=_slots_per_request(workload, traits, radix_cache=radix_cache, overlap=overlap),
        speculative_algorithm=algorithm,
        draft_tokens=draft_tokens,
        draft_layers=_draft_layers(workload, traits, algorithm),
        draft_path=str(option("speculative_draft_model_path") or ""),
        disaggregation=disaggregation,
        multimodal_reserve_mib=_multimodal_reserve(traits, platform, device, max_running),
        model_dtype=model_dtype,
    )


def _load(
    model: ModelSpec,
    traits: Traits,
    workload: Workload,
    device: Device | None,
    tensor: int,
    pipeline: int,
    attention_dp: int,
    draft_tokens: int,
) -> tuple[Load, int]:
    """Return what the reserve depends on, and the chunk before data parallelism divides it."""
    option = workload.option
    chunk, graph = UNKNOWN_CARD_CHUNK, UNKNOWN_CARD_GRAPH
    if device is not None:
        chunk, graph = card_defaults(device.memory_bytes / MIB, tensor)
    asked_chunk = _int(option("chunked_prefill_size"))
    chunk = chunk if asked_chunk is None else asked_chunk
    max_running = _int(option("max_running_requests"))
    asked_graph = _int(option("cuda_graph_max_bs_decode")) or _int(option("cuda_graph_max_bs"))
    if asked_graph:
        graph = asked_graph
    elif max_running is not None:
        graph = _graphs_for_running(graph, max_running, traits, device)
    deepep = option("moe_a2a_backend") == "deepep" or bool(option("enable_deepep_moe"))
    disaggregation = str(option("disaggregation_mode") or "null")
    load = Load(
        tensor=tensor,
        pipeline=pipeline,
        attention_dp=attention_dp,
        chunked_prefill_size=chunk,
        max_prefill_tokens=_int(option("max_prefill_tokens")) or MAX_PREFILL_TOKENS,
        decode_graph_batch=graph,
        decode_graphs=not (option("disable_cuda_graph") or option("disable_decode_cuda_graph"))
        and disaggregation != "prefill",
        prefill_graphs=_captures_prefill(traits, workload, pipeline) and disaggregation != "decode",
        num_prefill_graphs=_prefill_graphs(model, traits, workload, chunk, deepep=deepep),
        max_running_requests=max_running,
        draft_tokens=draft_tokens,
        disaggregation=disaggregation,
        deepep=deepep,
    )
    return load, chunk


def _graphs_for_running(graph: int, max_running: int, traits: Traits, device: Device | None) -> int:
    """Return the largest decode graph once running requests are limited (qwen3_vl.py grows it)."""
    if max_running < graph:
        return max_running
    if _is_qwen3_vl_on_hopper(traits, device) and max_running <= 512:
        return max_running
    return graph


def _decode_backend(workload: Workload, traits: Traits, device: Device | None) -> str:
    asked = str(workload.option("decode_attention_backend") or "")
    if asked or workload.option("attention_backend") or not _is_qwen3_vl_on_hopper(traits, device):
        return asked
    return "flashinfer"


def _is_qwen3_vl_on_hopper(traits: Traits, device: Device | None) -> bool:
    return (
        traits.architecture in ("Qwen3VLForConditionalGeneration", "Qwen3VLMoeForConditionalGeneration")
        and device is not None
        and platform_of(device).is_sm90
        and device.memory_bytes / MIB >= 60 * 1024
    )


def _captures_prefill(traits: Traits, workload: Workload, pipeline: int) -> bool:
    """Tell whether prefill is captured when the reserve is worked out (cuda_graph_hook.py)."""
    option = workload.option
    if option("disable_cuda_graph") or option("disable_prefill_cuda_graph"):
        return False
    if pipeline > 1 or traits.is_compressed or (_int(option("dcp_size")) or 1) > 1:
        return False
    if traits.has_kimi_delta and not traits.architecture.startswith("Glm5Next"):
        return False
    if option("enable_two_batch_overlap") or (_int(option("attn_cp_size")) or 1) > 1:
        return False
    if str(option("moe_a2a_backend") or "none") not in A2A_WITH_PREFILL_GRAPHS:
        return False
    return not traits.is_multimodal or traits.captures_multimodal


def _prefill_graphs(
    model: ModelSpec, traits: Traits, workload: Workload, chunk: int, *, deepep: bool
) -> int:
    if deepep:
        # Buckets of up to 2,048 tokens, rounded to multiples of 8: 4, 12, 20 and 28 merge upwards.
        return num_prefill_graphs(2048) - 4
    limit = _int(workload.option("cuda_graph_max_bs_prefill"))
    if limit is None:
        limit = min(MLA_MAX_PREFILL_GRAPH, chunk) if traits.is_latent else chunk
        total = _int(workload.option("max_total_tokens"))
        limit = limit if total is None else min(limit, total)
        if "llama-2" in (model.repo or model.name).casefold():
            limit = min(limit, 4096)
    return num_prefill_graphs(limit)


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
    explicit = _int(workload.option("attn_dp_size"))
    if explicit:
        return explicit
    return (_int(workload.option("dp_size")) or 1) if workload.option("enable_dp_attention") else 1


def _expert_ranks(workload: Workload, tensor: int) -> int:
    if workload.option("moe_a2a_backend") == "deepep" or workload.option("enable_deepep_moe"):
        return tensor
    return max(1, _int(workload.option("ep_size")) or 1)


def _draft_tokens(workload: Workload, algorithm: str) -> int:
    """Return speculative_num_draft_tokens: the flag, else one more than the steps."""
    if not algorithm:
        return 0
    asked = _int(workload.option("speculative_num_draft_tokens"))
    if asked:
        return asked
    steps = _int(workload.option("speculative_num_steps"))
    return DRAFT_TOKENS.get(algorithm) or (steps + 1 if steps else 4)


def _draft_layers(workload: Workload, traits: Traits, algorithm: str) -> int:
    """Return the layers a draft head adds to the pool; a draft model's own are not known here."""
    if algorithm not in ("EAGLE", "EAGLE3", "STANDALONE"):
        return 0
    if workload.option("speculative_draft_model_path"):
        return 1
    return traits.num_nextn_predict_layers


def _swa_ratio(workload: Workload, traits: Traits) -> float:
    asked = workload.option("swa_full_tokens_ratio")
    if isinstance(asked, int | float) and not isinstance(asked, bool):
        return float(asked)
    if traits.is_compressed:
        return COMPRESSED_SWA_RATIO
    return INKLING_RATIO if traits.architecture.startswith("Inkling") else DEFAULT_SWA_RATIO


def _mamba_ratio(workload: Workload, traits: Traits) -> float:
    asked = workload.option("mamba_full_memory_ratio")
    if isinstance(asked, int | float) and not isinstance(asked, bool):
        return float(asked)
    return INKLING_RATIO if traits.architecture.startswith("Inkling") else DEFAULT_MAMBA_RATIO


def _slots_per_request(workload: Workload, traits: Traits, *, radix_cache: bool, overlap: bool) -> int:
    """Return _calculate_mamba_ratio: 3 states, and a ping-pong pair or half of it where one is kept."""
    if not traits.has_states or not radix_cache:
        return 1
    strategy = str(workload.option("mamba_radix_cache_strategy") or "auto")
    page = _int(workload.option("page_size")) or 1
    if strategy == "auto":
        linear = str(workload.option("linear_attn_backend") or "triton")
        wanted = not workload.option("disable_overlap_schedule") or page > 1
        strategy = "extra_buffer" if wanted and traits.extra_buffer and linear == "triton" else "no_buffer"
    if strategy == "no_buffer":
        return 3
    return 4 if strategy == "extra_buffer_lazy" or not overlap else 5


def _ssm_dtype(workload: Workload, model: ModelSpec, traits: Traits) -> str:
    """Return the state's dtype: the flag, the config's, else float32; KDA reads no config."""
    asked = workload.option("mamba_ssm_dtype")
    if isinstance(asked, str) and asked in SSM_DTYPES:
        return asked
    if traits.has_kimi_delta or model.structure.ssm_dtype not in SSM_DTYPES:
        return "float32"
    return model.structure.ssm_dtype


def _model_dtype(model: ModelSpec) -> str:
    """Return the dtype the model runs in: fp32 checkpoints are served in 16 bits (model_config.py)."""
    return model.dtype if model.dtype in ("float16", "bfloat16") else "float16"


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
    if _is_qwen3_vl_on_hopper(traits, device) and platform.is_sm90:
        return 3 * 1024 if max_running is not None and max_running >= 400 else 1024
    return 100


def _int(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
