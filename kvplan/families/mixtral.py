"""Mixtures of experts around grouped-query attention: Mixtral, Qwen-MoE, OLMoE, GLM-4.5, MiniMax-M2.

A token uses ``num_experts_per_tok`` of the routed experts; shared experts and dense first layers
are always used. Routers' score corrections are buffers in transformers and do not count. Class
defaults: transformers 5.23 models/*/configuration_*.py.
"""

from kvplan.blocks.attention_pattern import FULL, SLIDING, layer_types, switched_window, window_of
from kvplan.blocks.decoder import (
    TWO_NORMS,
    Shape,
    attention_cache,
    attention_of,
    by_index,
    finish,
    patterned,
    shape_of,
    uniform,
)
from kvplan.blocks.transformer import experts, gated_mlp, router
from kvplan.config import Config
from kvplan.layers import Layer, LayerGroup
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear, norm, norms_of


def _routed(
    config: Config, shape: Shape, intermediate_key: str = "moe_intermediate_size"
) -> tuple[Tensor, ...]:
    num_experts = config.positive("num_experts")
    return (
        *experts(
            shape.hidden_size,
            config.positive(intermediate_key),
            num_experts,
            _active(config, num_experts),
        ),
        *router(shape.hidden_size, num_experts),
    )


def _active(config: Config, num_experts: int, default: int | None = None) -> int:
    active = config.positive("num_experts_per_tok", default)
    if active > num_experts:
        raise config.invalid("num_experts_per_tok", f"is {active}, more than {num_experts} experts")
    return active


def mixtral(config: Config) -> Structure:
    """Read Mixtral: every MLP is routed; a window only where the config names one."""
    shape = shape_of(config, num_key_value_heads=None if config.has("num_key_value_heads") else 8)
    num_experts = config.positive("num_experts", 8)
    kinds = ((SLIDING if config.has("sliding_window") else FULL),) * shape.num_layers
    tensors = (
        *attention_of(shape),
        *experts(
            shape.hidden_size,
            config.positive("intermediate_size"),
            num_experts,
            _active(config, num_experts, 2),
        ),
        *router(shape.hidden_size, num_experts),
        *norms_of(shape.hidden_size, *TWO_NORMS),
    )
    return finish(config, shape, patterned(shape, kinds, window_of(config, kinds), tensors), tied=False)


def qwen2_moe(config: Config) -> Structure:
    """Read Qwen1.5/2-MoE: biased q, k, v, a gated shared expert, some dense layers."""
    shape = shape_of(config)
    shared = config.positive("shared_expert_intermediate_size")
    kinds = layer_types(config, shape.num_layers) or _every_other_window(config, shape.num_layers)
    window = window_of(config, kinds)
    bias = config.flag("qkv_bias", True)
    sparse = (
        *attention_of(shape, qkv_bias=bias),
        *_routed(config, shape),
        *gated_mlp(shape.hidden_size, shared, name="mlp.shared_expert", role="shared_expert"),
        *linear("mlp.shared_expert_gate", 1, shape.hidden_size, "router"),
        *norms_of(shape.hidden_size, *TWO_NORMS),
    )
    return _sparse_and_dense(config, shape, kinds, window, sparse, attention_of(shape, qkv_bias=bias))


def _every_other_window(config: Config, num_layers: int) -> tuple[str, ...]:
    # configuration_qwen2_moe.py: every other layer below max_window_layers, where windows are on.
    slides = config.flag("use_sliding_window", False) and config.has("sliding_window")
    last = config.integer("max_window_layers", 28) if slides else 0
    return tuple(SLIDING if index % 2 == 0 and index < last else FULL for index in range(num_layers))


def qwen3_moe(config: Config) -> Structure:
    """Read Qwen3-MoE: q/k norms, no shared expert; ``mlp_only_layers`` and ``decoder_sparse_step``."""
    shape = shape_of(config, head_dim=None if config.has("head_dim") else _hidden_head(config))
    kinds = layer_types(config, shape.num_layers) or switched_window(config, shape.num_layers, 28)
    bias = config.flag("attention_bias", False)
    attention_tensors = attention_of(shape, qkv_bias=bias, o_bias=bias, qk_norm="head")
    sparse = (*attention_tensors, *_routed(config, shape), *norms_of(shape.hidden_size, *TWO_NORMS))
    return _sparse_and_dense(config, shape, kinds, window_of(config, kinds), sparse, attention_tensors)


