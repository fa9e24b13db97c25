"""Mistral 3: a Mistral or Ministral text model, a Pixtral tower, a projector that merges patches.

Mistral Small 3.1 and 3.2, Devstral Small 2, Ministral 3. Source: transformers 5.23 models/mistral3.
"""

from dataclasses import replace

from kvplan.blocks.vision import pixtral
from kvplan.config import Config
from kvplan.errors import UnsupportedArchitecture
from kvplan.families.reading import text_structure
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear


def mistral3(config: Config) -> Structure:
    """Read Mistral 3 from its nested ``text_config`` and ``vision_config``.

    The head is tied where the outer config says so, or else the inner. Where neither does, the
    checkpoints have a head of their own (Mistral Small 3.1), although the class would tie it.
    """
    text, vision = config.sub("text_config"), config.sub("vision_config")
    if text is None:
        raise config.invalid("text_config", "is missing")
    if config.has("tie_word_embeddings"):
        text = text.override({"tie_word_embeddings": config.flag("tie_word_embeddings")})
    structure = text_structure(text, text.text("model_type", "mistral"))
    if vision is None:
        return structure
    return replace(structure, tensors=(*structure.tensors, *_eyes(config, vision, structure.hidden_size)))


def mistral_large4(config: Config) -> Structure:
    """Read Mistral Large 4: Pixtral's tower and Mistral 3's projector; the outer config ties the head."""
    text = config.sub("text_config")
    kind = "mistral_large4_text" if text is None else text.text("model_type", "mistral_large4_text")
    tied = config.flag("tie_word_embeddings", False)
    vision = config.sub("vision_config")
    if text is None or vision is None:
        raise config.invalid("text_config" if text is None else "vision_config", "is missing")
    structure = text_structure(text.override({"tie_word_embeddings": tied}), kind)
    return replace(structure, tensors=(*structure.tensors, *_eyes(config, vision, structure.hidden_size)))


def ministral3(config: Config) -> Structure:
    """Read Ministral 3: the text model alone, or, in files that nest one, all of Mistral 3."""
    if config.has("text_config"):
        return mistral3(config)
    return text_structure(config, "ministral3_text")


def _eyes(config: Config, vision: Config, text_hidden: int) -> tuple[Tensor, ...]:
    kind = vision.text("model_type", "pixtral")
    if kind != "pixtral":
        raise UnsupportedArchitecture(
            f"{config.origin}: vision tower '{kind}' is not known",
            why="its weights could be any size",
            hint="plan the text model alone, or report the model",
        )
    hidden = vision.positive("hidden_size", 1024)
    merged = hidden * config.positive("spatial_merge_size", 2) ** 2
    taken = config.raw("vision_feature_layer")
    num_taken = len(taken) if isinstance(taken, list) else 1
    bias = config.flag("multimodal_projector_bias", False)
    name = "multi_modal_projector"
    return (
        *pixtral(vision),
        Tensor(f"{name}.norm.weight", (hidden,), "projector"),
        *linear(f"{name}.patch_merger.merging_layer", hidden, merged, "projector"),
        *linear(f"{name}.linear_1", text_hidden, hidden * num_taken, "projector", bias=bias),
        *linear(f"{name}.linear_2", text_hidden, text_hidden, "projector", bias=bias),
    )
