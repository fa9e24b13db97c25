"""Older models with eyes whose parts are stock: Idefics 2, Video-LLaVA, Fuyu, HyperCLOVA X Vision 2.

Source: transformers 5.23 models/idefics2, video_llava, fuyu, hyperclovax_vision_v2.
"""

from dataclasses import replace

from kvplan.blocks.transformer import attention, gated_mlp
from kvplan.blocks.vision import as_vision, clip, siglip_encoder
from kvplan.config import Config
from kvplan.families.qwen_vl import qwen2_5_tower
from kvplan.families.reading import joined, text_structure
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear, norm, repeat

IDEFICS2_TOWER: dict[str, object] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "image_size": 224,
    "patch_size": 32,
}
VIDEO_LLAVA_TOWER: dict[str, object] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "image_size": 224,
    "patch_size": 14,
}


def idefics2(config: Config) -> Structure:
    """Read Idefics 2: SigLIP without a head, a perceiver of ``resampler_n_latents`` rows, Mistral."""
    perceiver = config.sub("perceiver_config") or config.with_only({})

    def connector(config: Config, vision: Config, size: int) -> tuple[Tensor, ...]:
        text = config.sub("text_config") or config.with_only({})
        width = text.positive("intermediate_size", 14_336)
        seen = vision.positive("hidden_size")
        latents, depth = perceiver.positive("resampler_n_latents", 64), perceiver.layers("resampler_depth", 3)
        heads, kv_heads = (
            perceiver.positive("resampler_n_heads", 16),
            perceiver.positive("num_key_value_heads", 4),
        )
        layer = (
            *norm("input_latents_norm", size),
            *norm("input_context_norm", size),
            *attention(size, heads, kv_heads, perceiver.positive("resampler_head_dim", 96)),
            *norm("post_attention_layernorm", size),
            *gated_mlp(size, 4 * size),
        )
        return (
            *linear("modality_projection.gate_proj", width, seen, "projector"),
            *linear("modality_projection.up_proj", width, seen, "projector"),
            *linear("modality_projection.down_proj", size, width, "projector"),
            Tensor("perceiver_resampler.latents", (latents, size), "projector"),
            *repeat(layer, depth),
            *norm("perceiver_resampler.norm", size),
        )

    return joined(config, "mistral", siglip_encoder, connector, tied=False, vision_defaults=IDEFICS2_TOWER)


def video_llava(config: Config) -> Structure:
    """Read Video-LLaVA: one CLIP tower for images and one for frames, a projector for both."""

    def towers(vision: Config) -> tuple[Tensor, ...]:
        return repeat(clip(vision), 2)

    def projector(config: Config, vision: Config, size: int) -> tuple[Tensor, ...]:
        bias = config.flag("multimodal_projector_bias", True)
        seen = vision.positive("hidden_size")
        return (
            *linear("multi_modal_projector.linear_1", size, seen, "projector", bias=bias),
            *linear("multi_modal_projector.linear_2", size, size, "projector", bias=bias),
        )

    return joined(config, "llama", towers, projector, tied=False, vision_defaults=VIDEO_LLAVA_TOWER)


def fuyu(config: Config) -> Structure:
    """Read Fuyu: patches go straight into Persimmon's layers through one projection.

    Its own files state the text model's keys at the top.
    """
    text = config.sub("text_config")
    tied = config.flag("tie_word_embeddings", False)
    plain = (config if text is None else text).override({"tie_word_embeddings": tied})
    structure = text_structure(plain, plain.text("model_type", "persimmon") if text else "persimmon")
    pixels = config.positive("patch_size", 30) ** 2 * config.positive("num_channels", 3)
    size = structure.hidden_size
    return replace(
        structure,
        tensors=(
            *structure.tensors,
            *linear("vision_embed_tokens", size, pixels, "projector", bias=True),
        ),
    )


def hyperclovax_vision2(config: Config) -> Structure:
    """Read HyperCLOVA X Vision 2: Qwen2.5-VL's tower and one projection."""

    def tower(vision: Config) -> tuple[Tensor, ...]:
        return as_vision(qwen2_5_tower(vision, 0))

    def projector(config: Config, vision: Config, size: int) -> tuple[Tensor, ...]:
        del config
        return linear("projector", size, vision.positive("out_hidden_size", 3584), "projector", bias=True)

    return joined(config, "hyperclovax", tower, projector, tied=True)
