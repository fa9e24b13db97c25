"""vLLM: model classes that a version no longer has.

vLLM 0.33 model_executor/models/registry.py ``_PREVIOUSLY_SUPPORTED_MODELS``, the text models of it. Such a
model runs on transformers' own class where that one is compatible, else the server refuses.
"""

from kvplan.engines.base import Notice
from kvplan.model import ModelSpec

# Class -> the last version that has it.
LAST_VERSION: dict[str, tuple[int, int]] = {
    **dict.fromkeys(("Phi3SmallForCausalLM",), (0, 9)),
    **dict.fromkeys(("MllamaForConditionalGeneration", "MotifForCausalLM", "Phi4FlashForCausalLM"), (0, 10)),
    **dict.fromkeys(("Phi4MultimodalForCausalLM",), (0, 12)),
    **dict.fromkeys(("JAISLMHeadModel",), (0, 22)),
    **dict.fromkeys(
        (
            "BaiChuanForCausalLM",
            "BaichuanForCausalLM",
            "BambaForCausalLM",
            "Dots1ForCausalLM",
            "InternLM2VEForCausalLM",
            "InternLMForCausalLM",
            "MiniMaxForCausalLM",
            "MiniMaxM1ForCausalLM",
            "MiniMaxText01ForCausalLM",
            "MiniMaxVL01ForConditionalGeneration",
            "QWenLMHeadModel",
            "QwenVLForConditionalGeneration",
            "XverseForCausalLM",
        ),
        (0, 23),
    ),
    **dict.fromkeys(
        ("AquilaForCausalLM", "AquilaModel", "AyaVisionForConditionalGeneration", "Grok1ModelForCausalLM"),
        (0, 24),
    ),
    **dict.fromkeys(("FuyuForCausalLM", "PersimmonForCausalLM", "TeleChatForCausalLM"), (0, 25)),
    **dict.fromkeys(("OuroForCausalLM", "Plamo2ForCausalLM"), (0, 26)),
    **dict.fromkeys(
        (
            "ArcticForCausalLM",
            "ChameleonForConditionalGeneration",
            "HCXVisionForCausalLM",
            "MPTForCausalLM",
            "MptForCausalLM",
            "RWForCausalLM",
            "StableLMEpochForCausalLM",
        ),
        (0, 28),
    ),
}


def class_notices(model: ModelSpec, version: tuple[int, int]) -> tuple[Notice, ...]:
    """Say that the version has no class of the model's any more."""
    last = LAST_VERSION.get(model.architecture)
    if last is None or version <= last:
        return ()
    text = (
        f"vLLM {last[0]}.{last[1]} was the last with {model.architecture}: "
        f"{version[0]}.{version[1]} runs transformers' class or refuses"
    )
    return (Notice("class-removed", text),)
