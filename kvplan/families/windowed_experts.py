"""Mixtures of experts with norms on heads and windows on most layers: Mellum, Flint, Kolibri 1, Beam.

Source: transformers 5.23 models/mellum, flint, kolibri1, beam.
"""

from kvplan.blocks.attention_pattern import (
    FULL,
    SLIDING,
    every_nth_full,
    layer_types,
    window_of,
)
from kvplan.blocks.decoder import TWO_NORMS, Shape, attention_cache, attention_of, by_index, finish, shape_of
from kvplan.blocks.routing import routed_mlp, sparse_of, stated_sparse
from kvplan.blocks.transformer import gated_mlp
from kvplan.config import Config
from kvplan.layers import Layer
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear, norms_of


def mellum(config: Config) -> Structure:
    """Read Mellum: every MLP routed where ``mlp_layer_types`` says so, windows by ``layer_types``."""
    shape = _shape(config)
    routed = routed_mlp(config, shape.hidden_size, config.positive("moe_intermediate_size"))
    sparse, usual = _sparse(config, shape, ()), (FULL,) * shape.num_layers
    return _close(config, shape, usual, _heads(config, shape), routed, sparse, TWO_NORMS)


def flint(config: Config) -> Structure:
    """Read Flint: attention sinks, a shared expert without a gate, dense layers by ``mlp_only_layers``."""
    shape = _shape(config)
    shared = config.positive("shared_expert_intermediate_size")
    routed = (
        *routed_mlp(config, shape.hidden_size, config.positive("moe_intermediate_size")),
        *gated_mlp(shape.hidden_size, shared, name="mlp.shared_expert", role="shared_expert"),
    )
    own = (
        *_heads(config, shape),
        Tensor("self_attn.sinks", (shape.num_attention_heads,), "attention", split="out"),
    )
    listed = config.integers("mlp_only_layers")
    dense = (0, 1) if listed is None else listed
    step, last = config.positive("decoder_sparse_step", 1), shape.num_layers - 1
    sparse = tuple(index not in dense and (index + 1) % step == 0 for index in range(shape.num_layers))
    usual = tuple(
        FULL if index < 2 or index % 4 == 1 or index == last else SLIDING for index in range(last + 1)
    )
    return _close(config, shape, usual, own, routed, sparse, TWO_NORMS)


def kolibri1(config: Config) -> Structure:
    """Read Kolibri 1: four norms, a shared expert beside the routed ones on every layer."""
    shape = _shape(config)
    shared = config.positive("shared_expert_intermediate_size")
    routed = (
        *routed_mlp(config, shape.hidden_size, config.positive("moe_intermediate_size")),
        *gated_mlp(shape.hidden_size, shared, name="mlp.shared_experts", role="shared_expert"),
    )
    norms = (*TWO_NORMS, "post_self_attn_layernorm", "post_mlp_layernorm")
    usual = every_nth_full(shape.num_layers, 5)
    sparse = (True,) * shape.num_layers
    return _close(config, shape, usual, _heads(config, shape), routed, sparse, norms)


def beam(config: Config) -> Structure:
    """Read Beam: gated attention, four norms, dense first layers."""
    shape = _shape(config)
    rows = shape.num_attention_heads * shape.head_dim
    own = (
        *_heads(config, shape),
        *linear("self_attn.gate_proj", rows, shape.hidden_size, "attention", split="out"),
        Tensor("self_attn.gate_bias", (shape.num_attention_heads,), "attention", split="out"),
    )
    dense = tuple("dense" if index < 3 else "sparse" for index in range(shape.num_layers))
    norms = (*TWO_NORMS, "pre_feedforward_layernorm", "post_feedforward_layernorm")
    usual = (*every_nth_full(shape.num_layers - 1, 6), FULL)
    return _close(
        config,
        shape,
        usual,
        own,
        routed_mlp(config, shape.hidden_size, config.positive("moe_intermediate_size")),
        _sparse(config, shape, dense),
        norms,
    )


def _shape(config: Config) -> Shape:
    return shape_of(config, head_dim=None if config.has("head_dim") else 128)


def _heads(config: Config, shape: Shape) -> tuple[Tensor, ...]:
    bias = config.flag("attention_bias", False)
    return attention_of(shape, qkv_bias=bias, o_bias=bias, qk_norm="head")


def _sparse(config: Config, shape: Shape, usual: tuple[str, ...]) -> tuple[bool, ...]:
    stated = stated_sparse(config, shape.num_layers)
    return stated or sparse_of(config, usual or ("sparse",) * shape.num_layers)


def _close(
    config: Config,
    shape: Shape,
    usual: tuple[str, ...],
    own: tuple[Tensor, ...],
    routed: tuple[Tensor, ...],
    sparse: tuple[bool, ...],
    norm_names: tuple[str, ...],
) -> Structure:
    kinds = layer_types(config, shape.num_layers) or usual
    window = window_of(config, kinds)
    norms = norms_of(shape.hidden_size, *norm_names)
    dense: tuple[Tensor, ...] = ()
    if not all(sparse):
        dense = gated_mlp(shape.hidden_size, config.positive("intermediate_size"))
    made: dict[tuple[str, bool], Layer] = {}

    def make(index: int) -> Layer:
        key = (kinds[index], sparse[index])
        if key not in made:
            cache = attention_cache(shape, key[0], window)
            made[key] = Layer((cache,), (*own, *(routed if key[1] else dense), *norms))
        return made[key]

    return finish(config, shape, by_index(shape.num_layers, make), tied=False)
