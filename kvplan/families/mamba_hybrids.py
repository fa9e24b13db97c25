"""Mamba beside attention: Jamba, Bamba and Granite-4-H layer by layer, Falcon-H1 in every layer.

A state-space mixer caches a convolution and a state, an attention layer keys and values; Falcon-H1's
layers hold both. Source: transformers 5.23 models/jamba, bamba, granitemoehybrid, falcon_h1.
"""

from kvplan.blocks.attention_pattern import unknown_layer_type
from kvplan.blocks.decoder import Shape, by_index, finish, shape_of
from kvplan.blocks.state_space import mamba1_mixer, mamba2_mixer
from kvplan.blocks.transformer import attention, experts, gated_mlp, router
from kvplan.config import Config
from kvplan.layers import Cache, FullAttention, Layer, LayerGroup, Mamba1State, Mamba2State
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear, norm, norms_of


def _attention_of(shape: Shape, bias: bool) -> tuple[Tensor, ...]:
    return attention(
        shape.hidden_size,
        shape.num_attention_heads,
        shape.num_key_value_heads,
        shape.head_dim,
        qkv_bias=bias,
        o_bias=bias,
    )


def _full(shape: Shape) -> FullAttention:
    return FullAttention(shape.num_attention_heads, shape.num_key_value_heads, shape.head_dim, shape.head_dim)


def _is_count(config: Config, key: str) -> bool:
    return isinstance(config.raw(key), int)


