"""Zamba and Zamba2: Mamba layers, some of which also run one shared attention block.

A hybrid layer caches a state and keys and values; the block's weights are stored once (Zamba2: once
for each of ``num_mem_blocks``, with a small adapter a layer). Source: transformers 5.23
models/zamba, models/zamba2.
"""

from kvplan.blocks.attention_pattern import unknown_layer_type
from kvplan.blocks.decoder import Shape, by_index, finish, shape_of
from kvplan.blocks.state_space import mamba2_mixer
from kvplan.blocks.transformer import gated_mlp
from kvplan.config import Config
from kvplan.layers import FullAttention, Layer, Mamba1State, Mamba2State
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear, norm
from kvplan.units import ceil_div

HYBRID = "hybrid"
MAMBA = ("mamba", "linear_attention")


def _kinds(config: Config, num_layers: int, otherwise: tuple[str, ...]) -> tuple[str, ...]:
    kinds = config.per_layer("layers_block_type", num_layers) or otherwise
    unknown = next((kind for kind in kinds if kind not in (*MAMBA, HYBRID)), None)
    if unknown is not None:
        raise unknown_layer_type(config, unknown)
    return kinds


def zamba(config: Config) -> Structure:
    """Read Zamba: Mamba-1 in heads, attention over the layer's and the first input side by side."""
    hidden = config.positive("hidden_size")
    shape = _wide_shape(config, hidden)
    layers = shape.num_layers
    period, offset = config.positive("attn_layer_period", 6), config.integer("attn_layer_offset", 4)
    # transformers 5.23 configuration_zamba.py: two Mamba layers and a hybrid, then the period.
    first = ("mamba", "mamba", HYBRID)
    rest = range(max(0, layers - len(first)))
    usual = (*first, *(HYBRID if index % period == offset else "mamba" for index in rest))
    kinds = _kinds(config, layers, usual[:layers])
    inner = config.positive("mamba_expand", 2) * hidden
    state, kernel = config.positive("mamba_d_state", 16), config.positive("mamba_d_conv", 4)
    heads = config.positive("n_mamba_heads", 2)
    if inner % heads:
        raise config.invalid("n_mamba_heads", f"is {heads}, which does not divide {inner}")
    rank = config.raw("mamba_dt_rank")
    dt_rank = ceil_div(hidden, 16) if rank in (None, "auto") else config.positive("mamba_dt_rank")
    bias = config.flag("mamba_proj_bias", False)
    mixer = (
        Tensor("mamba.x_proj_weight", (heads, dt_rank + 2 * state, inner // heads), "recurrent", split="out"),
        Tensor("mamba.dt_proj_weight", (heads, inner // heads, dt_rank), "recurrent", split="out"),
        Tensor("mamba.dt_proj_bias", (heads, inner // heads), "recurrent", split="out"),
        Tensor("mamba.A_log", (heads, inner // heads, state), "recurrent", split="out"),
        Tensor("mamba.D", (heads, inner // heads), "recurrent", split="out"),
        Tensor("mamba.conv1d.weight", (inner, 1, kernel), "recurrent", split="out"),
        *(
            (Tensor("mamba.conv1d.bias", (inner,), "recurrent", split="out"),)
            if config.flag("mamba_conv_bias", True)
            else ()
        ),
        *linear("mamba.in_proj", 2 * inner, hidden, "recurrent", bias=bias, split="out"),
        *linear("mamba.out_proj", hidden, inner, "recurrent", bias=bias, split="in"),
        *norm("input_layernorm", hidden),
    )
    cache = Mamba1State(inner, state, kernel)
    plain = Layer((cache,), mixer)
    hybrid = Layer((cache, _full(shape)), (*mixer, *linear("linear", hidden, hidden, "other")))
    shared = (
        *_attention(shape, hidden),
        *gated_mlp(hidden, config.positive("intermediate_size"), name="shared_transf.feed_forward"),
        *norm("shared_transf.input_layernorm", 2 * hidden),
        *norm("shared_transf.pre_ff_layernorm", hidden),
    )
    groups = by_index(layers, lambda index: hybrid if kinds[index] == HYBRID else plain)
    return finish(
        config,
        shape,
        groups,
        tied=True,
        extra=shared if HYBRID in kinds else (),
        norm_name="model.final_layernorm",
    )


def zamba2(config: Config) -> Structure:
    """Read Zamba2: Mamba-2, ``num_mem_blocks`` shared blocks, an adapter of each hybrid layer's own."""
    hidden = config.positive("hidden_size")
    shape = _wide_shape(config, hidden)
    layers = shape.num_layers
    named = set(config.integers("hybrid_layer_ids") or ())
    usual = tuple(HYBRID if index in named else "mamba" for index in range(layers))
    kinds = _kinds(config, layers, usual)
    head_dim = config.positive("mamba_headdim", 64)
    heads = config.positive("n_mamba_heads", max(1, config.positive("mamba_expand", 2) * hidden // head_dim))
    cache = Mamba2State(
        num_heads=heads,
        head_dim=config.positive("mamba_expand", 2) * hidden // heads,
        state_size=config.positive("mamba_d_state", 64),
        n_groups=config.positive("mamba_ngroups", 1),
        conv_kernel=config.positive("mamba_d_conv", 4),
    )
    mixer = (
        *mamba2_mixer(
            hidden, cache, name="mamba", bias=config.flag("add_bias_linear", False), conv_bias=True
        ),
        *norm("input_layernorm", hidden),
    )
    num_hybrid = sum(kind == HYBRID for kind in kinds)
    plain = Layer((cache,), mixer)
    own = (*linear("linear", hidden, hidden, "other"), *_adapters(config, hidden))
    hybrid = Layer((cache, _full(shape)), (*mixer, *own))
    groups = by_index(layers, lambda index: hybrid if kinds[index] == HYBRID else plain)
    width, bias = config.positive("intermediate_size", 4 * hidden), config.flag("add_bias_linear", False)
    block = (
        *_attention(shape, hidden),
        *linear(
            "shared_transformer.feed_forward.gate_up_proj", 2 * width, hidden, "mlp", bias=bias, split="out"
        ),
        *linear("shared_transformer.feed_forward.down_proj", hidden, width, "mlp", bias=bias, split="in"),
        *norm("shared_transformer.input_layernorm", 2 * hidden),
        *norm("shared_transformer.pre_ff_layernorm", hidden),
    )
    blocks = block * min(config.positive("num_mem_blocks", 1), num_hybrid)
    return finish(config, shape, groups, tied=True, extra=blocks, norm_name="model.final_layernorm")


def _wide_shape(config: Config, hidden: int) -> Shape:
    """Read attention over two inputs side by side; Zamba2's files also state an unused kv_channels."""
    wide = 2 * hidden
    head_dim = config.positive("attention_head_dim", max(1, wide // config.positive("num_attention_heads")))
    shape = shape_of(config.override({"head_dim": head_dim}))
    if config.positive("attention_hidden_size", wide) != wide or shape.num_attention_heads * head_dim != wide:
        raise config.invalid("attention_head_dim", f"is {head_dim}: the heads are not twice hidden_size wide")
    return shape


def _full(shape: Shape) -> FullAttention:
    return FullAttention(shape.num_attention_heads, shape.num_key_value_heads, shape.head_dim, shape.head_dim)


def _attention(shape: Shape, hidden: int) -> tuple[Tensor, ...]:
    query = shape.num_attention_heads * shape.head_dim
    rows, heads = shape.num_key_value_heads * shape.head_dim, shape.num_key_value_heads
    return (
        *linear("self_attn.q_proj", query, 2 * hidden, "attention", split="out"),
        *linear("self_attn.k_proj", rows, 2 * hidden, "attention", split="kv", num_heads=heads),
        *linear("self_attn.v_proj", rows, 2 * hidden, "attention", split="kv", num_heads=heads),
        *linear("self_attn.o_proj", hidden, query, "attention", split="in"),
    )


def _adapters(config: Config, hidden: int) -> tuple[Tensor, ...]:
    """Return one hybrid layer's low-rank additions to the block it shares."""
    rank, width = config.positive("adapter_rank", 128), config.positive("intermediate_size", 4 * hidden)
    adapters = (
        *linear("gate_up_proj_adapter.0", rank, hidden, "mlp"),
        *linear("gate_up_proj_adapter.1", 2 * width, rank, "mlp"),
    )
    if config.flag("use_shared_attention_adapter", False):
        adapters += tuple(
            tensor
            for name in ("q", "k", "v")
            for tensor in (
                *linear(f"linear_{name}_adapter.0", rank, 2 * hidden, "attention"),
                *linear(f"linear_{name}_adapter.1", 2 * hidden, rank, "attention"),
            )
        )
    return adapters
