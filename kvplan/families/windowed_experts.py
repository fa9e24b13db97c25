"""Mixtures of experts with norms on heads and windows on most layers: Mellum, Flint, Kolibri 1, Beam.

Source: transformers 5.23 models/mellum, flint, kolibri1, beam.
"""

from kvplan.blocks.attention_pattern import (
    FULL,
    SLIDING,
    every_nth_full,
    layer_types,
    unknown_layer_type,
    window_of,
)
from kvplan.blocks.decoder import Shape, attention_cache, by_index, finish, shape_of
from kvplan.blocks.transformer import attention, experts, gated_mlp, router
from kvplan.config import Config
from kvplan.layers import Layer
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear, norm

TWO_NORMS = ("input_layernorm", "post_attention_layernorm")


def mellum(config: Config) -> Structure:
    """Read Mellum: every MLP routed where ``mlp_layer_types`` says so, windows by ``layer_types``."""
    shape = _shape(config)
    routed = _routed(config, shape)
    sparse, usual = _sparse(config, shape, ()), (FULL,) * shape.num_layers
    return _close(config, shape, usual, _attention(config, shape), routed, sparse, TWO_NORMS)


def flint(config: Config) -> Structure:
    """Read Flint: attention sinks, a shared expert without a gate, dense layers by ``mlp_only_layers``."""
    shape = _shape(config)
    shared = config.positive("shared_expert_intermediate_size")
    routed = (
        *_routed(config, shape),
        *gated_mlp(shape.hidden_size, shared, name="mlp.shared_expert", role="shared_expert"),
    )
    own = (
        *_attention(config, shape),
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
        *_routed(config, shape),
        *gated_mlp(shape.hidden_size, shared, name="mlp.shared_experts", role="shared_expert"),
    )
    norms = (*TWO_NORMS, "post_self_attn_layernorm", "post_mlp_layernorm")
    usual = every_nth_full(shape.num_layers, 5)
    sparse = (True,) * shape.num_layers
    return _close(config, shape, usual, _attention(config, shape), routed, sparse, norms)


def beam(config: Config) -> Structure:
    """Read Beam: gated attention, four norms, dense first layers."""
    shape = _shape(config)
    rows = shape.num_attention_heads * shape.head_dim
    own = (
        *_attention(config, shape),
        *linear("self_attn.gate_proj", rows, shape.hidden_size, "attention", split="out"),
        Tensor("self_attn.gate_bias", (shape.num_attention_heads,), "attention", split="out"),
    )
    dense = tuple("dense" if index < 3 else "sparse" for index in range(shape.num_layers))
    norms = (*TWO_NORMS, "pre_feedforward_layernorm", "post_feedforward_layernorm")
    usual = (*every_nth_full(shape.num_layers - 1, 6), FULL)
    return _close(config, shape, usual, own, _routed(config, shape), _sparse(config, shape, dense), norms)


def _shape(config: Config) -> Shape:
    return shape_of(config, head_dim=None if config.has("head_dim") else 128)


def _attention(config: Config, shape: Shape) -> tuple[Tensor, ...]:
    bias = config.flag("attention_bias", False)
    return (
        *attention(
            shape.hidden_size,
            shape.num_attention_heads,
            shape.num_key_value_heads,
            shape.head_dim,
            qkv_bias=bias,
            o_bias=bias,
        ),
        *norm("self_attn.q_norm", shape.head_dim),
        *norm("self_attn.k_norm", shape.head_dim),
    )


def _routed(config: Config, shape: Shape) -> tuple[Tensor, ...]:
    num_experts, active = config.positive("num_experts"), config.positive("num_experts_per_tok")
    if active > num_experts:
        raise config.invalid("num_experts_per_tok", f"is {active}, more than {num_experts} experts")
    width = config.positive("moe_intermediate_size")
    return (
        *experts(shape.hidden_size, width, num_experts, active),
        *router(shape.hidden_size, num_experts),
    )


def _sparse(config: Config, shape: Shape, usual: tuple[str, ...]) -> tuple[bool, ...]:
    kinds = config.per_layer("mlp_layer_types", shape.num_layers) or usual or ("sparse",) * shape.num_layers
    unknown = next((kind for kind in kinds if kind not in ("sparse", "dense")), None)
    if unknown is not None:
        raise unknown_layer_type(config, unknown)
    return tuple(kind == "sparse" for kind in kinds)


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
    norms = tuple(tensor for name in norm_names for tensor in norm(name, shape.hidden_size))
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
