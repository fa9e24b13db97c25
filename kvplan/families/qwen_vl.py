"""Qwen's models with eyes: Qwen2-VL, Qwen2.5-VL, Qwen3-VL, Qwen3.5 and 3.6, dense and with experts.

The text part is read by its own family. Qwen2-VL's first files state the text model's keys flat,
beside ``vision_config``. Towers: transformers 5.23 models/qwen2_vl, qwen2_5_vl, qwen3_vl, qwen3_5
(the ``_moe`` classes have the same towers).
"""

from collections.abc import Callable
from dataclasses import replace

from kvplan.blocks.vision import as_vision
from kvplan.config import Config
from kvplan.families.reading import text_structure
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear, norm, repeat

Tower = Callable[[Config, int], tuple[Tensor, ...]]


def qwen2_vl(config: Config) -> Structure:
    """Read Qwen2-VL: a ViT with LayerNorms, its output as wide as ``vision_config.hidden_size``."""
    return _seeing(config, "qwen2_vl_text", _qwen2_tower, tied_by_text=True)


def qwen2_5_vl(config: Config) -> Structure:
    """Read Qwen2.5-VL: a ViT with RMSNorms and gated MLPs; windows there change no weights."""
    return _seeing(config, "qwen2_5_vl_text", qwen2_5_tower, tied_by_text=True)


def exaone4_5(config: Config) -> Structure:
    """Read EXAONE 4.5: Qwen2.5-VL's tower with grouped queries before EXAONE 4's layers."""
    return _seeing(config, "exaone4", _exaone_tower, tied_by_text=False)


def cosmos3_omni(config: Config) -> Structure:
    """Read Cosmos 3 (Omni), whose language side is Qwen3-VL."""
    return _seeing(config, "qwen3_vl_text", qwen3_tower, tied_by_text=False)


def qwen3_vl(config: Config) -> Structure:
    """Read Qwen3-VL: learned positions, and a merger for each layer that feeds the text's depths."""
    return _seeing(config, "qwen3_vl_text", qwen3_tower, tied_by_text=False)


def qwen3_vl_moe(config: Config) -> Structure:
    """Read Qwen3-VL with experts."""
    return _seeing(config, "qwen3_vl_moe_text", qwen3_tower, tied_by_text=False)


def qwen3_5(config: Config) -> Structure:
    """Read Qwen3.5 and 3.6: Qwen3-VL's tower without the deep mergers before a hybrid text model."""
    return _seeing(config, "qwen3_5_text", _qwen3_5_tower, tied_by_text=False)


def qwen3_5_moe(config: Config) -> Structure:
    """Read Qwen3.5 and 3.6 with experts."""
    return _seeing(config, "qwen3_5_moe_text", _qwen3_5_tower, tied_by_text=False)


def _seeing(config: Config, text_type: str, tower: Tower, *, tied_by_text: bool) -> Structure:
    """Join text and tower. The outer config ties the head; in older classes the inner one does too."""
    text, vision = config.sub("text_config"), config.sub("vision_config")
    tied = config.flag("tie_word_embeddings", False)
    if text is not None:
        inner = tied_by_text and text.flag("tie_word_embeddings", False)
        text = text.override({"tie_word_embeddings": tied or inner})
    structure = text_structure(config if text is None else text, text_type)
    if vision is None:
        return structure
    seen = as_vision(tower(vision, structure.hidden_size))
    return replace(structure, tensors=(*structure.tensors, *seen))


def _patches(config: Config, hidden: int, patch: int, *, bias: bool) -> tuple[Tensor, ...]:
    channels = config.positive("in_channels", config.positive("in_chans", 3))
    shape = (hidden, channels, config.positive("temporal_patch_size", 2), patch, patch)
    weight = Tensor("patch_embed.proj.weight", shape, "vision")
    return (weight, Tensor("patch_embed.proj.bias", (hidden,), "vision")) if bias else (weight,)


def _key_value_width(config: Config, hidden: int) -> int:
    """Return how wide keys are: EXAONE 4.5's tower has fewer heads for them than for queries."""
    if not config.has("num_key_value_heads"):
        return hidden
    heads, kv_heads = config.positive("num_heads", 16), config.positive("num_key_value_heads")
    if hidden % heads or heads % kv_heads:
        raise config.invalid("num_key_value_heads", f"is {kv_heads}, which does not divide {heads} heads")
    return hidden // heads * kv_heads


