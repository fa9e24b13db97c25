"""Kimi-VL, Kimi K2.5 and later: a MoonViT tower with learned positions before a DeepSeek-V3 shaped text.

Source: the modeling file of moonshotai/Kimi-K2.5 (modeling_kimi_k25.py), whose tensor count it
reproduces; Kimi-VL's tower and projector are the same (vLLM 0.33 models/kimi_vl.py).
"""

from dataclasses import replace

from kvplan.blocks.vision import as_vision
from kvplan.config import Config
from kvplan.families.reading import text_structure
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear, norm, repeat


def kimi_k25(config: Config) -> Structure:
    """Read Kimi-VL, Kimi K2.5, K2.6 and K2.7 from their nested configs."""
    text, vision = config.sub("text_config"), config.sub("vision_config")
    if text is None:
        raise config.invalid("text_config", "is missing")
    if config.has("tie_word_embeddings"):
        text = text.override({"tie_word_embeddings": config.flag("tie_word_embeddings")})
    structure = text_structure(text, text.text("model_type", "kimi_k2"))
    if vision is None:
        return structure
    normed = config.integer("projection_hidden_size", None)
    seen = _tower(vision, structure.hidden_size, normed)
    return replace(structure, tensors=(*structure.tensors, *seen))


def kimi_k3(config: Config) -> Structure:
    """Read Kimi K3: Kimi-Linear's hybrid text model, a tower with RMSNorms and fewer biases."""
    text, vision = config.sub("text_config"), config.sub("vision_config")
    if text is None:
        raise config.invalid("text_config", "is missing")
    if config.has("tie_word_embeddings"):
        text = text.override({"tie_word_embeddings": config.flag("tie_word_embeddings")})
    structure = text_structure(text, text.text("model_type", "kimi_linear"))
    if vision is None:
        return structure
    return replace(
        structure,
        tensors=(*structure.tensors, *_k3_tower(vision, structure.hidden_size)),
        assumptions=(*structure.assumptions, "the vision tower is sized from its config alone"),
    )


def _k3_tower(config: Config, text_hidden: int) -> tuple[Tensor, ...]:
    hidden, width = config.positive("vt_hidden_size", 1024), config.positive("vt_intermediate_size", 4096)
    rows = config.positive("qkv_hidden_size", hidden)
    bias, attn_bias = config.flag("linear_bias", False), config.flag("attn_bias", False)
    patch, patch_bias = config.positive("patch_size", 14), config.flag("patch_embed_proj_bias", False)
    high, wide = config.positive("init_pos_emb_height", 64), config.positive("init_pos_emb_width", 64)
    merge = config.integers("merge_kernel_size") or (2, 2)
    if len(merge) != 2 or min(merge) < 1:
        raise config.invalid("merge_kernel_size", "is not two sizes")
    merged, out = hidden * merge[0] * merge[1], config.positive("text_hidden_size", text_hidden)
    block = (
        *norm("norm0", hidden),
        *norm("norm1", hidden),
        *linear("wqkv", 3 * rows, hidden, "vision", bias=attn_bias),
        *linear("wo", hidden, rows, "vision", bias=attn_bias),
        *linear("mlp.fc0", width, hidden, "vision", bias=bias),
        *linear("mlp.fc1", hidden, width, "vision", bias=bias),
    )
    tower = (
        Tensor("patch_embed.proj.weight", (hidden, 3, patch, patch), "vision"),
        *((Tensor("patch_embed.proj.bias", (hidden,), "vision"),) if patch_bias else ()),
        Tensor("patch_embed.pos_emb.weight", (high, wide, hidden), "vision"),
        *repeat(block, config.layers("vt_num_hidden_layers", 27)),
        *norm("encoder.final_layernorm", hidden),
    )
    projector = (
        *norm("mm_projector.pre_norm", hidden),
        *linear("mm_projector.proj.0", merged, merged, "projector", bias=bias),
        *linear("mm_projector.proj.2", out, merged, "projector", bias=bias),
    )
    return (*as_vision(tower), *as_vision(projector, "projector"))


def _tower(config: Config, text_hidden: int, normed: int | None) -> tuple[Tensor, ...]:
    hidden = config.positive("vt_hidden_size", config.positive("hidden_size", 1152))
    width = config.positive("vt_intermediate_size", config.positive("intermediate_size", 4304))
    depth = config.layers("vt_num_hidden_layers", config.layers(default=27))
    patch = config.positive("patch_size", 14)
    high, wide = (
        config.positive("init_pos_emb_height", 64),
        config.positive("init_pos_emb_width", 64),
    )
    merge = config.integers("merge_kernel_size") or (2, 2)
    if len(merge) != 2 or min(merge) < 1:
        raise config.invalid("merge_kernel_size", "is not two sizes")
    merged = hidden * merge[0] * merge[1]
    out = config.positive("text_hidden_size", text_hidden)
    block = (
        *norm("norm0", hidden, bias=True),
        *norm("norm1", hidden, bias=True),
        *linear("wqkv", 3 * hidden, hidden, "vision", bias=True),
        *linear("wo", hidden, hidden, "vision", bias=True),
        *linear("mlp.fc0", width, hidden, "vision", bias=True),
        *linear("mlp.fc1", hidden, width, "vision", bias=True),
    )
    return (
        *as_vision(
            (
                Tensor("patch_embed.proj.weight", (hidden, 3, patch, patch), "vision"),
                Tensor("patch_embed.proj.bias", (hidden,), "vision"),
                Tensor("patch_embed.pos_emb.weight", (high, wide, hidden), "vision"),
                *repeat(block, depth),
                *norm("encoder.final_layernorm", hidden, bias=True),
            )
        ),
        *as_vision(
            (
                *norm("mm_projector.pre_norm", normed or hidden, bias=True),
                *linear("mm_projector.proj.0", merged, merged, "projector", bias=True),
                *linear("mm_projector.proj.2", out, merged, "projector", bias=True),
            ),
            "projector",
        ),
    )
