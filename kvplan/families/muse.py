"""Muse Glimmer and Muse Spark: a ViT with windows, an adapter, and, in Spark, a convolutional ear.

Source: transformers 5.23 models/muse_glimmer, muse_spark. Their text models are read in
attention_extras.py.
"""

from dataclasses import replace

from kvplan.blocks.vision import as_vision
from kvplan.config import Config
from kvplan.families.reading import joined
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear, norm, repeat, with_role


def muse_glimmer(config: Config) -> Structure:
    """Read Muse Glimmer from its nested configs."""
    return joined(config, "muse_glimmer_text", _tower, _adapter, tied=False)


def muse_spark(config: Config) -> Structure:
    """Read Muse Spark: Glimmer's eyes, ears where the file describes them, a mixture of experts."""
    structure = joined(config, "muse_spark_text", _tower, _adapter, tied=False)
    audio = config.sub("audio_config")
    if audio is None:
        return structure
    return replace(structure, tensors=(*structure.tensors, *_ears(audio)))


def _adapter(config: Config, vision: Config, size: int) -> tuple[Tensor, ...]:
    del vision
    seen, middle = config.positive("out_hidden_size", 6144), config.positive("projector_hidden_size", 4096)
    return (
        *linear("vision_adapter.fc1", middle, seen, "projector"),
        *linear("vision_adapter.fc2", middle, middle, "projector"),
        *linear("vision_projection", size, middle, "projector"),
    )


def _tower(config: Config) -> tuple[Tensor, ...]:
    hidden, width = config.positive("hidden_size", 1536), config.positive("intermediate_size", 8960)
    pixels = 3 * config.positive("patch_size", 14) ** 2 * config.positive("patch_temporal", 2)
    rows = config.positive("pos_emb_height", 32) * config.positive("pos_emb_width", 32)
    layer = (
        *norm("norm1", hidden, bias=True),
        *norm("norm2", hidden, bias=True),
        *(
            tensor
            for name in ("q_proj", "k_proj", "v_proj", "proj")
            for tensor in linear(f"attn.{name}", hidden, hidden, "vision", bias=True)
        ),
        *linear("mlp.fc1", width, hidden, "vision", bias=True),
        *linear("mlp.fc2", hidden, width, "vision", bias=True),
    )
    return as_vision(
        (
            *linear("patch_embedder.patch_embedding", hidden, pixels, "vision"),
            Tensor("patch_embedder.position_embedding_table.weight", (rows, hidden), "vision"),
            *norm("ln_pre", hidden, bias=True),
            *repeat(layer, config.layers(default=50)),
            *norm("ln_post", hidden, bias=True),
        )
    )


def _ears(config: Config) -> tuple[Tensor, ...]:
    """Return four stages of convolutions, each joining frames into fewer and wider ones."""
    patches = config.integers("patch_sizes") or (16, 6, 5, 4)
    widths = config.integers("hidden_sizes") or (256, 512, 1024, 2048)
    depths = config.integers("depths") or (2, 2, 2, 2)
    if not len(patches) == len(widths) == len(depths) or min(*patches, *widths, *depths) < 1:
        raise config.invalid("hidden_sizes", "does not give each stage a patch, a width and a depth")
    kernel, out = config.positive("conv_kernel_size", 7), config.positive("out_hidden_size", 8192)
    ratio = config.number("mlp_ratio", 4.0)
    tensors: tuple[Tensor, ...] = ()
    before = 1
    for patch, width, depth in zip(patches, widths, depths, strict=True):
        inner = int(width * ratio)
        if inner < 1:
            raise config.invalid("mlp_ratio", f"makes an MLP of {inner}")
        block = (
            Tensor("conv.weight", (width, 1, kernel), "audio"),
            Tensor("conv.bias", (width,), "audio"),
            *norm("norm", width),
            *linear("mlp.fc1", inner, width, "audio", bias=True),
            *linear("mlp.fc2", width, inner, "audio", bias=True),
        )
        tensors += (
            *linear("patch_embedder.proj", width, before * patch, "audio", bias=True),
            *norm("patch_embedder.norm", width),
            *repeat(block, depth),
        )
        before = width
    return with_role(
        (
            *tensors,
            *norm("norm", before),
            *linear("proj", out, before, "audio", bias=True),
            *norm("post_proj_norm", out),
        ),
        "audio",
    )
