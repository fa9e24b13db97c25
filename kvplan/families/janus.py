"""Janus and Janus-Pro: one tower to see with, and a VQ model and a head of codes to draw with.

Source: transformers 5.23 models/janus.
"""

from dataclasses import replace

from kvplan.blocks.vision import as_vision
from kvplan.config import Config
from kvplan.families.reading import joined
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear, norm, repeat


def janus(config: Config) -> Structure:
    """Read Janus: both sides' weights count, whichever a request uses."""
    structure = joined(config, "llama", _tower, _aligner, tied=True)
    drawing = config.sub("vq_config") or config.with_only({})
    drawn = as_vision((*_vq(drawing), *_drawing(config, drawing)))
    return replace(structure, tensors=(*structure.tensors, *drawn))


def _tower(config: Config) -> tuple[Tensor, ...]:
    hidden = config.positive("hidden_size", 1024)
    config.heads(hidden, default=16)
    width = int(hidden * config.number("mlp_ratio", 4.0))
    if width < 1:
        raise config.invalid("mlp_ratio", f"makes an MLP of {width}")
    patch, bias = config.positive("patch_size", 16), config.flag("attention_bias", True)
    positions = (config.positive("image_size", 384) // patch) ** 2
    layer = (
        *norm("layer_norm1", hidden, bias=True),
        *norm("layer_norm2", hidden, bias=True),
        *(
            tensor
            for name in ("q_proj", "k_proj", "v_proj")
            for tensor in linear(f"self_attn.{name}", hidden, hidden, "vision", bias=bias)
        ),
        *linear("self_attn.projection_layer", hidden, hidden, "vision", bias=True),
        *linear("mlp.fc1", width, hidden, "vision", bias=True),
        *linear("mlp.fc2", hidden, width, "vision", bias=True),
    )
    if config.flag("use_qk_norm", False):
        layer += (*norm("self_attn.q_norm", hidden, bias=True), *norm("self_attn.k_norm", hidden, bias=True))
    return as_vision(
        (
            *_convolution("patch_embedding", hidden, config.positive("num_channels", 3), patch),
            Tensor("position_embedding.weight", (positions, hidden), "vision"),
            *repeat(layer, config.layers(default=24)),
            *norm("post_layernorm", hidden, bias=True),
        )
    )


def _stack(name: str, seen: int, size: int, depth: int) -> tuple[Tensor, ...]:
    more = linear(f"{name}.hidden_layers", size, size, "projector", bias=True)
    return (
        *linear(f"{name}.fc1", size, seen, "projector", bias=True),
        *(repeat(more, depth - 1) if depth > 1 else ()),
    )


def _aligner(config: Config, vision: Config, size: int) -> tuple[Tensor, ...]:
    del config, size
    width = vision.positive("projection_dim", 2048)
    return _stack("aligner", vision.positive("hidden_size", 1024), width, vision.positive("depth", 2))


def _drawing(config: Config, vq: Config) -> tuple[Tensor, ...]:
    del config
    codes, size = vq.positive("num_embeddings", 16_384), vq.positive("embed_dim", 8)
    width = vq.positive("projection_dim", 2048)
    seen = vq.positive("image_token_embed_dim", 2048)
    return (
        Tensor("generation_embeddings.weight", (codes, size), "embedding"),
        *_stack("generation_aligner", size, width, vq.positive("num_hidden_layers", 2)),
        *linear("generation_head.proj_out", width, seen, "projector", bias=True),
        *linear("generation_head.vision_head", codes, width, "projector", bias=True),
    )


def _convolution(name: str, num_out: int, num_in: int, size: int) -> tuple[Tensor, ...]:
    return (
        Tensor(f"{name}.weight", (num_out, num_in, size, size), "vision"),
        Tensor(f"{name}.bias", (num_out,), "vision"),
    )


def _residual(num_in: int, num_out: int) -> tuple[Tensor, ...]:
    shortcut = () if num_in == num_out else _convolution("nin_shortcut", num_out, num_in, 1)
    return (
        *norm("norm1", num_in, bias=True),
        *_convolution("conv1", num_out, num_in, 3),
        *norm("norm2", num_out, bias=True),
        *_convolution("conv2", num_out, num_out, 3),
        *shortcut,
    )


def _looking(size: int) -> tuple[Tensor, ...]:
    names = ("q", "k", "v", "proj_out")
    convolutions = tuple(tensor for name in names for tensor in _convolution(name, size, size, 1))
    return (*norm("norm", size, bias=True), *convolutions)


def _vq(config: Config) -> tuple[Tensor, ...]:
    """Return the VQ model: encoder and decoder over the same widths, attention at the smallest grid."""
    base, blocks = config.positive("base_channels", 128), config.positive("num_res_blocks", 2)
    widths = [base * factor for factor in config.integers("channel_multiplier") or (1, 1, 2, 2, 4)]
    if min(widths) < 1 or len(widths) > 16 or blocks > 64:
        raise config.invalid("channel_multiplier", "is not a list of sizes")
    latent, size = config.positive("latent_channels", 256), config.positive("embed_dim", 8)
    deep, last = widths[-1], len(widths) - 1
    middle = (*_residual(deep, deep), *_looking(deep), *_residual(deep, deep))
    tensors: list[Tensor] = [*_convolution("encoder.conv_in", base, config.positive("in_channels", 3), 3)]
    before = base
    for level, width in enumerate(widths):
        for _ in range(blocks):
            tensors += [*_residual(before, width), *(_looking(width) if level == last else ())]
            before = width
        tensors += _convolution("downsample", width, width, 3) if level != last else ()
    coded = latent * 2 if config.flag("double_latent", False) else latent
    tensors += [
        *middle,
        *norm("encoder.norm_out", deep, bias=True),
        *_convolution("conv_out", coded, deep, 3),
    ]
    tensors += [*_convolution("decoder.conv_in", deep, latent, 3), *middle]
    for level in range(last, -1, -1):
        width = widths[level]
        for _ in range(blocks + 1):
            tensors += [*_residual(before, width), *(_looking(width) if level == last else ())]
            before = width
        tensors += _convolution("upsample", width, width, 3) if level else ()
    tensors += norm("decoder.norm_out", before, bias=True)
    tensors += _convolution("decoder.conv_out", config.positive("out_channels", 3), before, 3)
    tensors.append(
        Tensor("quantize.embedding.weight", (config.positive("num_embeddings", 16_384), size), "vision")
    )
    return (
        *tensors,
        *_convolution("quant_conv", size, latent, 1),
        *_convolution("post_quant_conv", latent, size, 1),
    )
