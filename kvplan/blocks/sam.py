"""The SAM vision encoder that document models carry: windowed attention, relative positions, a neck.

Its weights count; it caches nothing between tokens. Source: transformers 5.23 models/sam, got_ocr2,
deepseek_vl_hybrid.
"""

from kvplan.config import Config
from kvplan.tensors import Tensor, linear, norm, repeat, with_role


def _convolution(
    name: str, num_out: int, num_in: int, size: int, *, bias: bool = False
) -> tuple[Tensor, ...]:
    weight = Tensor(f"{name}.weight", (num_out, num_in, size, size), "vision")
    return (weight, Tensor(f"{name}.bias", (num_out,), "vision")) if bias else (weight,)


def sam_neck(hidden_size: int, output_channels: int) -> tuple[Tensor, ...]:
    """Return two convolutions without bias, a norm after each."""
    tensors = (
        *_convolution("conv1", output_channels, hidden_size, 1),
        *norm("layer_norm1", output_channels, bias=True),
        *_convolution("conv2", output_channels, output_channels, 3),
        *norm("layer_norm2", output_channels, bias=True),
    )
    return with_role(tensors, "vision")


def sam_reduction(num_in: int, num_middle: int, num_out: int) -> tuple[Tensor, ...]:
    """Return the two strided convolutions after the neck."""
    return (*_convolution("conv1", num_middle, num_in, 3), *_convolution("conv2", num_out, num_middle, 3))


def sam_encoder(config: Config) -> tuple[Tensor, ...]:
    """Return the encoder: patches, absolute and relative positions where switched on, layers, neck.

    Layers in ``global_attn_indexes`` look at the whole grid, the others at ``window_size``, which
    sizes their tables of relative positions.
    """
    hidden = config.positive("hidden_size", 768)
    heads = config.heads(hidden, default=12)
    patch = config.positive("patch_size", 16)
    side = config.positive("image_size", 1024) // patch
    width = config.integer("mlp_dim", None) or int(hidden * config.number("mlp_ratio", 4.0))
    window, layers = config.integer("window_size", 14), config.layers(default=12)
    whole = config.integers("global_attn_indexes") or (2, 5, 8, 11)
    num_whole = layers if window == 0 else sum(index < layers for index in set(whole))
    layer = (
        *norm("layer_norm1", hidden, bias=True),
        *linear("attn.qkv", 3 * hidden, hidden, "vision", bias=config.flag("qkv_bias", True)),
        *linear("attn.proj", hidden, hidden, "vision", bias=True),
        *norm("layer_norm2", hidden, bias=True),
        *linear("mlp.lin1", width, hidden, "vision", bias=True),
        *linear("mlp.lin2", hidden, width, "vision", bias=True),
    )
    tensors = (
        *_convolution("patch_embed.projection", hidden, config.positive("num_channels", 3), patch, bias=True),
        *repeat(layer, layers),
        *sam_neck(hidden, config.positive("output_channels", 256)),
    )
    if config.flag("use_abs_pos", True):
        tensors += (Tensor("pos_embed", (1, side, side, hidden), "vision"),)
    if config.flag("use_rel_pos", True):
        tensors += _relative("global", 2 * side - 1, hidden // heads, num_whole)
        tensors += _relative("window", 2 * window - 1, hidden // heads, layers - num_whole)
    return with_role(tensors, "vision")


def _relative(name: str, rows: int, head_dim: int, count: int) -> tuple[Tensor, ...]:
    if not count:
        return ()
    return tuple(
        Tensor(f"{name}.attn.rel_pos_{axis}", (rows, head_dim), "vision", count=count) for axis in ("h", "w")
    )
