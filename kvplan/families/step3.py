"""Step 3.5 and 3.7 (StepFun): more query heads in the windows, gates a head, shared experts.

Source: transformers 5.23 models/step3p7. Files on the Hub use the older keys that its configuration
still reads: ``attention_other_setting``, ``moe_layers_enum``, ``num_attention_groups``.
"""

from dataclasses import replace

from kvplan.blocks.attention_pattern import FULL, SLIDING, layer_types, unknown_layer_type, window_of
from kvplan.blocks.decoder import Shape, attention_cache, by_index, finish, shape_of
from kvplan.blocks.transformer import attention, experts, gated_mlp, router
from kvplan.blocks.vision import as_vision, encoder_layer
from kvplan.config import Config
from kvplan.layers import Layer
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear, norm, repeat

# Step3p7TextConfig: without a list, layers from the fourth on are routed.
NUM_DENSE = 3


def step3p5(config: Config) -> Structure:
    """Read the text model."""
    groups = config.raw("num_attention_groups")
    named = config.behind({"num_key_value_heads": groups}) if groups is not None else config
    shape = shape_of(named, head_dim=128)
    num_layers = shape.num_layers
    kinds = layer_types(config, num_layers) or (FULL,) * num_layers
    window = window_of(config, kinds)
    sparse = _sparse_layers(config, num_layers)
    in_window = replace(shape, num_attention_heads=_heads_in_window(config, shape))
    made: dict[tuple[str, bool], Layer] = {}

    def make(index: int) -> Layer:
        key = (kinds[index], sparse[index])
        if key not in made:
            own = in_window if kinds[index] == SLIDING else shape
            made[key] = _layer(config, own, kinds[index], window, is_sparse=sparse[index])
        return made[key]

    return finish(config, shape, by_index(num_layers, make), tied=False)


def _heads_in_window(config: Config, shape: Shape) -> int:
    heads = shape.num_attention_heads
    other = config.sub("attention_other_setting")
    if other is not None:
        heads = other.positive("num_attention_heads", heads)
    heads = config.positive("num_sliding_attention_heads", heads)
    if heads % shape.num_key_value_heads:
        raise config.invalid("num_sliding_attention_heads", f"is {heads}, which KV heads do not divide")
    return heads


def _sparse_layers(config: Config, num_layers: int) -> tuple[bool, ...]:
    kinds = config.per_layer("mlp_layer_types", num_layers)
    if kinds is not None:
        unknown = next((kind for kind in kinds if kind not in ("sparse", "dense")), None)
        if unknown is not None:
            raise unknown_layer_type(config, unknown)
        return tuple(kind == "sparse" for kind in kinds)
    listed = config.raw("moe_layers_enum")
    if listed is None:
        return tuple(index >= NUM_DENSE for index in range(num_layers))
    items = [part for part in listed.split(",") if part.strip()] if isinstance(listed, str) else None
    if items is not None and all(part.strip().isdecimal() for part in items):
        routed = {int(part) for part in items}
    elif items is None:
        routed = set(config.integers("moe_layers_enum") or ())
    else:
        raise config.invalid("moe_layers_enum", "is no list of layers")
    return tuple(index in routed for index in range(num_layers))


def _layer(config: Config, shape: Shape, kind: str, window: int, *, is_sparse: bool) -> Layer:
    hidden, head_dim = shape.hidden_size, shape.head_dim
    bias = config.flag("attention_bias", False)
    tensors: tuple[Tensor, ...] = (
        *attention(
            hidden,
            shape.num_attention_heads,
            shape.num_key_value_heads,
            head_dim,
            qkv_bias=bias,
            o_bias=bias,
        ),
        *norm("self_attn.q_norm", head_dim),
        *norm("self_attn.k_norm", head_dim),
        *linear("self_attn.g_proj", shape.num_attention_heads, hidden, "attention", split="out"),
        *norm("input_layernorm", hidden),
        *norm("post_attention_layernorm", hidden),
    )
    mlp_bias = config.flag("mlp_bias", False)
    if is_sparse:
        count = config.positive("n_routed_experts", config.positive("moe_num_experts", 288))
        active = config.positive("num_experts_per_tok", config.positive("moe_top_k", 8))
        if active > count:
            raise config.invalid("num_experts_per_tok", f"is {active}, more than {count} experts")
        shared = config.positive("share_expert_dim", config.positive("share_expert_dims", 1280))
        tensors += (
            *experts(hidden, config.positive("moe_intermediate_size", 1280), count, active),
            *router(hidden, count),
            *gated_mlp(hidden, shared, bias=mlp_bias, name="mlp.shared_experts", role="shared_expert"),
        )
    else:
        tensors += gated_mlp(hidden, config.positive("intermediate_size", 11_264), bias=mlp_bias)
    return Layer((attention_cache(shape, kind, window),), tensors)


def step3p7(config: Config) -> Structure:
    """Read Step 3.7: a tower with layer scales, two downsampling convolutions, one projection."""
    text, vision = config.sub("text_config"), config.sub("vision_config")
    if text is None:
        raise config.missing("text_config")
    tied = config.flag("tie_word_embeddings", False)
    structure = step3p5(_with_sizes(text).override({"tie_word_embeddings": tied}))
    seen = vision if vision is not None else config.with_only({})
    hidden = seen.positive("hidden_size", seen.positive("width", 1536))
    projector = linear(
        "multi_modal_projector",
        structure.hidden_size,
        4 * hidden,
        "projector",
        bias=config.flag("projector_bias", False),
    )
    return replace(structure, tensors=(*structure.tensors, *_tower(seen, hidden), *projector))


def _with_sizes(text: Config) -> Config:
    # Step3p7TextConfig: what a nested file may leave out.
    return text.behind(
        {
            "hidden_size": 4096,
            "num_hidden_layers": 45,
            "num_attention_heads": 64,
            "vocab_size": 128_815,
            "max_position_embeddings": 128_000,
        }
    ).behind({} if text.has("num_attention_groups") else {"num_key_value_heads": 8})


def _tower(config: Config, hidden: int) -> tuple[Tensor, ...]:
    width = int(hidden * config.number("mlp_ratio", 8960 / 1536))
    patch, channels = config.positive("patch_size", 14), config.positive("num_channels", 3)
    if width < 1:
        raise config.invalid("mlp_ratio", f"makes an MLP of {width}")
    layer = (
        Tensor("lambda_1", (hidden,), "vision"),
        Tensor("lambda_2", (hidden,), "vision"),
        *encoder_layer(hidden, width),
    )
    layers = config.layers(default=config.layers("layers", 47))
    return as_vision(
        (
            Tensor("embeddings.patch_embedding.weight", (hidden, channels, patch, patch), "vision"),
            Tensor(
                "embeddings.position_embedding.weight",
                (config.positive("max_position_embeddings", 2704), hidden),
                "vision",
            ),
            *norm("pre_layernorm", hidden, bias=True),
            *repeat(layer, layers),
            Tensor("downsampler1.weight", (2 * hidden, hidden, 3, 3), "vision"),
            Tensor("downsampler1.bias", (2 * hidden,), "vision"),
            Tensor("downsampler2.weight", (4 * hidden, 2 * hidden, 3, 3), "vision"),
            Tensor("downsampler2.bias", (4 * hidden,), "vision"),
        )
    )