def jamba(config: Config) -> Structure:
    """Read Jamba: an attention layer every ``attn_layer_period``, experts every second MLP."""
    shape = shape_of(config, num_key_value_heads=None if config.has("num_key_value_heads") else 8)
    hidden = shape.hidden_size
    inner = hidden * config.positive("mamba_expand", 2)
    state, kernel = config.positive("mamba_d_state", 16), config.positive("mamba_d_conv", 4)
    rank = config.positive("mamba_dt_rank") if _is_count(config, "mamba_dt_rank") else -(-hidden // 16)
    period, offset = config.positive("attn_layer_period", 8), config.integer("attn_layer_offset", 4)
    expert_period = config.positive("expert_layer_period", 2)
    expert_offset = config.integer("expert_layer_offset", 1)
    num_experts = config.positive("num_experts", 16)
    width = config.positive("intermediate_size")
    mixer = (
        *mamba1_mixer(
            hidden,
            inner,
            state,
            rank,
            kernel,
            name="mamba",
            bias=config.flag("mamba_proj_bias", False),
            conv_bias=config.flag("mamba_conv_bias", True),
        ),
        *norm("mamba.dt_layernorm", rank),
        *norm("mamba.b_layernorm", state),
        *norm("mamba.c_layernorm", state),
    )

    def make(index: int) -> Layer:
        is_attention = index % period == offset
        routed = num_experts > 1 and index % expert_period == expert_offset
        feed_forward = gated_mlp(hidden, width, name="feed_forward")
        if routed:
            feed_forward = (
                *experts(
                    hidden,
                    width,
                    num_experts,
                    config.positive("num_experts_per_tok", 2),
                    name="feed_forward.experts",
                ),
                *router(hidden, num_experts, name="feed_forward.router"),
            )
        cache: Cache = _full(shape) if is_attention else Mamba1State(inner, state, kernel)
        tensors = _attention_of(shape, False) if is_attention else mixer
        return Layer(
            (cache,), (*tensors, *feed_forward, *norms_of(hidden, "input_layernorm", "pre_ff_layernorm"))
        )

    return finish(config, shape, by_index(shape.num_layers, make), tied=False)


def _mamba2_of(config: Config, hidden: int) -> Mamba2State:
    inner = config.positive("mamba_d_ssm", hidden * config.positive("mamba_expand", 2))
    heads = config.positive("mamba_n_heads", 128)
    head_dim = (
        config.positive("mamba_d_head", max(1, inner // heads))
        if _is_count(config, "mamba_d_head")
        else max(1, inner // heads)
    )
    return Mamba2State(
        heads,
        head_dim,
        config.positive("mamba_d_state", 256),
        config.positive("mamba_n_groups", 1),
        config.positive("mamba_d_conv", 4),
    )


def bamba(config: Config) -> Structure:
    """Read Bamba: Mamba-2 layers, attention at ``attn_layer_indices``, a gated MLP in each."""
    shape = shape_of(config, num_key_value_heads=None if config.has("num_key_value_heads") else 8)
    hidden = shape.hidden_size
    cache = _mamba2_of(config, hidden)
    listed = set(config.integers("attn_layer_indices") or ())
    kinds = config.per_layer("layers_block_type", shape.num_layers) or config.per_layer(
        "layer_types", shape.num_layers
    )
    common = (
        *gated_mlp(
            hidden,
            config.positive("intermediate_size"),
            bias=config.flag("mlp_bias", False),
            name="feed_forward",
        ),
        *norms_of(hidden, "input_layernorm", "pre_ff_layernorm"),
    )
    mixer = _mamba2_mixer(config, hidden, cache)
    bias = config.flag("attention_bias", False)

    def make(index: int) -> Layer:
        is_attention = index in listed
        if kinds is not None:
            is_attention = _is_attention(config, kinds[index])
        if is_attention:
            return Layer((_full(shape),), (*_attention_of(shape, bias), *common))
        return Layer((cache,), (*mixer, *common))

    return finish(config, shape, by_index(shape.num_layers, make), tied=False)


def _mamba2_mixer(config: Config, hidden: int, cache: Mamba2State) -> tuple[Tensor, ...]:
    return mamba2_mixer(
        hidden,
        cache,
        name="mamba",
        bias=config.flag("mamba_proj_bias", False),
        conv_bias=config.flag("mamba_conv_bias", True),
    )


def _is_attention(config: Config, kind: str) -> bool:
    if kind in ("attention", "full_attention"):
        return True
    if kind in ("mamba", "mamba2", "linear_attention"):
        return False
    raise unknown_layer_type(config, kind)


def granite_hybrid(config: Config) -> Structure:
    """Read Granite 4 H: Mamba-2 or attention, then experts and a shared MLP."""
    shape = shape_of(config)
    hidden = shape.hidden_size
    cache = _mamba2_of(config, hidden)
    kinds = config.per_layer("layer_types", shape.num_layers) or config.per_layer(
        "layers_block_type", shape.num_layers
    )
    if kinds is None:
        kinds = ("mamba",) * shape.num_layers
    num_experts = config.integer("num_experts", 8)
    width = config.positive("intermediate_size")
    shared = config.positive("shared_intermediate_size", 1024)
    common: tuple[Tensor, ...] = (
        *linear("shared_mlp.input_linear", 2 * shared, hidden, "shared_expert", split="out"),
        *linear("shared_mlp.output_linear", hidden, shared, "shared_expert", split="in"),
        *norms_of(hidden, "input_layernorm", "post_attention_layernorm"),
    )
    if num_experts:
        common += (
            *experts(
                hidden, width, num_experts, config.positive("num_experts_per_tok", 2), name="block_sparse_moe"
            ),
            *router(hidden, num_experts, name="block_sparse_moe.router.layer"),
        )
    mixer = _mamba2_mixer(config, hidden, cache)
    bias = config.flag("attention_bias", False)

    def make(index: int) -> Layer:
        if _is_attention(config, kinds[index]):
            return Layer((_full(shape),), (*_attention_of(shape, bias), *common))
        return Layer((cache,), (*mixer, *common))

    return finish(config, shape, by_index(shape.num_layers, make), tied=False)


def falcon_h1(config: Config) -> Structure:
    """Read Falcon-H1: attention and Mamba-2 side by side in every layer."""
    shape = shape_of(config, num_key_value_heads=None if config.has("num_key_value_heads") else 8)
    hidden = shape.hidden_size
    cache = _mamba2_of(config, hidden)
    bias = config.flag("attention_bias", False)
    tensors = (
        *_attention_of(shape, bias),
        *mamba2_mixer(
            hidden,
            cache,
            name="mamba",
            bias=config.flag("mamba_proj_bias", False),
            conv_bias=config.flag("mamba_conv_bias", True),
            gated_norm=config.flag("mamba_rms_norm", False),
            out_bias=config.flag("projectors_bias", False),
        ),
        *gated_mlp(
            hidden,
            config.positive("intermediate_size"),
            bias=config.flag("mlp_bias", False),
            name="feed_forward",
        ),
        *norms_of(hidden, "input_layernorm", "pre_ff_layernorm"),
    )
    layer = Layer((_full(shape), cache), tensors)
    return finish(config, shape, (LayerGroup(layer, shape.num_layers),), tied=False)
