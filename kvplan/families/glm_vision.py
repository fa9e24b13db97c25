"""GLM-4.1V, GLM-4.5V, GLM-4.6V and GLM-OCR: a ViT with gated MLPs and a downsampling merger before text.

Source: transformers 5.23 models/glm4v, models/glm4v_moe, models/glm_ocr.
"""

from collections.abc import Callable
from dataclasses import replace

from kvplan.blocks.vision import as_vision
from kvplan.config import Config
from kvplan.families.reading import text_structure
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear, norm, repeat


def glm4v(config: Config) -> Structure:
    """Read GLM-4.1V; its text is GLM-4-0414's with biased q, k and v whatever the file says."""
    return _seeing(config, "glm4v_text", {"attention_bias": True})


def glm4v_moe(config: Config) -> Structure:
    """Read GLM-4.5V and 4.6V, whose text is GLM-4.5's with experts."""
    return _seeing(config, "glm4v_moe_text", {})


def glm_ocr(config: Config) -> Structure:
    """Read GLM-OCR: GLM-4-0414's layers without biases, norms on the tower's heads, no positions."""
    return _seeing(config, "glm_ocr_text", {}, _ocr_tower)


def glm_ocr_text(config: Config) -> Structure:
    """Read GLM-OCR's text model, whose class has no biases and no size of a head by default."""
    size = max(1, config.positive("hidden_size") // config.positive("num_attention_heads"))
    return text_structure(config.behind({"head_dim": size}).override({"attention_bias": False}), "glm4")


def _seeing(
    config: Config,
    text_type: str,
    fixed: dict[str, object],
    tower: Callable[[Config], tuple[Tensor, ...]] | None = None,
) -> Structure:
    text, vision = config.sub("text_config"), config.sub("vision_config")
    # GLM-4.1V's first files state the text model's keys flat, beside vision_config.
    text = config if text is None else text
    tied = config.flag("tie_word_embeddings", False) or text.flag("tie_word_embeddings", False)
    structure = text_structure(text.override({**fixed, "tie_word_embeddings": tied}), text_type)
    if vision is None:
        return structure
    return replace(structure, tensors=(*structure.tensors, *(tower or _tower)(vision)))


def _tower(config: Config) -> tuple[Tensor, ...]:
    hidden, out = config.positive("hidden_size", 1536), config.positive("out_hidden_size", 4096)
    patch, merge = config.positive("patch_size", 14), config.positive("spatial_merge_size", 2)
    num_positions = (config.positive("image_size", 336) // patch) ** 2
    bias = config.flag("attention_bias", False)
    width = config.positive("intermediate_size", 13_696)
    # The tower's own MLP is as wide as its output; intermediate_size is the merger's.
    block = (
        *norm("norm1", hidden),
        *norm("norm2", hidden),
        *linear("attn.qkv", 3 * hidden, hidden, "vision", bias=bias),
        *linear("attn.proj", hidden, hidden, "vision"),
        *linear("mlp.gate_proj", out, hidden, "vision"),
        *linear("mlp.up_proj", out, hidden, "vision"),
        *linear("mlp.down_proj", hidden, out, "vision"),
    )
    channels, frames = config.positive("in_channels", 3), config.positive("temporal_patch_size", 2)
    return as_vision(
        (
            Tensor("embeddings.position_embedding.weight", (num_positions, hidden), "vision"),
            Tensor("patch_embed.proj.weight", (hidden, channels, frames, patch, patch), "vision"),
            Tensor("patch_embed.proj.bias", (hidden,), "vision"),
            *norm("post_conv_layernorm", hidden),
            *repeat(block, config.layers("depth", 24)),
            *norm("post_layernorm", hidden),
            Tensor("downsample.weight", (out, hidden, merge, merge), "vision"),
            Tensor("downsample.bias", (out,), "vision"),
            *linear("merger.proj", out, out, "vision"),
            *norm("merger.post_projection_norm", out, bias=True),
            *linear("merger.gate_proj", width, out, "vision"),
            *linear("merger.up_proj", width, out, "vision"),
            *linear("merger.down_proj", out, width, "vision"),
        )
    )


def _ocr_tower(config: Config) -> tuple[Tensor, ...]:
    hidden, out = config.positive("hidden_size", 1024), config.positive("out_hidden_size", 1536)
    heads = config.heads(hidden, "num_heads", 16)
    patch, merge = config.positive("patch_size", 14), config.positive("spatial_merge_size", 2)
    bias, width = config.flag("attention_bias", True), config.positive("intermediate_size", 4096)
    channels, frames = config.positive("in_channels", 3), config.positive("temporal_patch_size", 2)
    block = (
        *norm("norm1", hidden),
        *norm("norm2", hidden),
        *linear("attn.qkv", 3 * hidden, hidden, "vision", bias=bias),
        *linear("attn.proj", hidden, hidden, "vision", bias=bias),
        *norm("attn.q_norm", hidden // heads),
        *norm("attn.k_norm", hidden // heads),
        *linear("mlp.gate_proj", width, hidden, "vision", bias=bias),
        *linear("mlp.up_proj", width, hidden, "vision", bias=bias),
        *linear("mlp.down_proj", hidden, width, "vision", bias=bias),
    )
    merged = out * channels
    return as_vision(
        (
            Tensor("patch_embed.proj.weight", (hidden, channels, frames, patch, patch), "vision"),
            Tensor("patch_embed.proj.bias", (hidden,), "vision"),
            *repeat(block, config.layers("depth", 24)),
            *norm("post_layernorm", hidden),
            Tensor("downsample.weight", (out, hidden, merge, merge), "vision"),
            Tensor("downsample.bias", (out,), "vision"),
            *linear("merger.proj", out, out, "vision"),
            *norm("merger.post_projection_norm", out, bias=True),
            *linear("merger.gate_proj", merged, out, "vision"),
            *linear("merger.up_proj", merged, out, "vision"),
            *linear("merger.down_proj", out, merged, "vision"),
        )
    )
