"""LMDeploy's two backends, by architecture: TurboMind where it has the model, else PyTorch.

LMDeploy 0.18 turbomind/supported_models.py (SUPPORTED_ARCHS), pytorch/models/module_map.py and
archs.py (autoget_backend: what TurboMind lacks falls back, with a warning).
"""

from typing import Literal

from kvplan.model import ModelSpec
from kvplan.weight_formats import weight_format

Backend = Literal["turbomind", "pytorch"]

TURBOMIND = frozenset((
    "Qwen2ForCausalLM", "Qwen2MoeForCausalLM", "Qwen2VLForConditionalGeneration",
    "Qwen2_5_VLForConditionalGeneration", "Qwen3ForCausalLM", "Qwen3MoeForCausalLM",
    "Qwen3_5ForConditionalGeneration", "Qwen3_5MoeForConditionalGeneration",
    "InternS2PreviewForConditionalGeneration", "InternS2MobiusForConditionalGeneration",
    "InternVLChatModel", "InternVLForConditionalGeneration", "InternS1ForConditionalGeneration",
    "LlamaForCausalLM", "InternLM2ForCausalLM", "InternLM3ForCausalLM", "Glm4MoeLiteForCausalLM",
    "GptOssForCausalLM", "MixtralForCausalLM",
))  # fmt: skip
PYTORCH = frozenset((
    "LlamaForCausalLM", "Llama4ForConditionalGeneration", "ChatGLMForConditionalGeneration",
    "ChatGLMModel", "Glm4ForCausalLM", "Glm4vForConditionalGeneration", "Glm4MoeForCausalLM",
    "Glm4MoeLiteForCausalLM", "GlmMoeDsaForCausalLM", "InternLM2ForCausalLM", "MistralForCausalLM",
    "MixtralForCausalLM", "GemmaForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM",
    "Gemma3ForConditionalGeneration", "DeepseekForCausalLM", "DeepseekV2ForCausalLM",
    "DeepseekV3ForCausalLM", "KimiK25ForConditionalGeneration", "Kimi_K25ForConditionalGeneration",
    "DeepseekV32ForCausalLM", "DeepseekV4ForCausalLM", "DeepseekVLV2ForCausalLM", "HYV3ForCausalLM",
    "LlavaForConditionalGeneration", "LlavaNextForConditionalGeneration", "Qwen2ForCausalLM",
    "Qwen2MoeForCausalLM", "Qwen3ForCausalLM", "Qwen3MoeForCausalLM",
    "Qwen2VLForConditionalGeneration", "Qwen2_5_VLForConditionalGeneration",
    "Qwen3VLForConditionalGeneration", "Qwen3VLMoeForConditionalGeneration",
    "Qwen3_5ForConditionalGeneration", "Qwen3_5MoeForConditionalGeneration",
    "InternS2PreviewForConditionalGeneration", "InternS2PreviewForCausalLM",
    "InternS2MobiusForCausalLM", "InternS1_1_ForConditionalGeneration", "MetaMoeForConditionalGeneration",
    "InternS2MobiusForConditionalGeneration", "Qwen3OmniMoeForConditionalGeneration",
    "Phi3ForCausalLM", "CogVLMForCausalLM", "InternVLChatModel", "InternVLForConditionalGeneration",
    "InternS1ForConditionalGeneration", "InternS1ProForConditionalGeneration", "Phi3VForCausalLM",
    "PhiMoEForCausalLM", "MiniCPM3ForCausalLM", "MiniCPMV", "InternLM3ForCausalLM",
    "InternLM2ForRewardModel", "Qwen2ForRewardModel", "GptOssForCausalLM", "Qwen3NextForCausalLM",
    "SDARForCausalLM", "SDARMoeForCausalLM",
))  # fmt: skip

# Families that older versions served (REMOVED_MODEL_MAP).
REMOVED: dict[str, str] = {
    "InternLMForCausalLM": "InternLM",
    "QWenLMHeadModel": "Qwen and Qwen-VL",
    "BaiChuanForCausalLM": "Baichuan",
    "BaichuanForCausalLM": "Baichuan and Baichuan2",
    "Starcoder2ForCausalLM": "StarCoder2",
    "InternLM2VEForCausalLM": "Mono-InternVL",
    "MllamaForConditionalGeneration": "mllama",
}
REMOVED_IN = (0, 18)


def backend_of(model: ModelSpec, asked: str, format_name: str) -> Backend:
    """Return the backend that serves the model: ``asked``, but PyTorch for what TurboMind lacks.

    TurboMind loads no SmoothQuant (8-bit integer) checkpoint either.
    """
    if asked == "pytorch" or weight_format(format_name).family == "int8":
        return "pytorch"
    return "turbomind" if model.architecture in TURBOMIND else "pytorch"


def not_served(model: ModelSpec, backend: Backend, version: tuple[int, ...]) -> str:
    """Return what LMDeploy stops with where the backend lacks the architecture, else nothing."""
    architecture = model.architecture
    if architecture in (TURBOMIND if backend == "turbomind" else PYTORCH):
        return ""
    family = REMOVED.get(architecture)
    if family is None:
        return f"Can not found rewrite for architectures: ['{architecture}']"
    if version < REMOVED_IN:
        return ""
    return f"{family} ({architecture}) support has been removed from LMDeploy."
