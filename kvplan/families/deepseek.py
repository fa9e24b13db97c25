"""DeepSeek: latent attention (MLA), shared and routed experts, an indexer from V3.2 on.

DeepSeek V2, V3, R1 and Kimi-K2 in transformers 5.23's classes (models/deepseek_v2, deepseek_v3,
deepseek_v32, glm_moe_dsa); DeepSeek-MoE-16B (v1) with plain attention from its own repository.
"""

from collections.abc import Callable

from kvplan.blocks.attention_pattern import unknown_layer_type
from kvplan.blocks.decoder import TWO_NORMS, Shape, attention_cache, by_index, finish, shape_of
from kvplan.blocks.latent import latent_attention, latent_cache, latent_shape
from kvplan.blocks.routing import num_experts_of
from kvplan.blocks.transformer import attention, experts, gated_mlp, router
from kvplan.config import Config
from kvplan.errors import UnsupportedArchitecture
from kvplan.layers import Layer, LayerGroup
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear, norm, norms_of


def _feed_forward(config: Config, hidden_size: int, *, is_sparse: bool) -> tuple[Tensor, ...]:
    if not is_sparse:
        return gated_mlp(hidden_size, config.positive("intermediate_size"))
    num_experts, active = num_experts_of(config)
    expert_size = config.positive("moe_intermediate_size")
    num_shared = config.integer("n_shared_experts", 0)
    shared: tuple[Tensor, ...] = ()
    if num_shared:
        shared = gated_mlp(
            hidden_size, expert_size * num_shared, name="mlp.shared_experts", role="shared_expert"
        )
    return (
        *experts(hidden_size, expert_size, num_experts, active),
        *router(hidden_size, num_experts),
        *shared,
    )


def _is_sparse(config: Config, index: int) -> bool:
    if not config.has("num_experts"):
        return False
    kinds = config.texts("mlp_layer_types")
    if kinds is not None and index < len(kinds):
        if kinds[index] not in ("sparse", "dense"):
            raise unknown_layer_type(config, kinds[index])
        return kinds[index] == "sparse"
    freq = config.raw("moe_layer_freq")
    if isinstance(freq, list | tuple):
        return bool(index < len(freq) and freq[index])
    if config.positive("moe_layer_freq", 1) != 1:
        raise UnsupportedArchitecture(
            f"{config.origin}: moe_layer_freq {config.integer('moe_layer_freq')} is not known",
            why="vLLM routes every such layer, transformers 5.23 ignores the key",
            hint="report the model",
        )
    return index >= config.integer("first_k_dense_replace", 0)


def deepseek_v2(config: Config) -> Structure:
    """Read DeepSeek V2, V3, R1 and Kimi-K2: latent attention, one MTP layer where the config names it."""
    return _mla_model(config, _no_indexer)


def glm4_moe_lite(config: Config) -> Structure:
    """Read GLM-4.7-Flash: V3's layer, the first one dense where the file does not say."""
    return _mla_model(config.behind({"first_k_dense_replace": 1}), _no_indexer)


def deepseek_v32(config: Config) -> Structure:
    """Read DeepSeek-V3.2: V3 with an indexer on every layer."""
    return _mla_model(config, _every_layer_indexes)


def glm_moe_dsa(config: Config) -> Structure:
    """Read GLM-5: V3.2's attention; layers whose ``indexer_types`` is ``shared`` store no index key."""
    return _mla_model(config, _listed_indexers)


def _no_indexer(config: Config, index: int) -> bool:  # noqa: ARG001 - one signature for the three
    return False


def _every_layer_indexes(config: Config, index: int) -> bool:  # noqa: ARG001
    return True


def _listed_indexers(config: Config, index: int) -> bool:
    kinds = config.texts("indexer_types")
    if kinds is None or index >= len(kinds):
        return True
    if kinds[index] not in ("full", "shared"):
        raise unknown_layer_type(config, kinds[index])
    return kinds[index] == "full"


