"""The towers that multimodal models carry beside their text: SigLIP, CLIP, Pixtral, InternViT.

Their weights count; they cache nothing between tokens. transformers 5.23 models/siglip, siglip2,
clip, pixtral, internvl; InternViT from its own repository (modeling_intern_vit.py).
"""

from collections.abc import Callable

from kvplan.blocks.transformer import attention, gated_mlp
from kvplan.config import Config
from kvplan.errors import UnsupportedArchitecture
from kvplan.tensors import Role, Tensor, linear, norm, repeat, with_role


def encoder_layer(hidden_size: int, intermediate_size: int, *, bias: bool = True) -> tuple[Tensor, ...]:
    """Return one pre-norm encoder layer: biased q, k, v, o, an ungated MLP, two LayerNorms."""
    attention = tuple(
        tensor
        for name in ("q_proj", "k_proj", "v_proj", "out_proj")
        for tensor in linear(f"self_attn.{name}", hidden_size, hidden_size, "vision", bias=bias)
    )
    return (
        *attention,
        *linear("mlp.fc1", intermediate_size, hidden_size, "vision", bias=bias),
        *linear("mlp.fc2", hidden_size, intermediate_size, "vision", bias=bias),
        *norm("layer_norm1", hidden_size, bias=True),
        *norm("layer_norm2", hidden_size, bias=True),
    )


def siglip(config: Config) -> tuple[Tensor, ...]:
    """Return SigLIP: patches, positions, layers, one last norm, and the pooling head.

    The head is there unless the file says ``vision_use_head: false``, as most models' files do.
    """
    return as_vision(
        (*siglip_encoder(config), *(siglip_head(config) if config.flag("vision_use_head", True) else ()))
    )


def siglip2(config: Config) -> tuple[Tensor, ...]:
    """Return SigLIP 2's NaFlex tower: patches of any number, ``num_patches`` learned positions."""
    hidden, patch = config.positive("hidden_size", 768), config.positive("patch_size", 16)
    pixels = config.positive("num_channels", 3) * patch * patch
    return as_vision(
        (
            *linear("embeddings.patch_embedding", hidden, pixels, "vision", bias=True),
            Tensor(
                "embeddings.position_embedding.weight",
                (config.positive("num_patches", 256), hidden),
                "vision",
            ),
            *_siglip_layers(config),
            *(siglip_head(config) if config.flag("vision_use_head", True) else ()),
        )
    )


def siglip_head(config: Config) -> tuple[Tensor, ...]:
    """Return SigLIP's pooling: a probe, one attention over the patches, an MLP."""
    hidden, width = config.positive("hidden_size", 768), config.positive("intermediate_size", 3072)
    return (
        Tensor("head.probe", (1, 1, hidden), "vision"),
        Tensor("head.attention.in_proj_weight", (3 * hidden, hidden), "vision"),
        Tensor("head.attention.in_proj_bias", (3 * hidden,), "vision"),
        *linear("head.attention.out_proj", hidden, hidden, "vision", bias=True),
        *norm("head.layernorm", hidden, bias=True),
        *linear("head.mlp.fc1", width, hidden, "vision", bias=True),
        *linear("head.mlp.fc2", hidden, width, "vision", bias=True),
    )


def _siglip_layers(config: Config) -> tuple[Tensor, ...]:
    hidden, width = config.positive("hidden_size", 768), config.positive("intermediate_size", 3072)
    layers = repeat(encoder_layer(hidden, width), config.layers(default=12))
    return (*layers, *norm("post_layernorm", hidden, bias=True))


