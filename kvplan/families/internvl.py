"""InternVL: InternViT behind pixel shuffling, in transformers' layout and in its own.

Source: transformers 5.23 models/internvl, qianfan_ocr; OpenGVLab's modeling_internvl_chat.py.
"""

from dataclasses import replace

from kvplan.blocks.vision import as_vision, intern_vit
from kvplan.config import Config
from kvplan.families.reading import joined, parts, text_structure
from kvplan.families.seeing import PROJECTOR, two_layers
from kvplan.model import Structure
from kvplan.tensors import Tensor, norm


def internvl(config: Config) -> Structure:
    """Read InternVL in transformers' own form: InternViT, pixels shuffled, a normed projector."""
    return joined(config, "qwen2", intern_vit, _intern_projector, tied=True)


def qianfan_ocr(config: Config) -> Structure:
    """Read Qianfan-OCR: InternVL's parts before Qwen3, a head of its own by default."""
    return joined(config, "qwen3", intern_vit, _intern_projector, tied=False)


def internvl_chat(config: Config) -> Structure:
    """Read InternVL as its makers publish it: ``llm_config`` beside ``vision_config``."""
    text, vision = parts(config, "llm_config")
    structure = text_structure(text, text.text("model_type"))
    seen = (
        *intern_vit(vision),
        *as_vision(_intern_projector(config, vision, structure.hidden_size), "projector"),
    )
    return replace(structure, tensors=(*structure.tensors, *seen))


def _intern_projector(config: Config, vision: Config, size: int) -> tuple[Tensor, ...]:
    ratio = config.number("downsample_ratio", 0.5)
    if not 0 < ratio <= 1:
        raise config.invalid("downsample_ratio", f"is {ratio:g}")
    joined = vision.positive("hidden_size", 1024) * int(1 / ratio) ** 2
    return (*norm(f"{PROJECTOR}.layer_norm", joined, bias=True), *two_layers(size, joined))