def _indexer(config: Config, shape: Shape) -> tuple[Tensor, ...]:
    # transformers 5.23 models/deepseek_v32: queries from the low-rank q, one key, one weight a head.
    num_heads, head_dim = config.positive("index_n_heads"), config.positive("index_head_dim")
    return (
        *linear("self_attn.indexer.wq_b", num_heads * head_dim, config.positive("q_lora_rank"), "indexer"),
        *linear("self_attn.indexer.wk", head_dim, shape.hidden_size, "indexer"),
        *norm("self_attn.indexer.k_norm", head_dim, bias=True),
        *linear("self_attn.indexer.weights_proj", num_heads, shape.hidden_size, "indexer"),
    )


def axk1(config: Config) -> Structure:
    """Read A.X K1: DeepSeek-V3 with a norm after each routed MLP; the first layer is dense."""
    usual = config.behind({"first_k_dense_replace": 1})
    after = norm("mlp.post_mlp_layernorm", config.positive("hidden_size"))
    return _mla_model(usual, _no_indexer, sparse_norms=after)


def pangu_ultra_moe(config: Config) -> Structure:
    """Read openPangu Ultra MoE (modeling_openpangu_moe.py): V3 with ``sandwich_norm`` around the MLP."""
    around: tuple[Tensor, ...] = ()
    if config.flag("sandwich_norm", False):
        hidden = config.positive("hidden_size")
        around = (*norm("pre_mlp_layernorm", hidden), *norm("post_mlp_layernorm", hidden))
    return _mla_model(config, _no_indexer, more_norms=around)


def _mla_model(
    config: Config,
    indexes: Callable[[Config, int], bool],
    *,
    more_norms: tuple[Tensor, ...] = (),
    sparse_norms: tuple[Tensor, ...] = (),
) -> Structure:
    shape = latent_shape(config)
    latent = latent_attention(config, latent_cache(config), q_lora_rank=config.integer("q_lora_rank", None))
    norms = (*norms_of(shape.hidden_size, *TWO_NORMS), *more_norms)
    made: dict[tuple[bool, bool], Layer] = {}

    def make(index: int) -> Layer:
        key = (_is_sparse(config, index), indexes(config, index))
        if key not in made:
            is_sparse, has_index = key
            index_tensors = _indexer(config, shape) if has_index else ()
            feed_forward = _feed_forward(config, shape.hidden_size, is_sparse=is_sparse)
            if is_sparse:
                feed_forward += sparse_norms
            made[key] = Layer(
                (latent_cache(config, has_index=has_index),), (*latent, *index_tensors, *feed_forward, *norms)
            )
        return made[key]

    layers = by_index(shape.num_layers, make)
    num_mtp = config.integer("num_nextn_predict_layers", 0)
    mtp: tuple[LayerGroup, ...] = ()
    if num_mtp:
        last = make(shape.num_layers - 1)
        hidden = shape.hidden_size
        extra = (
            *linear("eh_proj", hidden, 2 * hidden, "mtp"),
            *norm("enorm", hidden),
            *norm("hnorm", hidden),
            *norm("shared_head.norm", hidden),
        )
        mtp = (LayerGroup(Layer(last.caches, (*last.tensors, *extra)), num_mtp),)
    return finish(config, shape, layers, tied=False, mtp_layers=mtp)


def deepseek_v1(config: Config) -> Structure:
    """Read DeepSeek-MoE-16B (deepseek-ai modeling_deepseek.py): plain attention, V2's experts."""
    shape = shape_of(config)
    bias = config.flag("attention_bias", False)
    attention_tensors = attention(
        shape.hidden_size,
        shape.num_attention_heads,
        shape.num_key_value_heads,
        shape.head_dim,
        qkv_bias=bias,
        o_bias=bias,
    )

    def make(index: int) -> Layer:
        feed_forward = _feed_forward(config, shape.hidden_size, is_sparse=_is_sparse(config, index))
        return Layer(
            (attention_cache(shape, "full_attention", 0),),
            (*attention_tensors, *feed_forward, *norms_of(shape.hidden_size, *TWO_NORMS)),
        )

    return finish(config, shape, by_index(shape.num_layers, make), tied=False)
