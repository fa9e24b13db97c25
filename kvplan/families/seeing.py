"""Models with eyes whose parts are stock: a known tower, a small projector, any known text model.

LLaVA 1.5 to OneVision, PaliGemma, Idefics 3 and SmolVLM, LFM2-VL, Command A Vision, Aya
Vision, MiniMax-M3, Phi-3-Vision. Source: transformers 5.23 models/llava_next, llava_onevision,
vipllava, paligemma, idefics3, smolvlm, lfm2_vl, cohere2_vision, aya_vision, minimax_m3_vl; microsoft
modeling_phi3_v.py.
"""

from dataclasses import replace

from kvplan.blocks.vision import as_vision, clip, encoder_layer, siglip_encoder, tower_of
from kvplan.config import Config
from kvplan.families.reading import joined, text_structure
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear, norm, repeat

# transformers 5.23 LlamaConfig and LlavaConfig: what LLaVA-1.5's file leaves out.
LLAMA_DEFAULTS = {
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 32_000,
    "max_position_embeddings": 2048,
}
LLAVA_CLIP_DEFAULTS = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}
PROJECTOR = "multi_modal_projector"
# The SigLIP that Cohere2VisionConfig and AyaVisionConfig default to.
SIGLIP_SO: dict[str, object] = {
    "hidden_size": 1152,
    "num_hidden_layers": 27,
    "num_attention_heads": 12,
    "image_size": 512,
    "patch_size": 16,
}


def two_layers(size: int, seen: int, *, middle: int | None = None, bias: bool = True) -> tuple[Tensor, ...]:
    """Return a projector of two layers from what the tower sees to the text's size."""
    between = size if middle is None else middle
    return (
        *linear(f"{PROJECTOR}.linear_1", between, seen, "projector", bias=bias),
        *linear(f"{PROJECTOR}.linear_2", size, between, "projector", bias=bias),
    )


def _clip_or(vision: Config) -> tuple[Tensor, ...]:
    return tower_of(vision, "clip_vision_model")


def _siglip_or(vision: Config) -> tuple[Tensor, ...]:
    return tower_of(vision, "siglip_vision_model")


def _siglip2_or(vision: Config) -> tuple[Tensor, ...]:
    return tower_of(vision, "siglip2_vision_model")


def _num_taken(config: Config) -> int:
    """Return how many layers' outputs are joined: one, or as many as the list names."""
    taken = config.raw("vision_feature_layer")
    return len(taken) if isinstance(taken, list) and taken else 1


def _llava_projector(config: Config, vision: Config, size: int) -> tuple[Tensor, ...]:
    bias = config.flag("multimodal_projector_bias", True)
    return two_layers(size, vision.positive("hidden_size") * _num_taken(config), bias=bias)


def _with_newline(config: Config, vision: Config, size: int) -> tuple[Tensor, ...]:
    return (Tensor("image_newline", (size,), "projector"), *_llava_projector(config, vision, size))


def llava(config: Config) -> Structure:
    """Read LLaVA: a CLIP (or SigLIP, or Pixtral) tower and two layers before any text model."""
    return joined(
        config,
        "llama",
        _clip_or,
        _llava_projector,
        tied=False,
        text_defaults=LLAMA_DEFAULTS,
        vision_defaults=LLAVA_CLIP_DEFAULTS,
        tied_by_text=True,
    )


def llava_next(config: Config) -> Structure:
    """Read LLaVA-NeXT (1.6): LLaVA with a learned end of each image row."""
    return _llava_next(config, tied_by_text=False)


def llava_next_video(config: Config) -> Structure:
    """Read LLaVA-NeXT-Video, whose text config may tie the head."""
    return _llava_next(config, tied_by_text=True)


def _llava_next(config: Config, *, tied_by_text: bool) -> Structure:
    return joined(
        config,
        "llama",
        _clip_or,
        _with_newline,
        tied=False,
        text_defaults=LLAMA_DEFAULTS,
        vision_defaults=LLAVA_CLIP_DEFAULTS,
        tied_by_text=tied_by_text,
    )


def llava_onevision(config: Config) -> Structure:
    """Read LLaVA-OneVision: LLaVA-NeXT with SigLIP's tower and Qwen2's text."""
    defaults: dict[str, object] = {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 26,
        "num_attention_heads": 16,
        "image_size": 384,
        "patch_size": 14,
        "vision_use_head": False,
    }
    return joined(
        config, "qwen2", _siglip_or, _with_newline, tied=False, vision_defaults=defaults, tied_by_text=True
    )


def vipllava(config: Config) -> Structure:
    """Read ViP-LLaVA: five layers' outputs joined and normed before the projector."""

    def projector(config: Config, vision: Config, size: int) -> tuple[Tensor, ...]:
        layers = config.raw("vision_feature_layer")
        joined = vision.positive("hidden_size") * (len(layers) if isinstance(layers, list) else 5)
        return (*norm(f"{PROJECTOR}.projector_layernorm", joined, bias=True), *two_layers(size, joined))

    return joined(
        config,
        "llama",
        _clip_or,
        projector,
        tied=False,
        text_defaults=LLAMA_DEFAULTS,
        vision_defaults=LLAVA_CLIP_DEFAULTS,
    )


def paligemma(config: Config) -> Structure:
    """Read PaliGemma: SigLIP, one projection, Gemma or Gemma 2; the files omit the heads' size."""
    defaults: dict[str, object] = {
        "hidden_size": 1152,
        "intermediate_size": 4096,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "patch_size": 14,
        "vision_use_head": False,
    }

    def projector(config: Config, vision: Config, size: int) -> tuple[Tensor, ...]:
        width = config.positive("projection_dim", vision.positive("projection_dim", size))
        return linear(f"{PROJECTOR}.linear", width, vision.positive("hidden_size"), "projector", bias=True)

    return joined(config, "gemma", _siglip_or, projector, tied=True, vision_defaults=defaults)


