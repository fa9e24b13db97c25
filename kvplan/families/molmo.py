"""Molmo: OpenAI's CLIP, pooled by attention, before an OLMo-shaped text model.

Source: allenai/Molmo-7B-D-0924 modeling_molmo.py; its vision config is fixed in config_molmo.py.
"""

from dataclasses import replace

from kvplan.blocks.decoder import finish, fixed_head_dim, shape_of, uniform
from kvplan.blocks.transformer import attention, gated_mlp
from kvplan.blocks.vision import as_vision
from kvplan.config import Config
from kvplan.errors import UnsupportedArchitecture
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear, norm, repeat

# config_molmo.py VisionBackboneConfig: the last of CLIP-L's 24 layers is left out.
CLIP_HIDDEN, CLIP_WIDTH, CLIP_LAYERS, CLIP_POSITIONS, PATCH_PIXELS = 1024, 4096, 23, 577, 14 * 14 * 3
# Two layers' outputs are joined before pooling (vit_layers).
NUM_TAKEN = 2
NEW_TOKENS = 128


def molmo(config: Config) -> Structure:
    """Read Molmo 7B and 72B: text in Qwen2's sizes, ``intermediate_size`` counting gate and up."""
    for key in ("attention_layer_norm", "norm_after", "weight_tying"):
        if config.flag(key, False):
            raise UnsupportedArchitecture(
                f"{config.origin}: {key} is not known",
                why="Molmo's other variants have other layers",
                hint="report the model",
            )
    shape = fixed_head_dim(config, shape_of(config))
    hidden, both = shape.hidden_size, config.positive("intermediate_size")
    if both % 2:
        raise config.invalid("intermediate_size", f"is {both}, which is not gate and up together")
    tensors = (
        *attention(
            hidden,
            shape.num_attention_heads,
            shape.num_key_value_heads,
            shape.head_dim,
            qkv_bias=config.flag("qkv_bias", True),
        ),
        *gated_mlp(hidden, both // 2),
        *norm("attn_norm", hidden),
        *norm("ff_norm", hidden),
    )
    rows = config.positive("embedding_size", shape.vocab_size)
    shape = replace(shape, vocab_size=rows)
    new = Tensor("model.wte.new_embedding", (NEW_TOKENS, hidden), "embedding")
    extra = (new, *as_vision(_eyes()), *as_vision(_projector(hidden, both // 2), "projector"))
    return finish(config, shape, uniform(shape, tensors), tied=False, extra=extra)


def _eyes() -> tuple[Tensor, ...]:
    layer = (
        *(
            tensor
            for name in ("wq", "wk", "wv", "wo")
            for tensor in linear(f"attention.{name}", CLIP_HIDDEN, CLIP_HIDDEN, "vision", bias=True)
        ),
        *linear("feed_forward.w1", CLIP_WIDTH, CLIP_HIDDEN, "vision", bias=True),
        *linear("feed_forward.w2", CLIP_HIDDEN, CLIP_WIDTH, "vision", bias=True),
        *norm("attention_norm", CLIP_HIDDEN, bias=True),
        *norm("ffn_norm", CLIP_HIDDEN, bias=True),
    )
    joined = NUM_TAKEN * CLIP_HIDDEN
    return (
        Tensor("image_vit.class_embedding", (CLIP_HIDDEN,), "vision"),
        Tensor("image_vit.positional_embedding", (CLIP_POSITIONS, CLIP_HIDDEN), "vision"),
        *linear("image_vit.patch_embedding", CLIP_HIDDEN, PATCH_PIXELS, "vision"),
        *norm("image_vit.pre_ln", CLIP_HIDDEN, bias=True),
        *repeat(layer, CLIP_LAYERS),
        *(
            tensor
            for name in ("wq", "wk", "wv")
            for tensor in linear(f"image_pooling_2d.{name}", CLIP_HIDDEN, joined, "vision", bias=True)
        ),
        *linear("image_pooling_2d.wo", CLIP_HIDDEN, CLIP_HIDDEN, "vision", bias=True),
        Tensor("pad_embed", (2, joined), "vision"),
    )


def _projector(hidden: int, width: int) -> tuple[Tensor, ...]:
    return (
        *linear("image_projector.w1", width, CLIP_HIDDEN, "projector"),
        *linear("image_projector.w3", width, CLIP_HIDDEN, "projector"),
        *linear("image_projector.w2", hidden, width, "projector"),
    )
