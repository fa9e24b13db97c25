"""Phi-4-multimodal: Phi-4-mini's layers, a SigLIP tower and a conformer; its adapters come apart.

Source: transformers 5.23 models/phi4_multimodal. The class holds no LoRA: the checkpoint's vision and
speech adapters are loaded beside it.
"""

from dataclasses import replace

from kvplan.blocks.vision import as_vision, siglip
from kvplan.config import Config
from kvplan.families.reading import text_structure
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear, norm, repeat, with_role

# Phi4MultimodalVisionConfig and Phi4MultimodalAudioConfig, which files leave out in part.
VISION: dict[str, object] = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 448,
    "patch_size": 14,
}


def phi4_multimodal(config: Config) -> Structure:
    """Read Phi-4-multimodal in transformers' own form: flat text keys beside the two towers'."""
    plain = config.without("vision_config").without("audio_config")
    structure = text_structure(plain, "phi3")
    size = structure.hidden_size
    vision = (config.sub("vision_config") or config.with_only({})).with_defaults(VISION)
    audio = config.sub("audio_config") or config.with_only({})
    seen = vision.positive("hidden_size")
    projections = (
        Tensor("image_embed.global_img_feature_extensor", (1, 1, seen), "projector"),
        Tensor("image_embed.sub_img_feature_extensor", (1, 1, 1, seen), "projector"),
        *linear("image_embed.img_projection_up", size, seen, "projector", bias=True),
        *linear("image_embed.img_projection_down", size, size, "projector", bias=True),
        *_speech(audio, size),
    )
    towers = (*siglip(vision), *_conformer(audio))
    return replace(structure, tensors=(*structure.tensors, *towers, *as_vision(projections, "projector")))


def _speech(config: Config, size: int) -> tuple[Tensor, ...]:
    heard = config.positive("hidden_size", 1024) * config.positive("downsample_rate", 1)
    return tuple(
        tensor
        for kind in ("speech", "vision_speech")
        for tensor in (
            *linear(f"audio_embed.up_proj_for_{kind}", size, heard, "projector", bias=True),
            *linear(f"audio_embed.down_proj_for_{kind}", size, size, "projector", bias=True),
        )
    )


def _conformer(config: Config) -> tuple[Tensor, ...]:
    hidden, width = config.positive("hidden_size", 1024), config.positive("intermediate_size", 1536)
    heads = config.positive("num_attention_heads", 16)
    channels, kernel = config.positive("nemo_conv_channels", 1024), config.positive("kernel_size", 3)
    outer = config.positive("ext_pw_out_channel", 1024)
    depth = config.positive(
        "depthwise_seperable_out_channel", config.positive("depthwise_separable_out_channel", 1024)
    )
    reduction = config.positive("time_reduction", 8)
    num_halvings = reduction.bit_length() - 1
    if 1 << num_halvings != reduction:
        raise config.invalid("time_reduction", f"is {reduction}, not a power of two")
    # Each halving convolves with stride 2 and a padding of one on both sides.
    bins = config.positive("input_size", 80)
    for _ in range(num_halvings):
        bins = (bins + 2 - 3) // 2 + 1
    distance = config.positive("bias_max_distance", 1000)
    rows = distance if config.flag("bias_symmetric", False) else 2 * distance
    feed_forward = (
        *norm("layer_norm", hidden, bias=True),
        *linear("gate_up_proj", 2 * width, hidden, "audio", bias=True),
        *linear("down_proj", hidden, width, "audio", bias=True),
    )
    layer = (
        *feed_forward,
        *feed_forward,
        *(
            tensor
            for name in ("q_proj", "k_proj", "v_proj", "o_proj")
            for tensor in linear(f"self_attn.{name}", hidden, hidden, "audio", bias=True)
        ),
        *norm("conv.layer_norm", hidden, bias=True),
        *linear("conv.glu.ext_pw_conv_1d", 2 * outer, hidden, "audio", bias=True),
        Tensor("conv.glu.b1", (1, outer, 1), "audio"),
        Tensor("conv.glu.b2", (1, outer, 1), "audio"),
        Tensor("conv.dw_sep_conv_1d.dw_conv.weight", (hidden, 1, kernel), "audio"),
        Tensor("conv.dw_sep_conv_1d.dw_conv.bias", (hidden,), "audio"),
        *linear("conv.dw_sep_conv_1d.pw_conv", depth, hidden, "audio", bias=True),
        *linear("conv.ext_pw_conv_1d", outer, depth, "audio", bias=True),
        *norm("layer_norm_att", hidden, bias=True),
        *norm("layer_norm", hidden, bias=True),
    )
    convolutions = (
        Tensor("embed.conv.0.weight", (channels, 1, 3, 3), "audio"),
        Tensor("embed.conv.0.bias", (channels,), "audio"),
        *repeat(
            (
                Tensor("embed.conv.depthwise.weight", (channels, 1, 3, 3), "audio"),
                Tensor("embed.conv.depthwise.bias", (channels,), "audio"),
                *linear("embed.conv.pointwise", channels, channels, "audio", bias=True),
            ),
            max(0, num_halvings - 1),
        ),
        *linear("embed.out", hidden, channels * bins, "audio", bias=True),
    )
    return with_role(
        (
            *(tensor for tensor in convolutions if tensor.count),
            Tensor("relative_attention_bias_layer.bias_values.weight", (rows, heads), "audio"),
            *repeat(layer, config.layers("num_blocks", 24)),
        ),
        "audio",
    )
