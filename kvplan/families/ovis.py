"""Ovis 2: an AIMv2 tower that says which rows of a visual vocabulary an image is made of.

Source: transformers 5.23 models/ovis2.
"""

from dataclasses import replace

from kvplan.blocks.transformer import gated_mlp
from kvplan.blocks.vision import as_vision
from kvplan.config import Config
from kvplan.families.reading import joined
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear, norm, repeat


def ovis2(config: Config) -> Structure:
    """Read Ovis 2: ``visual_embeddings_table`` has a row for each visual word."""

    def nothing(config: Config, vision: Config, size: int) -> tuple[Tensor, ...]:
        del config, vision, size
        return ()

    structure = joined(config, "qwen2", _tower, nothing, tied=True)
    vision = config.sub("vision_config") or config.with_only({})
    rows = vision.positive("vocab_size", 16_384)
    if not structure.tie_word_embeddings:
        # The class sizes an untied head by the outer config, the text model by the inner one.
        for key, inner in (("hidden_size", structure.hidden_size), ("vocab_size", structure.vocab_size)):
            if config.integer(key, inner) != inner:
                raise config.invalid(key, f"is {config.integer(key)}, but the text model's is {inner}")
    # The table is as wide as the outer config says, which is the text's width in every file.
    shape = (rows, config.positive("hidden_size", 1536))
    table = Tensor("visual_embeddings_table.weight", shape, "projector")
    return replace(structure, tensors=(*structure.tensors, table))


def _tower(config: Config) -> tuple[Tensor, ...]:
    hidden = config.positive("hidden_size", 1024)
    config.heads(hidden, default=8)
    patch = config.positive("patch_size", 14)
    positions = (config.positive("image_size", 224) // patch) ** 2
    bias = config.flag("qkv_bias", False)
    layer = (
        *(
            tensor
            for name in ("q_proj", "k_proj", "v_proj", "out_proj")
            for tensor in linear(f"attention.{name}", hidden, hidden, "vision", bias=bias)
        ),
        *gated_mlp(
            hidden,
            config.positive("intermediate_size", 2816),
            bias=config.flag("mlp_bias", False),
            name="ffn",
            role="vision",
        ),
        *norm("rms_norm1", hidden),
        *norm("rms_norm2", hidden),
    )
    words = config.positive("vocab_size", 16_384) - config.integer("num_visual_indicator_tokens", 5)
    if words < 1:
        raise config.invalid("vocab_size", "leaves no visual word")
    seen = hidden * config.positive("hidden_stride", 1) ** 2
    return as_vision(
        (
            Tensor(
                "embeddings.patch_embedding.weight",
                (hidden, config.positive("num_channels", 3), patch, patch),
                "vision",
            ),
            Tensor("embeddings.patch_embedding.bias", (hidden,), "vision"),
            Tensor("embeddings.position_embedding.weight", (positions, hidden), "vision"),
            *norm("embeddings.rms_norm", hidden),
            *repeat(layer, config.layers(default=24)),
            *norm("rms_norm", hidden),
            *linear("head_linear", words, seen, "vision"),
            *norm("head_norm", words, bias=True),
        )
    )