def siglip_encoder(config: Config) -> tuple[Tensor, ...]:
    """Return SigLIP without its pooling head, as Idefics 3 and MiniCPM-V use it."""
    hidden = config.positive("hidden_size", 768)
    patch = config.positive("patch_size", 16)
    num_patches = (config.positive("image_size", 224) // patch) ** 2
    return as_vision(
        (
            *_patches(hidden, config.positive("num_channels", 3), patch, bias=True),
            Tensor("embeddings.position_embedding.weight", (num_patches, hidden), "vision"),
            *_siglip_layers(config),
        )
    )


def clip(config: Config) -> tuple[Tensor, ...]:
    """Return CLIP's vision model: a class token, patches without bias, norms before and after."""
    hidden = config.positive("hidden_size", 768)
    patch = config.positive("patch_size", 32)
    num_patches = (config.positive("image_size", 224) // patch) ** 2
    layers = repeat(
        encoder_layer(hidden, config.positive("intermediate_size", 3072)), config.layers(default=12)
    )
    return as_vision(
        (
            Tensor("embeddings.class_embedding", (hidden,), "vision"),
            *_patches(hidden, config.positive("num_channels", 3), patch, bias=False),
            Tensor("embeddings.position_embedding.weight", (num_patches + 1, hidden), "vision"),
            *norm("pre_layrnorm", hidden, bias=True),
            *layers,
            *norm("post_layernorm", hidden, bias=True),
        )
    )


def pixtral(config: Config) -> tuple[Tensor, ...]:
    """Return Pixtral's tower: rotary positions, gated MLPs, RMSNorms, no biases.

    Source and defaults: transformers 5.23 models/pixtral.
    """
    hidden, width = config.positive("hidden_size", 1024), config.positive("intermediate_size", 4096)
    patch = config.positive("patch_size", 16)
    heads = config.heads(hidden, default=16)
    layer = (
        *attention(hidden, heads, heads, hidden // heads, name="attention"),
        *gated_mlp(hidden, width, name="feed_forward"),
        *norm("attention_norm", hidden),
        *norm("ffn_norm", hidden),
    )
    return as_vision(
        (
            Tensor("patch_conv.weight", (hidden, config.positive("num_channels", 3), patch, patch), "vision"),
            *norm("ln_pre", hidden),
            *repeat(layer, config.layers(default=24)),
        )
    )


def intern_vit(config: Config) -> tuple[Tensor, ...]:
    """Return InternViT: a class token, layer scales, q and k norms over all heads where stated.

    Reads both spellings: transformers' (``use_qk_norm``, ``attention_bias``) and the original's
    (``qk_normalization``, ``qkv_bias``).
    """
    hidden, width = config.positive("hidden_size", 1024), config.positive("intermediate_size", 4096)
    patch, image = _side(config, "patch_size", 14), _side(config, "image_size", 448)
    num_positions = (image // patch) ** 2 + 1
    bias = config.flag("attention_bias", config.flag("qkv_bias", False))
    layer_norm = config.text("norm_type", "layer_norm") == "layer_norm"
    qk_norm = config.flag("use_qk_norm", config.flag("qk_normalization", False))
    layer = (
        Tensor("lambda_1", (hidden,), "vision"),
        Tensor("lambda_2", (hidden,), "vision"),
        *linear("attention.qkv", 3 * hidden, hidden, "vision", bias=bias),
        *linear("attention.projection_layer", hidden, hidden, "vision", bias=True),
        *((*norm("attention.q_norm", hidden), *norm("attention.k_norm", hidden)) if qk_norm else ()),
        *linear("mlp.fc1", width, hidden, "vision", bias=True),
        *linear("mlp.fc2", hidden, width, "vision", bias=True),
        *norm("layernorm_before", hidden, bias=layer_norm),
        *norm("layernorm_after", hidden, bias=layer_norm),
    )
    last = () if config.flag("use_mean_pooling", True) else norm("layernorm", hidden, bias=True)
    return as_vision(
        (
            Tensor("embeddings.cls_token", (1, 1, hidden), "vision"),
            Tensor("embeddings.position_embeddings", (1, num_positions, hidden), "vision"),
            *_patches(hidden, config.positive("num_channels", 3), patch, bias=True),
            *repeat(layer, config.layers(default=24)),
            *last,
        )
    )


def _side(config: Config, key: str, default: int) -> int:
    """Read a length that files give as a number or as two equal ones."""
    if not isinstance(config.raw(key), list):
        return config.positive(key, default)
    sides = config.integers(key) or ()
    if len(set(sides)) != 1 or min(sides) < 1:
        raise config.invalid(key, "is not a square")
    return sides[0]


# Towers by their config's own model_type.
TOWERS: dict[str, Callable[[Config], tuple[Tensor, ...]]] = {
    "clip_vision_model": clip,
    "siglip_vision_model": siglip,
    "siglip2_vision_model": siglip2,
    "pixtral": pixtral,
}


def tower_of(config: Config, default: str) -> tuple[Tensor, ...]:
    """Return the tower that the vision config's model_type names. Raises UnsupportedArchitecture."""
    kind = config.text("model_type", default)
    if kind not in TOWERS:
        raise UnsupportedArchitecture(
            f"{config.origin}: vision tower '{kind}' is not known",
            why="its weights could be any size",
            hint="plan the text model alone, or report the model",
        )
    return TOWERS[kind](config)


def _patches(hidden: int, channels: int, patch: int, *, bias: bool) -> tuple[Tensor, ...]:
    weight = Tensor("embeddings.patch_embedding.weight", (hidden, channels, patch, patch), "vision")
    return (weight, Tensor("embeddings.patch_embedding.bias", (hidden,), "vision")) if bias else (weight,)


def as_vision(tensors: tuple[Tensor, ...], role: Role = "vision") -> tuple[Tensor, ...]:
    """Return the tensors counted as part of the tower, norms included."""
    return with_role(tensors, role)
