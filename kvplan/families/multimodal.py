"""Text models with eyes or ears: the nested text config, a tower and a projector beside it.

The text part is read by its own family through the registry; here are the towers and projectors.
transformers 5.23: models/gemma3, llava, mistral3.
"""

from dataclasses import replace

from kvplan.config import Config
from kvplan.errors import UnsupportedArchitecture
from kvplan.families.reading import text_structure
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear
from kvplan.vision import clip, siglip

# transformers 5.23 LlamaConfig and LlavaConfig: what LLaVA-1.5's file leaves out.
LLAMA_DEFAULTS = {
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 32_000,
    "max_position_embeddings": 2048,
}
LLAVA_CLIP_DEFAULTS = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}


def with_tensors(structure: Structure, extra: tuple[Tensor, ...]) -> Structure:
    """Return the text structure with more tensors outside its layers."""
    return replace(structure, tensors=(*structure.tensors, *extra))


def gemma3(config: Config) -> Structure:
    """Read Gemma 3 with its SigLIP tower; the text config omits what its class defaults say."""
    text = config.sub("text_config")
    vision = config.sub("vision_config")
    if text is None:
        raise config.invalid("text_config", "is missing")
    structure = text_structure(text, "gemma3_text")
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


def llava(config: Config) -> Structure:
    """Read LLaVA: a CLIP (or SigLIP) tower and a two-layer projector before any text model."""
    text, vision = config.sub("text_config"), config.sub("vision_config")
    if text is None or vision is None:
        raise config.invalid("text_config" if text is None else "vision_config", "is missing")
    text_type = text.text("model_type", "llama")
    if text_type == "llama":
        text = text.with_defaults(LLAMA_DEFAULTS)
    structure = text_structure(text, text_type)
    vision = vision.with_defaults(LLAVA_CLIP_DEFAULTS)
    kind = vision.text("model_type", "clip_vision_model")
    if kind == "clip_vision_model":
        tower = clip(vision)
    elif kind == "siglip_vision_model":
        tower = siglip(vision)
    else:
        raise UnsupportedArchitecture(
            f"{config.origin}: vision tower '{kind}' is not known",
            why="its weights could be any size",
            hint="plan the text model alone, or report the model",
        )
    width, hidden = vision.positive("hidden_size"), structure.hidden_size
    bias = config.flag("multimodal_projector_bias", True)
    projector = (
        *linear("multi_modal_projector.linear_1", hidden, width, "projector", bias=bias),
        *linear("multi_modal_projector.linear_2", hidden, hidden, "projector", bias=bias),
    )
    return with_tensors(structure, (*tower, *projector))