def _attention(hidden: int, key_value_width: int | None = None) -> tuple[Tensor, ...]:
    rows = hidden + 2 * (hidden if key_value_width is None else key_value_width)
    return (
        *linear("attn.qkv", rows, hidden, "vision", bias=True),
        *linear("attn.proj", hidden, hidden, "vision", bias=True),
    )


def _merged(config: Config, hidden: int) -> int:
    return hidden * config.positive("spatial_merge_size", 2) ** 2


def _qwen2_tower(config: Config, text_hidden: int) -> tuple[Tensor, ...]:
    hidden = config.positive("embed_dim", 1280)
    # The class reads this key as the width that leaves the tower, which is the text's.
    out = config.positive("hidden_size", text_hidden)
    width = int(hidden * config.number("mlp_ratio", 4.0))
    if width < 1:
        raise config.invalid("mlp_ratio", f"makes an MLP of {width}")
    merged = _merged(config, hidden)
    block = (
        *norm("norm1", hidden, bias=True),
        *norm("norm2", hidden, bias=True),
        *_attention(hidden),
        *linear("mlp.fc1", width, hidden, "vision", bias=True),
        *linear("mlp.fc2", hidden, width, "vision", bias=True),
    )
    return (
        *_patches(config, hidden, config.positive("patch_size", 14), bias=False),
        *repeat(block, config.layers("depth", 32)),
        *norm("merger.ln_q", hidden, bias=True),
        *linear("merger.mlp.0", merged, merged, "vision", bias=True),
        *linear("merger.mlp.2", out, merged, "vision", bias=True),
    )


def qwen2_5_tower(config: Config, text_hidden: int) -> tuple[Tensor, ...]:
    """Return Qwen2.5-VL's tower, which Qwen2.5-Omni shares."""
    hidden = config.positive("hidden_size", 3584)
    width = config.positive("intermediate_size", 3420)
    out, merged = config.positive("out_hidden_size", 3584), _merged(config, hidden)
    del text_hidden
    block = (
        *norm("norm1", hidden),
        *norm("norm2", hidden),
        *_attention(hidden, _key_value_width(config, hidden)),
        *linear("mlp.gate_proj", width, hidden, "vision", bias=True),
        *linear("mlp.up_proj", width, hidden, "vision", bias=True),
        *linear("mlp.down_proj", hidden, width, "vision", bias=True),
    )
    return (
        *_patches(config, hidden, config.positive("patch_size", 14), bias=False),
        *repeat(block, config.layers("depth", 32)),
        *norm("merger.ln_q", hidden),
        *linear("merger.mlp.0", merged, merged, "vision", bias=True),
        *linear("merger.mlp.2", out, merged, "vision", bias=True),
    )


def _exaone_tower(config: Config, text_hidden: int) -> tuple[Tensor, ...]:
    return qwen2_5_tower(config.behind({"num_key_value_heads": 8}), text_hidden)


def qwen3_tower(config: Config, text_hidden: int) -> tuple[Tensor, ...]:
    """Return Qwen3-VL's tower, which Qwen3-Omni shares."""
    merged = _merged(config, config.positive("hidden_size", 1152))
    deep = config.integers("deepstack_visual_indexes")
    num_deep = 3 if deep is None else len(deep)
    mergers = repeat(_merger(config, "deepstack_merger_list", merged, merged), num_deep) if num_deep else ()
    return (*_qwen3_5_tower(config, text_hidden), *mergers)


def _qwen3_5_tower(config: Config, text_hidden: int) -> tuple[Tensor, ...]:
    hidden, width = config.positive("hidden_size", 1152), config.positive("intermediate_size", 4304)
    del text_hidden
    block = (
        *norm("norm1", hidden, bias=True),
        *norm("norm2", hidden, bias=True),
        *_attention(hidden),
        *linear("mlp.linear_fc1", width, hidden, "vision", bias=True),
        *linear("mlp.linear_fc2", hidden, width, "vision", bias=True),
    )
    positions = (config.positive("num_position_embeddings", 2304), hidden)
    return (
        *_patches(config, hidden, config.positive("patch_size", 16), bias=True),
        Tensor("pos_embed.weight", positions, "vision"),
        *repeat(block, config.layers("depth", 27)),
        *_merger(config, "merger", hidden, _merged(config, hidden)),
    )


def _merger(config: Config, name: str, norm_size: int, merged: int) -> tuple[Tensor, ...]:
    out = config.positive("out_hidden_size", 3584)
    return (
        *norm(f"{name}.norm", norm_size, bias=True),
        *linear(f"{name}.linear_fc1", merged, merged, "vision", bias=True),
        *linear(f"{name}.linear_fc2", out, merged, "vision", bias=True),
    )
