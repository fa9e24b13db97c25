"""What a number format costs in quality, as published, with the source of each figure.

Figures are of one engine and one test and are never compared across engines. ``rank`` orders formats
where no common test exists: it follows the bits that are kept, and published figures within one
family. kvplan measures no quality itself.
"""

from typing import Literal

from kvplan.frozen import dataclass
from kvplan.weight_formats import weight_format

Tier = Literal["none", "small", "large"]


@dataclass(frozen=True, slots=True)
class Loss:
    """How far a format falls behind 16 bits: an order, a sentence, and who measured it.

    ``text`` is empty where no figure was found; ``source`` then too.
    """

    rank: int
    text: str = ""
    source: str = ""

    @property
    def tier(self) -> Tier:
        """Rough class: ``none`` at eight bits and more, ``small`` around four, ``large`` below."""
        return "none" if self.rank <= 4 else "small" if self.rank <= 10 else "large"


_GGUF = "llama.cpp tools/perplexity/README.md, Llama-3-8B against f16"


def _gguf(rank: int, delta: float) -> Loss:
    return Loss(rank, f"+{delta:g} perplexity", _GGUF)


NO_LOSS = Loss(0)
WEIGHTS: dict[str, Loss] = {
    "q8_0": _gguf(1, 0.0026),
    "int8": Loss(2),
    "fp8": Loss(2),
    "q6_k": _gguf(3, 0.0217),
    "q5_k_m": _gguf(4, 0.0569),
    "q5_k_s": _gguf(5, 0.1049),
    "q5_0": _gguf(6, 0.1316),
    "q5_1": _gguf(5, 0.1062),
    "q4_k_m": _gguf(7, 0.1754),
    "q4_k_s": _gguf(9, 0.2689),
    "awq": Loss(8),
    "gptq-int4": Loss(8),
    "nvfp4": Loss(8),
    "mxfp4": Loss(9),
    "nf4": Loss(9),
    "iq4_xs": Loss(9),
    "iq4_nl": Loss(9),
    "q4_1": _gguf(10, 0.4511),
    "q4_0": _gguf(10, 0.4685),
    "q3_k_l": _gguf(14, 0.5562),
    "q3_k_m": _gguf(16, 0.6569),
    "iq3_m": Loss(18),
    "iq3_xxs": Loss(22),
    "q3_k_s": _gguf(24, 1.6321),
    "iq2_m": Loss(40),
    "q2_k": _gguf(48, 3.5199),
}
# By the family's usual width, for formats that no table names.
_FAMILY_RANK: dict[str, int] = {
    "plain": 0,
    "fp8": 2,
    "int8": 2,
    "int4": 8,
    "bnb": 9,
    "fp4": 9,
    "exl": 9,
    "mlx": 9,
}

_SGLANG = "SGLang docs/advanced_features/quantized_kv_cache.md"
_TURBOQUANT = "vLLM vllm/model_executor/layers/quantization/turboquant/config.py"
KV: dict[str, dict[str, Loss]] = {
    "vllm": {
        "fp8": Loss(
            2,
            "none for most models, up to 4 points on hard reasoning sets",
            "vLLM's blog of 2026-04-22; AIME25 0.7733 to 0.7333 for Qwen3-235B in SGLang's docs",
        ),
        "turboquant_k8v4": Loss(5, "+1.17 % perplexity", _TURBOQUANT),
        "turboquant_4bit_nc": Loss(9, "+2.71 % perplexity", _TURBOQUANT),
        "turboquant_k3v4_nc": Loss(20, "+10.63 % perplexity", _TURBOQUANT),
        "turboquant_3bit_nc": Loss(40, "+20.59 % perplexity", _TURBOQUANT),
    },
    "sglang": {
        "fp8_e4m3": Loss(
            2, "none to 4 points: AIME25 0.7733 to 0.7333, GPQA 0.701 to 0.6899 (Qwen3-235B)", _SGLANG
        ),
    },
    "tensorrt-llm": {"fp8": Loss(2)},
    "lmdeploy": {"int8": Loss(2), "int4": Loss(9)},
    "tgi": {"fp8_e4m3fn": Loss(2)},
    "llama.cpp": {
        "q8_0": Loss(1, "+0.0046 perplexity", "llama.cpp PR 7412, Llama-3-8B"),
        "q5_1": Loss(3),
        "q4_0": Loss(9, "about +0.22 % perplexity with rotation", "llama.cpp PR 21038, Qwen3.5-4B"),
    },
    "ollama": {
        "q8_0": Loss(1, "+0.0046 perplexity", "llama.cpp PR 7412, Llama-3-8B"),
        "q4_0": Loss(9, "about +0.22 % perplexity with rotation", "llama.cpp PR 21038, Qwen3.5-4B"),
    },
    "ideal": {"fp8": Loss(2), "int4": Loss(9)},
    "transformers": {},
}


def weight_loss(name: str) -> Loss:
    """Return what a weight format costs; by its family where no table names it."""
    found = WEIGHTS.get(name)
    if found is not None:
        return found
    weight = weight_format(name)
    if weight.family == "gguf":
        return NO_LOSS if name.removeprefix("gguf-") in ("bf16", "f16", "f32") else Loss(24)
    if weight.family in ("mlx", "exl") and weight.bits >= 8:
        return Loss(2)
    return Loss(_FAMILY_RANK.get(weight.family, 9))


def kv_loss(engine_name: str, name: str) -> Loss:
    """Return what a cache format costs under an engine; by its name's bits where nobody measured."""
    found = KV.get(engine_name, {}).get(name)
    if found is not None:
        return found
    if "8" in name and "fp8_ds" not in name:
        return Loss(2)
    return Loss(9) if "4" in name else NO_LOSS
