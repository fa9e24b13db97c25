"""What SGLang decides by a model's class and config before it sizes anything.

SGLang 0.5.23 srt/configs/model_config.py (multimodal classes, hybrid window classes, attention
sinks, dtype), srt/arg_groups/overrides.py (state caches with extra buffers, sparse latent classes)
and srt/arg_groups/cuda_graph_hook.py (classes whose prefill is not captured). Class names here are
the engine's own lists; sizes always come from the layers.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache

from kvplan.frozen import dataclass
from kvplan.layers import (
    RECURRENT_STATES,
    Cache,
    ChunkedAttention,
    CompressedAttention,
    FullAttention,
    KimiDeltaState,
    LatentAttention,
    SharedCache,
    SlidingWindow,
)
from kvplan.model import ModelSpec, cache_kinds

WINDOW_BEFORE_TOKEN = ("GptOss", "Gemma", "Mellum", "MuseGlimmer")
NESTED = ("thinker_config", "llm_config", "language_config", "text_config")

# is_hybrid_swa_model: windows get a pool of their own in these classes and in no other.
HYBRID_WINDOW_CLASSES = frozenset((
    "BeamForCausalLM", "Llama4ForConditionalGeneration", "DeepseekV4ForCausalLM", "GptOssForCausalLM",
    "GraniteSWAForCausalLM", "GraniteMoeSWAForCausalLM", "IQuestQ1ForCausalLM", "MiMoV2ForCausalLM",
    "MiMoV2FlashForCausalLM", "Step3p5ForCausalLM", "Step3p7ForConditionalGeneration",
    "Gemma4ForCausalLM", "Gemma4ForConditionalGeneration", "Gemma4UnifiedForConditionalGeneration",
    "DiffusionGemmaForBlockDiffusion", "LagunaForCausalLM", "MellumForCausalLM",
    "MuseGlimmerForCausalLM", "MuseGlimmerForConditionalGeneration", "InklingForConditionalGeneration",
    "UnlimitedOCRForCausalLM",
))  # fmt: skip
SINK_CLASSES = frozenset((
    "GptOssForCausalLM", "GraniteSWAForCausalLM", "GraniteMoeSWAForCausalLM", "IQuestQ1ForCausalLM",
))  # fmt: skip
MIMO_CLASSES = frozenset(("MiMoV2ForCausalLM", "MiMoV2FlashForCausalLM"))
# Multimodal unless --enable-multimodal is given: these are served as text models by default.
TEXT_BY_DEFAULT = frozenset((
    "Gemma3ForConditionalGeneration", "Llama4ForConditionalGeneration",
    "Step3VLForConditionalGeneration", "InklingForConditionalGeneration",
))  # fmt: skip
# multimodal_model_archs whose config has no nested text config; a nested one makes a model multimodal.
MULTIMODAL_CLASSES = frozenset((
    "CLIPModel", "DeepseekVL2ForCausalLM", "Grok1VForCausalLM", "Grok1AForCausalLM",
    "InternVLChatModel", "LlavaLlamaForCausalLM", "LlavaMistralForCausalLM", "LlavaQwenForCausalLM",
    "LlavaVidForCausalLM", "MiniCPMO", "MiniCPMV", "MultiModalityCausalLM", "Phi4MMForCausalLM",
    "Qwen2VLForConditionalGeneration", "Qwen2_5_VLForConditionalGeneration",
    "WhisperForConditionalGeneration",
    "MiniMaxM3SparseForConditionalGeneration", "DotsVLMForCausalLM", "DotsOCRForCausalLM",
    "PaddleOCRVLForConditionalGeneration", "MiDashengLMModel", "StepVLForConditionalGeneration",
    "Glm4vForConditionalGeneration", "Glm4vMoeForConditionalGeneration", "GlmOcrForConditionalGeneration",
    "Ernie4_5_VLMoeForConditionalGeneration", "LlavaForConditionalGeneration",
    "KimiVLForConditionalGeneration", "Mistral3ForConditionalGeneration",
    "PixtralForConditionalGeneration", "MllamaForConditionalGeneration",
    "Qwen2AudioForConditionalGeneration", "VoxtralForConditionalGeneration", "DeepseekOCRForCausalLM",
    "NemotronH_Nano_VL_V2", "POINTSV15ChatModel", "Sarashina2VisionForCausalLM",
    "NVILAForConditionalGeneration", "JetVLMForConditionalGeneration",
))  # fmt: skip
# is_multimodal_chunked_prefill_supported: these take a prompt whole.
WHOLE_PROMPT_CLASSES = frozenset((
    "Grok1VForCausalLM", "Grok1AForCausalLM", "LlavaLlamaForCausalLM", "MllamaForConditionalGeneration",
    "MossVLForConditionalGeneration", "CLIPModel",
))  # fmt: skip
# multimodal_breakable_cuda_graph_supported_model_archs: multimodal, and prefill is captured all the same.
CAPTURED_MULTIMODAL_CLASSES = frozenset((
    "MiniMaxM3SparseForConditionalGeneration", "Cohere2VisionForConditionalGeneration",
    "Glm5NextForConditionalGeneration", "InternS2MobiusForConditionalGeneration",
    "PaddleOCRVLForConditionalGeneration", "Qwen3_5ForConditionalGeneration",
    "Qwen3_5MoeForConditionalGeneration", "Qwen4ExpForConditionalGeneration",
    "MuseGlimmerForConditionalGeneration", "MuseSparkForConditionalGeneration",
    "KimiK3ForConditionalGeneration", "KimiK25ForConditionalGeneration", "MiniMaxM3SparseForCausalLM",
))  # fmt: skip
# _MAMBA_EXTRA_BUFFER_ARCHS: running requests keep two more states for the radix cache.
EXTRA_BUFFER_CLASSES = frozenset((
    "KimiLinearForCausalLM", "Qwen3_5ForConditionalGeneration", "Qwen3_5MoeForConditionalGeneration",
    "Qwen3_5MoeForCausalLM", "Qwen3_5ForCausalLM", "Qwen3NextForCausalLM",
    "Qwen4ExpForConditionalGeneration", "InternS2PreviewForConditionalGeneration",
    "MiniCPMV4_6ForConditionalGeneration", "MiniCPMV4_7ForConditionalGeneration",
    "BailingMoeV2_5ForCausalLM", "BailingMoeV3ForCausalLM", "BailingMoeV3VLForConditionalGeneration",
    "FalconH1ForCausalLM", "GraniteMoeHybridForCausalLM", "Glm5NextForConditionalGeneration",
    "NemotronHForCausalLM", "NemotronHPuzzleForCausalLM", "NemotronH_Omni_Reasoning_V3",
    "KimiK3ForConditionalGeneration", "InklingForConditionalGeneration",
))  # fmt: skip
# hf_config.vision_config of these classes fills what a config omits (transformers 5.23 class defaults).
VISION_DEFAULTS: dict[str, tuple[int | None, int]] = {
    "siglip_vision_model": (12, 768),
    "clip_vision_model": (12, 768),
    "pixtral": (24, 1024),
    "llama4_vision_model": (34, 768),
    "mllama_vision_model": (32, 1280),
    "internvl_vision": (24, 1024),
    "gemma4_vision": (16, 768),
    "gemma3n_vision": (None, 2048),
    "qwen2_vl": (None, 3584),
    "qwen2_5_vl": (None, 3584),
    "qwen3_vl": (None, 1152),
    "qwen3_vl_moe": (None, 1152),
    "qwen3_5": (None, 1152),
    "qwen3_5_moe": (None, 1152),
    "glm4v": (None, 1536),
    "glm4v_moe": (None, 1536),
}
# num_nextn_predict_layers of a config that omits it (num_mtp_layers of transformers 5.19's classes).
NEXTN_DEFAULTS: dict[str, int] = {
    "deepseek_v3": 1, "deepseek_v4": 1, "glm4_moe": 1, "glm5_next": 1, "hy_v4": 1, "longcat_flash": 1,
}  # fmt: skip
# Inkling keeps a tenth for its windows and its states alike.
INKLING_RATIO = 0.1
# What getattr falls back to where the vision config has no such field (memory_hook.py).
NO_VISION_LAYERS, NO_VISION_HIDDEN_SIZE = 24, 1024


@dataclass(frozen=True, slots=True)
class Traits:
    """A model as SGLang classifies it.

    ``vision`` is (layers, hidden size) of the vision tower as SGLang reads them, None without one.
    ``num_nextn_predict_layers`` is the target config's, 0 where it has none. ``sliding_window`` is
    the window its attention backend keeps: one less than the config's where the class says so.
    """

    architecture: str
    is_latent: bool
    is_sparse_latent: bool
    is_sparse_index: bool
    is_compressed: bool
    has_states: bool
    has_kimi_delta: bool
    has_windows: bool
    hybrid_windows: bool
    is_multimodal: bool
    vision: tuple[int, int] | None
    captures_multimodal: bool
    has_sinks: bool
    has_asymmetric_kv: bool
    extra_buffer: bool
    num_nextn_predict_layers: int
    sliding_window: int


@lru_cache(maxsize=512)
def traits_of(model: ModelSpec) -> Traits:
    """Classify a model by its class, its config and the kinds of its layers."""
    config: Mapping[str, object] = model.config or {}
    text = text_config(config)
    name = model.architecture
    caches = [cache for cache, _ in cache_kinds(model)]
    windows = [cache for cache in caches if isinstance(cache, SlidingWindow | ChunkedAttention)]
    shared = [cache.owner for cache in caches if isinstance(cache, SharedCache)]
    attention = [
        c for c in (*caches, *shared) if isinstance(c, FullAttention | SlidingWindow | ChunkedAttention)
    ]
    latent = [cache for cache in caches if isinstance(cache, LatentAttention)]
    return Traits(
        architecture=name,
        is_latent=bool(latent),
        is_sparse_latent=any(cache.index_head_dim for cache in latent),
        is_sparse_index=any(isinstance(c, FullAttention) and c.index_head_dim for c in caches),
        is_compressed=any(isinstance(cache, CompressedAttention) for cache in caches),
        has_states=any(isinstance(cache, RECURRENT_STATES) for cache in caches),
        has_kimi_delta=any(isinstance(cache, KimiDeltaState) for cache in caches),
        has_windows=bool(windows),
        hybrid_windows=name in HYBRID_WINDOW_CLASSES and bool(windows),
        is_multimodal=_is_multimodal(name, config),
        vision=_vision(config),
        captures_multimodal=name in CAPTURED_MULTIMODAL_CLASSES,
        has_sinks=name in SINK_CLASSES
        or (name in MIMO_CLASSES and bool(text.get("add_swa_attention_sink_bias"))),
        has_asymmetric_kv=any(cache.head_dim != cache.v_head_dim for cache in attention),
        extra_buffer=name in EXTRA_BUFFER_CLASSES,
        num_nextn_predict_layers=_whole(
            text.get("num_nextn_predict_layers", NEXTN_DEFAULTS.get(model.model_type, 0))
        ),
        sliding_window=_window(name, text, windows, caches),
    )


def text_config(config: Mapping[str, object]) -> Mapping[str, object]:
    """Return the part of a config that describes the language model (get_hf_text_config)."""
    for key in NESTED:
        part = config.get(key)
        if isinstance(part, Mapping):
            inner = part.get("text_config")
            return inner if isinstance(inner, Mapping) else part
    return config


def _is_multimodal(name: str, config: Mapping[str, object]) -> bool:
    if name in TEXT_BY_DEFAULT:
        return False
    return name in MULTIMODAL_CLASSES or text_config(config) is not config


def _vision(config: Mapping[str, object]) -> tuple[int, int] | None:
    part = config.get("vision_config")
    if not isinstance(part, Mapping):
        return None
    default_layers, default_hidden = VISION_DEFAULTS.get(
        str(part.get("model_type", "")), (None, NO_VISION_HIDDEN_SIZE)
    )
    layers = _first(part, ("num_hidden_layers", "vt_num_hidden_layers")) or default_layers
    hidden = _first(part, ("hidden_size", "vt_hidden_size")) or default_hidden
    return layers or NO_VISION_LAYERS, hidden


def _window(
    name: str,
    text: Mapping[str, object],
    windows: Sequence[SlidingWindow | ChunkedAttention],
    caches: Sequence[Cache],
) -> int:
    """Return the model class's get_attention_sliding_window_size.

    Some classes count the window without the token itself; Llama 4 keeps its chunk; MiMo's is the
    config's, which transformers makes one longer.
    """
    stated = _first(text, ("sliding_window_size", "sliding_window"))
    if name in MIMO_CLASSES and windows and stated:
        return stated
    for cache in caches:
        if isinstance(cache, CompressedAttention):
            return cache.sliding_window
    for window in windows:
        if isinstance(window, ChunkedAttention):
            return window.attention_chunk_size
        return window.sliding_window - (1 if name.startswith(WINDOW_BEFORE_TOKEN) else 0)
    return 0


def _first(part: Mapping[str, object], keys: tuple[str, ...]) -> int | None:
    for key in keys:
        value = part.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