def _hidden_head(config: Config) -> int:
    return max(1, config.positive("hidden_size") // config.positive("num_attention_heads"))


def _sparse_and_dense(
    config: Config,
    shape: Shape,
    kinds: tuple[str, ...],
    window: int,
    sparse: tuple[Tensor, ...],
    attention_tensors: tuple[Tensor, ...],
) -> Structure:
    # transformers 5.23 modeling_qwen2_moe.py: layer i is routed when it is not listed as dense and
    # (i + 1) is a multiple of decoder_sparse_step.
    dense_layers = set(config.integers("mlp_only_layers") or ())
    step = config.positive("decoder_sparse_step", 1)
    dense: tuple[Tensor, ...] = ()
    if dense_layers or step > 1:
        dense = (
            *attention_tensors,
            *gated_mlp(shape.hidden_size, config.positive("intermediate_size")),
            *norms_of(shape.hidden_size, *TWO_NORMS),
        )

    def make(index: int) -> Layer:
        is_sparse = index not in dense_layers and (index + 1) % step == 0
        return Layer((attention_cache(shape, kinds[index], window),), sparse if is_sparse else dense)

    return finish(config, shape, by_index(shape.num_layers, make), tied=False)


def olmoe(config: Config) -> Structure:
    """Read OLMoE: norms over all query and key heads, every MLP routed."""
    shape = shape_of(config)
    bias = config.flag("attention_bias", False)
    num_experts = config.positive("num_experts", 64)
    tensors = (
        *attention_of(shape, qkv_bias=bias, o_bias=bias, qk_norm="all"),
        *experts(
            shape.hidden_size,
            config.positive("intermediate_size"),
            num_experts,
            _active(config, num_experts, 8),
        ),
        *router(shape.hidden_size, num_experts),
        *norms_of(shape.hidden_size, *TWO_NORMS),
    )
    return finish(config, shape, uniform(shape, tensors), tied=False)


def minimax_m2(config: Config) -> Structure:
    """Read MiniMax-M2: norms over all query and key heads, every MLP routed, MTP beside."""
    shape = shape_of(config)
    tensors = (
        *attention_of(shape, qk_norm="all"),
        *_routed(config, shape, "intermediate_size"),
        *norms_of(shape.hidden_size, *TWO_NORMS),
    )
    num_mtp = config.integer("num_mtp_modules", 0) if config.flag("use_mtp", False) else 0
    return finish(
        config,
        shape,
        uniform(shape, tensors),
        tied=False,
        mtp_layers=_mtp(shape, tensors, num_mtp),
    )


def glm4_moe(config: Config) -> Structure:
    """Read GLM-4.5 and 4.6: biased q, k, v, dense first layers, shared experts, an MTP layer."""
    shape = shape_of(config)
    qk_norm = "head" if config.flag("use_qk_norm", False) else ""
    attention_tensors = attention_of(shape, qkv_bias=config.flag("attention_bias", False), qk_norm=qk_norm)
    expert_size = config.positive("moe_intermediate_size")
    shared = expert_size * config.positive("n_shared_experts", 1)
    sparse = (
        *attention_tensors,
        *_routed(config, shape),
        *gated_mlp(shape.hidden_size, shared, name="mlp.shared_experts", role="shared_expert"),
        *norms_of(shape.hidden_size, *TWO_NORMS),
    )
    dense = (
        *attention_tensors,
        *gated_mlp(shape.hidden_size, config.positive("intermediate_size")),
        *norms_of(shape.hidden_size, *TWO_NORMS),
    )
    num_dense = min(config.integer("first_k_dense_replace", 1), shape.num_layers)
    cache = (attention_cache(shape, FULL, 0),)
    layers = tuple(
        group
        for group in (
            LayerGroup(Layer(cache, dense), num_dense),
            LayerGroup(Layer(cache, sparse), shape.num_layers - num_dense),
        )
        if group.count
    )
    num_mtp = config.integer("num_nextn_predict_layers", 0)
    return finish(config, shape, layers, tied=False, mtp_layers=_mtp(shape, sparse, num_mtp))


def _mtp(shape: Shape, tensors: tuple[Tensor, ...], count: int) -> tuple[LayerGroup, ...]:
    # DeepSeek-V3, arXiv 2412.19437, section 2.2: a layer, two norms and a projection of both inputs.
    if not count:
        return ()
    hidden = shape.hidden_size
    extra = (
        *linear("eh_proj", hidden, 2 * hidden, "mtp"),
        *norm("enorm", hidden),
        *norm("hnorm", hidden),
        *norm("shared_head.norm", hidden),
    )
    return (LayerGroup(Layer((attention_cache(shape, FULL, 0),), (*tensors, *extra)), count),)
