"""The towers that multimodal models carry beside their text: SigLIP, CLIP and Pixtral encoders.

Their weights count; they cache nothing between tokens. transformers 5.23 models/siglip,
models/clip, models/pixtral.
"""

from kvplan.blocks import attention, gated_mlp
from kvplan.config import Config
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
    """Return SigLIP without its pooling head: patches, positions, layers, one last norm."""
    hidden = config.positive("hidden_size", 768)
    patch = config.positive("patch_size", 16)
    num_patches = (config.positive("image_size", 224) // patch) ** 2
    layers = repeat(
        encoder_layer(hidden, config.positive("intermediate_size", 3072)), config.layers(default=12)
    )
    return as_vision(
        (
            *_patches(hidden, config.positive("num_channels", 3), patch, bias=True),
            Tensor("embeddings.position_embedding.weight", (num_patches, hidden), "vision"),
            *layers,
            *norm("post_layernorm", hidden, bias=True),
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
    heads = config.positive("num_attention_heads", 16)
    if hidden % heads:
        raise config.invalid("num_attention_heads", f"is {heads}, which does not divide hidden_size {hidden}")
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


def _patches(hidden: int, channels: int, patch: int, *, bias: bool) -> tuple[Tensor, ...]:
    weight = Tensor("embeddings.patch_embedding.weight", (hidden, channels, patch, patch), "vision")
    return (weight, Tensor("embeddings.patch_embedding.bias", (hidden,), "vision")) if bias else (weight,)


def as_vision(tensors: tuple[Tensor, ...], role: Role = "vision") -> tuple[Tensor, ...]:
    """Return the tensors counted as part of the tower, norms included."""
    return with_role(tensors, role)
