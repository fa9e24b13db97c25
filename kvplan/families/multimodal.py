"""Gemma 3 with eyes: the nested text config, a SigLIP tower and a projector beside it.

transformers 5.23 models/gemma3.
"""

from dataclasses import replace

from kvplan.blocks.vision import siglip
from kvplan.config import Config
from kvplan.families.reading import text_structure
from kvplan.model import Structure
from kvplan.tensors import Tensor


def with_tensors(structure: Structure, extra: tuple[Tensor, ...]) -> Structure:
    """Return the text structure with more tensors outside its layers."""
    return replace(structure, tensors=(*structure.tensors, *extra))


def shieldgemma2(config: Config) -> Structure:
    """Read ShieldGemma 2: Gemma 3, tied unless outer and text config both say otherwise."""
    text = config.sub("text_config") or config.with_only({})
    tied = config.flag("tie_word_embeddings", False) or text.flag("tie_word_embeddings", True)
    return gemma3(config.override({"tie_word_embeddings": tied}))


def gemma3(config: Config) -> Structure:
    """Read Gemma 3 with its SigLIP tower; the text config omits what its class defaults say."""
    text = config.sub("text_config")
    vision = config.sub("vision_config")
    if text is None:
        raise config.invalid("text_config", "is missing")
    tied = config.flag("tie_word_embeddings", True)
    structure = text_structure(text.override({"tie_word_embeddings": tied}), "gemma3_text")
    if vision is None:
        return structure
    hidden = vision.positive("hidden_size", 768)
    projector = (
        Tensor(
            "multi_modal_projector.mm_input_projection_weight", (hidden, structure.hidden_size), "projector"
        ),
        Tensor("multi_modal_projector.mm_soft_emb_norm.weight", (hidden,), "projector"),
    )
    return with_tensors(structure, (*siglip(vision), *projector))
