"""ERNIE 4.5 VL: two sets of experts on each layer, one for text and one for images.

A token's kind picks the set; both are stored. Source: transformers 5.23 models/ernie4_5_vl_moe.
"""

from kvplan.blocks.attention_pattern import FULL, unknown_layer_type
from kvplan.blocks.decoder import attention_cache, by_index, finish, shape_of
from kvplan.blocks.routing import num_experts_of
from kvplan.blocks.transformer import attention, experts, gated_mlp, router
from kvplan.blocks.vision import as_vision
from kvplan.config import Config
from kvplan.families.reading import joined
from kvplan.layers import Layer
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear, norm, repeat


def ernie4_5_vl_moe_text(config: Config) -> Structure:
    """Read the text model: ``moe_intermediate_size`` is a pair, for text's experts and for images'."""
    shape, bias = shape_of(config), config.flag("use_bias", False)
    hidden = shape.hidden_size
    widths = config.integers("moe_intermediate_size") or (1536, 512)
    if len(widths) != 2 or min(widths) < 1:
        raise config.invalid("moe_intermediate_size", "is not a pair of sizes")
    num_experts, active = num_experts_of(config)
    shared = widths[0] * config.positive("moe_num_shared_experts", 2)
    text, image = (
        (
            *experts(hidden, width, num_experts, active, name=f"mlp.{kind}_moe.experts"),
            *router(hidden, num_experts, name=f"mlp.{kind}_moe.gate"),
            Tensor(f"mlp.{kind}_moe.gate.moe_statics.e_score_correction_bias", (1, num_experts), "router"),
        )
        for kind, width in zip(("text", "vision"), widths, strict=True)
    )
    routed = (
        *text,
        *image,
        *gated_mlp(hidden, shared, bias=bias, name="mlp.shared_experts", role="shared_expert"),
    )
    kinds = config.per_layer("mlp_layer_types", shape.num_layers) or (
        "dense",
        *("sparse",) * (shape.num_layers - 1),
    )
    unknown = next((kind for kind in kinds if kind not in ("sparse", "dense")), None)
    if unknown is not None:
        raise unknown_layer_type(config, unknown)
    own = (
        *attention(
            hidden,
            shape.num_attention_heads,
            shape.num_key_value_heads,
            shape.head_dim,
            qkv_bias=bias,
            o_bias=bias,
        ),
        *norm("input_layernorm", hidden),
        *norm("post_attention_layernorm", hidden),
    )
    cache = attention_cache(shape, FULL, 0)
    dense = gated_mlp(hidden, config.positive("intermediate_size"), bias=bias)

    def make(index: int) -> Layer:
        return Layer((cache,), (*own, *(routed if kinds[index] == "sparse" else dense)))

    return finish(config, shape, by_index(shape.num_layers, make), tied=True)


def ernie4_5_vl_moe(config: Config) -> Structure:
    """Read ERNIE 4.5 VL with its tower and the resampler that merges in space and time."""
    return joined(config, "ernie4_5_vl_moe_text", _tower, _resampler, tied=True)


def _tower(config: Config) -> tuple[Tensor, ...]:
    hidden, width = config.positive("hidden_size", 1280), config.positive("intermediate_size", 5120)
    pixels = config.positive("in_channels", 3) * config.positive("patch_size", 14) ** 2
    layer = (
        *norm("norm1", hidden, bias=True),
        *norm("norm2", hidden, bias=True),
        *linear("attn.qkv", 3 * hidden, hidden, "vision", bias=True),
        *linear("attn.proj", hidden, hidden, "vision", bias=True),
        *linear("mlp.fc1", width, hidden, "vision", bias=True),
        *linear("mlp.fc2", hidden, width, "vision", bias=True),
    )
    return as_vision(
        (
            *linear("patch_embed.proj", hidden, pixels, "vision"),
            *repeat(layer, config.layers("depth", 32)),
            *norm("ln", hidden, bias=True),
        )
    )


def _resampler(config: Config, vision: Config, size: int) -> tuple[Tensor, ...]:
    del config
    merged = vision.positive("hidden_size", 1280) * vision.positive("spatial_merge_size", 2) ** 2
    joined_frames = merged * vision.positive("temporal_merge_size", 2)
    return (
        *linear("spatial_linear.fc1", merged, merged, "projector", bias=True),
        *linear("spatial_linear.fc2", merged, merged, "projector", bias=True),
        *norm("spatial_linear.ln", merged, bias=True),
        *linear("temporal_linear.fc1", merged, joined_frames, "projector", bias=True),
        *linear("temporal_linear.fc2", merged, merged, "projector", bias=True),
        *norm("temporal_linear.ln", merged, bias=True),
        *linear("mlp", size, merged, "projector", bias=True),
        *norm("after_norm", size),
    )