def idefics3(config: Config) -> Structure:
    """Read Idefics 3 and SmolVLM: SigLIP without a head, pixels shuffled, one projection."""
    defaults: dict[str, object] = {
        "hidden_size": 1152,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "image_size": 224,
        "patch_size": 32,
    }

    def projector(config: Config, vision: Config, size: int) -> tuple[Tensor, ...]:
        joined = vision.positive("hidden_size") * config.positive("scale_factor", 2) ** 2
        return linear("connector.modality_projection.proj", size, joined, "projector")

    return joined(
        config,
        "llama",
        siglip_encoder,
        projector,
        tied=False,
        text_defaults=LLAMA_DEFAULTS,
        vision_defaults=defaults,
    )


def lfm2_vl(config: Config) -> Structure:
    """Read LFM2-VL: SigLIP 2's tower, pixels unshuffled, a projector with or without a norm."""

    def projector(config: Config, vision: Config, size: int) -> tuple[Tensor, ...]:
        joined = vision.positive("hidden_size", 768) * config.positive("downsample_factor", 2) ** 2
        middle = config.positive("projector_hidden_size", 2560)
        bias = config.flag("projector_bias", True)
        normed = config.flag("projector_use_layernorm", True)
        before = norm(f"{PROJECTOR}.layer_norm", joined, bias=True) if normed else ()
        return (*before, *two_layers(size, joined, middle=middle, bias=bias))

    return joined(
        config, "lfm2", lambda vision: tower_of(vision, "siglip2_vision_model"), projector, tied=True
    )


def cohere2_vision(config: Config) -> Structure:
    """Read Command A Vision: SigLIP and a gated projector."""
    return joined(
        config, "cohere2", _siglip_or, _gated_projector, tied=True, vision_defaults={"hidden_size": 1152}
    )


def aya_vision(config: Config) -> Structure:
    """Read Aya Vision: a norm before Command A Vision's gated projector."""

    def projector(config: Config, vision: Config, size: int) -> tuple[Tensor, ...]:
        joined = vision.positive("hidden_size") * config.positive("downsample_factor", 2) ** 2
        return (
            *norm(f"{PROJECTOR}.layernorm", joined, bias=True),
            *_gated_projector(config, vision, size),
        )

    return joined(config, "cohere2", _siglip_or, projector, tied=True, vision_defaults=SIGLIP_SO)


def _gated_projector(config: Config, vision: Config, size: int) -> tuple[Tensor, ...]:
    joined = vision.positive("hidden_size") * config.positive("downsample_factor", 2) ** 2
    width = config.positive("alignment_intermediate_size", 36_864)
    return (
        *linear(f"{PROJECTOR}.linear_1", width, joined, "projector", bias=True),
        *linear(f"{PROJECTOR}.linear_2", size, max(1, width // 2), "projector", bias=True),
    )


def minimax_m3_vl(config: Config) -> Structure:
    """Read MiniMax-M3: a CLIP-like tower without positions, patches projected, then merged."""

    def tower(vision: Config) -> tuple[Tensor, ...]:
        hidden, width = vision.positive("hidden_size", 1280), vision.positive("intermediate_size", 5120)
        patch, frames = vision.positive("patch_size", 14), vision.positive("temporal_patch_size", 2)
        shape = (hidden, vision.positive("num_channels", 3), frames, patch, patch)
        layers = repeat(encoder_layer(hidden, width), vision.layers(default=32))
        before = norm("pre_layrnorm", hidden, bias=True)
        return as_vision((Tensor("embeddings.proj.weight", shape, "vision"), *before, *layers))

    def projector(config: Config, vision: Config, size: int) -> tuple[Tensor, ...]:
        width = config.positive("projector_hidden_size", 6144)
        merged = size * vision.positive("spatial_merge_size", 2) ** 2
        return (
            *two_layers(size, vision.positive("hidden_size", 1280), middle=width),
            *linear(f"{PROJECTOR}.merge_linear_1", width, merged, "projector", bias=True),
            *linear(f"{PROJECTOR}.merge_linear_2", size, width, "projector", bias=True),
        )

    return joined(config, "minimax_m3_vl_text", tower, projector, tied=False, tied_by_text=True)


# openai/clip-vit-large-patch14-336, the tower that Phi-3-Vision's file names but does not describe.
PHI3_CLIP = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "image_size": 336,
    "patch_size": 14,
}


def phi3_v(config: Config) -> Structure:
    """Read Phi-3-Vision and 3.5: flat text keys, CLIP-L, crops joined four by four."""
    layer, tower = config.sub("embd_layer"), config.sub("img_processor")
    if layer is None or tower is None or tower.text("name", "") != "clip_vision_model":
        raise config.invalid("img_processor", "names no tower that is known")
    structure = text_structure(config, "phi3")
    seen, size = tower.positive("image_dim_out", 1024), structure.hidden_size
    joined = seen * 4 if layer.flag("use_hd_transform", False) else seen
    projector = (
        *linear("img_projection.0", size, joined, "projector", bias=True),
        *linear("img_projection.2", size, size, "projector", bias=True),
    )
    if layer.flag("with_learnable_separator", False):
        projector += (
            Tensor("glb_GN", (1, 1, joined), "projector"),
            Tensor("sub_GN", (1, 1, 1, joined), "projector"),
        )
    seen_tensors = clip(config.with_only(PHI3_CLIP))
    return replace(structure, tensors=(*structure.tensors, *seen_tensors, *as_vision(projector, "projector")))
