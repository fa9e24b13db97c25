"""Nemotron Nano VL and Omni: a RADIO tower, pixels shuffled, Nemotron-H's hybrid layers.

Source: transformers 5.23 models/nemotron_h_omni, radio.
"""

from kvplan.blocks.vision import as_vision
from kvplan.config import Config
from kvplan.errors import UnsupportedArchitecture
from kvplan.families.reading import joined
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear, norm, repeat


def nemotron_h_omni(config: Config) -> Structure:
    """Read the model with its eyes. Raises UnsupportedArchitecture where it also has ears."""
    if config.has("audio_config"):
        raise UnsupportedArchitecture(
            f"{config.origin or 'nemotron_h_omni'}: audio_config is not known",
            why="its encoder's weights could be any size",
            hint="plan the text model alone, or report the model",
        )

    def projector(config: Config, vision: Config, size: int) -> tuple[Tensor, ...]:
        ratio = config.number("downsample_ratio", 0.5)
        if not 0 < ratio <= 1:
            raise config.invalid("downsample_ratio", f"is {ratio:g}")
        del vision
        seen = config.positive("vision_hidden_size", 1280) * int(1 / ratio) ** 2
        width = config.positive("projector_hidden_size", 4096)
        return (
            *norm("multi_modal_projector.layer_norm", seen),
            *linear("multi_modal_projector.linear_1", width, seen, "projector"),
            *linear("multi_modal_projector.linear_2", size, width, "projector"),
        )

    return joined(config, "nemotron_h", _radio, projector, tied=False)


def _radio(config: Config) -> tuple[Tensor, ...]:
    hidden = config.positive("hidden_size", 1280)
    width = int(hidden * config.number("mlp_ratio", 4.0))
    if width < 1:
        raise config.invalid("mlp_ratio", f"makes an MLP of {width}")
    if config.flag("use_swiglu_ffn", False):
        raise UnsupportedArchitecture(
            f"{config.origin}: use_swiglu_ffn is not known in this tower",
            why="its MLPs would hold other tensors",
            hint="report the model",
        )
    patch = config.positive("patch_size", 16)
    pixels = config.positive("num_channels", 3) * patch * patch
    positions = (config.positive("max_img_size", 2048) // patch) ** 2
    registers = config.integer("num_cls_tokens", 3) + config.integer("num_registers", 7)
    frames = config.integer("video_temporal_patch_size", 2)
    bias = config.flag("qkv_bias", True)
    layer = (
        *norm("norm1", hidden, bias=True),
        *(
            tensor
            for name in ("q_proj", "k_proj", "v_proj")
            for tensor in linear(f"attention.{name}", hidden, hidden, "vision", bias=bias)
        ),
        *linear("attention.o_proj", hidden, hidden, "vision", bias=True),
        Tensor("layer_scale1.lambda1", (hidden,), "vision"),
        *norm("norm2", hidden, bias=True),
        *linear("mlp.fc1", width, hidden, "vision", bias=True),
        *linear("mlp.fc2", hidden, width, "vision", bias=True),
        Tensor("layer_scale2.lambda1", (hidden,), "vision"),
    )
    moving = linear("video_patch_projection", hidden, pixels * frames, "vision") if frames else ()
    return as_vision(
        (
            Tensor("position_embedding", (1, positions, hidden), "vision"),
            Tensor("cls_register_token", (registers, hidden), "vision"),
            *linear("patch_projection", hidden, pixels, "vision"),
            *moving,
            *repeat(layer, config.layers(default=32)),
        )
    )
