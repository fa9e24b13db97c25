"""Gated short convolutions with a few attention layers: LFM2, dense or with experts, and LFM3.

Source: transformers 5.23 models/lfm2, lfm2_moe, lfm3.
"""

from kvplan.blocks.attention_pattern import FULL, SLIDING, layer_types, window_of
from kvplan.blocks.decoder import attention_cache, by_index, finish, shape_of
from kvplan.blocks.transformer import attention, experts, gated_mlp, router
from kvplan.config import Config
from kvplan.layers import Layer, ShortConvState
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear, norms_of

CONV = "conv"


def _conv(hidden: int, kernel: int, *, bias: bool) -> tuple[Tensor, ...]:
    return (
        *linear("conv.in_proj", 3 * hidden, hidden, "recurrent", bias=bias, split="out"),
        Tensor("conv.conv.weight", (hidden, 1, kernel), "recurrent", split="out"),
        *((Tensor("conv.conv.bias", (hidden,), "recurrent", split="out"),) if bias else ()),
        *linear("conv.out_proj", hidden, hidden, "recurrent", bias=bias, split="in"),
    )


def lfm2(config: Config) -> Structure:
    """Read LFM2, dense or with experts: gated short convolutions and a few full layers, tied."""
    shape = shape_of(config)
    hidden = shape.hidden_size
    kinds = layer_types(config, shape.num_layers, (FULL, CONV))
    if kinds is None:
        listed = config.integers("full_attn_idxs")
        if listed is None:
            raise config.invalid("layer_types", "is missing, and so is full_attn_idxs")
        kinds = tuple(FULL if index in listed else CONV for index in range(shape.num_layers))
    kernel = config.positive("conv_L_cache", 3)
    bias = config.flag("conv_bias", False)
    conv = _conv(hidden, kernel, bias=bias)
    full = (
        *attention(hidden, shape.num_attention_heads, shape.num_key_value_heads, shape.head_dim),
        *norms_of(shape.head_dim, "self_attn.q_layernorm", "self_attn.k_layernorm"),
    )
    norms = norms_of(hidden, "operator_norm", "ffn_norm")
    num_dense = config.integer("num_dense_layers", 0) if config.has("num_experts") else shape.num_layers
    dense = gated_mlp(hidden, _lfm2_width(config), name="feed_forward")

    def make(index: int) -> Layer:
        feed_forward = dense
        if index >= num_dense:
            num_experts = config.positive("num_experts")
            feed_forward = (
                *experts(
                    hidden,
                    config.positive("moe_intermediate_size"),
                    num_experts,
                    min(num_experts, config.positive("num_experts_per_tok")),
                    name="feed_forward.experts",
                ),
                *router(hidden, num_experts, name="feed_forward.gate"),
            )
        if kinds[index] == FULL:
            return Layer((attention_cache(shape, FULL, 0),), (*full, *feed_forward, *norms))
        return Layer((ShortConvState(hidden, kernel),), (*conv, *feed_forward, *norms))

    # Files name the tie in a spelling of their own (configuration_lfm2.py).
    tied = config.flag("tie_embedding", config.flag("tie_word_embeddings", True))
    stated = config.override({"tie_word_embeddings": tied})
    return finish(stated, shape, by_index(shape.num_layers, make), tied=tied)


def _lfm2_width(config: Config) -> int:
    """Return the MLP's width: two thirds of what the file says, rounded, where it adjusts itself."""
    width = config.positive("block_ff_dim", config.integer("intermediate_size", 0) or None)
    if config.has("num_experts") or not config.flag("block_auto_adjust_ff_dim", True):
        return width
    width = int(2 * width / 3)
    factor = config.raw("block_ffn_dim_multiplier")
    if isinstance(factor, int | float) and not isinstance(factor, bool) and 0 < factor < 100:
        width = int(factor * width)
    unit = config.positive("block_multiple_of", 256)
    return -(-width // unit) * unit


def lfm3(config: Config) -> Structure:
    """Read LFM3: convolutions, windows and full layers in turn, a gate on each head, norms around."""
    shape = shape_of(config, head_dim=None if config.has("head_dim") else 128)
    hidden = shape.hidden_size
    usual = tuple(
        FULL if index % 4 == 2 else SLIDING if index % 4 == 0 and index else CONV
        for index in range(shape.num_layers)
    )
    kinds = layer_types(config, shape.num_layers, (FULL, SLIDING, CONV)) or usual
    kernel, window = config.positive("conv_L_cache", 7), window_of(config, kinds)
    bias = config.flag("attention_bias", False)
    conv = _conv(hidden, kernel, bias=config.flag("conv_bias", False))
    own = (
        *attention(
            hidden,
            shape.num_attention_heads,
            shape.num_key_value_heads,
            shape.head_dim,
            qkv_bias=bias,
            o_bias=bias,
        ),
        *norms_of(shape.head_dim, "self_attn.q_norm", "self_attn.k_norm"),
    )
    if config.flag("use_attention_gate", True):
        own += linear("self_attn.g_proj", shape.num_attention_heads, hidden, "attention", split="out")
    names: tuple[str, ...] = ("operator_norm", "ffn_norm")
    if config.flag("use_sandwich_norm", True):
        names += ("post_operator_norm", "post_ffn_norm")
    common = (
        *gated_mlp(hidden, config.positive("intermediate_size"), name="feed_forward"),
        *norms_of(hidden, *names),
    )

    def make(index: int) -> Layer:
        if kinds[index] == CONV:
            return Layer((ShortConvState(hidden, kernel),), (*conv, *common))
        return Layer((attention_cache(shape, kinds[index], window),), (*own, *common))

    return finish(config, shape, by_index(shape.num_layers, make), tied=True)
