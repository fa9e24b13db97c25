"""More mixtures of experts: AFMoE, Laguna, MiMo-V2, MiniMax-M3.

transformers 5.23 models/afmoe, laguna, mimo_v2_flash, minimax_m3_vl.
"""

from kvplan.blocks.attention_pattern import FULL, SLIDING, layer_types
from kvplan.blocks.decoder import Shape, attention_cache, by_index, finish, shape_of
from kvplan.blocks.routing import routed_mlp, stated_sparse
from kvplan.blocks.transformer import attention, gated_mlp
from kvplan.config import Config
from kvplan.layers import FullAttention, Layer, SlidingWindow
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear, norms_of


def _sparse_layers(config: Config, num_layers: int, default_dense: int) -> tuple[bool, ...]:
    stated = stated_sparse(config, num_layers)
    if stated is not None:
        return stated
    freq = config.raw("moe_layer_freq")
    if isinstance(freq, list) and len(freq) >= num_layers:
        return tuple(bool(flag) for flag in freq[:num_layers])
    return tuple(index >= default_dense for index in range(num_layers))


def afmoe(config: Config) -> Structure:
    """Read AFMoE (Trinity): gated attention, four norms, experts with a learned bias."""
    shape = shape_of(config, head_dim=None if config.has("head_dim") else 128)
    hidden = shape.hidden_size
    kinds = layer_types(config, shape.num_layers)
    if kinds is None:
        step = config.positive("global_attn_every_n_layers", 4)
        kinds = tuple(FULL if (index + 1) % step == 0 else SLIDING for index in range(shape.num_layers))
    window = config.positive("sliding_window", 1024)
    width = config.positive("moe_intermediate_size", 1408)
    inner = shape.num_attention_heads * shape.head_dim
    bias = config.flag("attention_bias", False)
    common = (
        *attention(
            hidden,
            shape.num_attention_heads,
            shape.num_key_value_heads,
            shape.head_dim,
            qkv_bias=bias,
            o_bias=bias,
        ),
        *norms_of(shape.head_dim, "self_attn.q_norm", "self_attn.k_norm"),
        *linear("self_attn.gate_proj", inner, hidden, "attention", split="out"),
        *norms_of(
            hidden, "input_layernorm", "post_attention_layernorm", "pre_mlp_layernorm", "post_mlp_layernorm"
        ),
    )
    num_shared = config.integer("num_shared_experts", 2)
    sparse = (
        *common,
        *routed_mlp(config, hidden, width),
        Tensor("mlp.expert_bias", (config.positive("num_experts"),), "router"),
    )
    if num_shared:
        sparse += gated_mlp(hidden, width * num_shared, name="mlp.shared_experts", role="shared_expert")
    dense = (*common, *gated_mlp(hidden, config.positive("intermediate_size")))
    num_dense = config.integer("num_dense_layers", 1)

    def make(index: int) -> Layer:
        cache = attention_cache(shape, kinds[index], window)
        return Layer((cache,), dense if index < num_dense else sparse)

    return finish(config, shape, by_index(shape.num_layers, make), tied=False)


def laguna(config: Config) -> Structure:
    """Read Laguna: per-layer query heads, a gate a head, a shared expert beside the routed ones."""
    shape = shape_of(config, head_dim=None if config.has("head_dim") else 128)
    hidden = shape.hidden_size
    kinds = layer_types(config, shape.num_layers) or (FULL,) * shape.num_layers
    window = config.positive("sliding_window", 4096) if SLIDING in kinds else 0
    heads_of = (
        config.integers("num_attention_heads_per_layer") or (shape.num_attention_heads,) * shape.num_layers
    )
    if len(heads_of) < shape.num_layers:
        raise config.invalid(
            "num_attention_heads_per_layer", f"names {len(heads_of)} of {shape.num_layers} layers"
        )
    sparse = _sparse_layers(config, shape.num_layers, 1)
    gating = config.raw("gating")
    per_head = gating in (None, True, "per-head")
    bias = config.flag("attention_bias", False)

    def make(index: int) -> Layer:
        heads = heads_of[index]
        if heads < 1 or heads % shape.num_key_value_heads:
            raise config.invalid(
                "num_attention_heads_per_layer", f"has {heads}, which KV heads do not divide"
            )
        own = Shape(
            hidden, shape.num_layers, heads, shape.num_key_value_heads, shape.head_dim, shape.vocab_size
        )
        tensors = (
            *attention(hidden, heads, own.num_key_value_heads, own.head_dim, qkv_bias=bias, o_bias=bias),
            *norms_of(own.head_dim, "self_attn.q_norm", "self_attn.k_norm"),
            *norms_of(hidden, "input_layernorm", "post_attention_layernorm"),
        )
        # modeling_laguna.py: anything but true and "per-head" gates each element.
        rows = heads if per_head else heads * own.head_dim
        tensors += linear("self_attn.g_proj", rows, hidden, "attention", split="out")
        if sparse[index]:
            tensors += routed_mlp(config, hidden, config.positive("moe_intermediate_size"))
            tensors += (
                Tensor("mlp.gate.e_score_correction_bias", (config.positive("num_experts"),), "router"),
            )
            tensors += gated_mlp(
                hidden,
                config.positive("shared_expert_intermediate_size"),
                name="mlp.shared_experts",
                role="shared_expert",
            )
        else:
            tensors += gated_mlp(hidden, config.positive("intermediate_size"))
        return Layer((attention_cache(own, kinds[index], window),), tensors)

    return finish(config, shape, by_index(shape.num_layers, make), tied=False)


def mimo_v2(config: Config) -> Structure:
    """Read MiMo-V2: keys wider than values, other KV heads in the window than outside, sinks there."""
    shape = shape_of(config)
    hidden = shape.hidden_size
    kinds = layer_types(config, shape.num_layers)
    if kinds is None:
        marks = config.integers("hybrid_layer_pattern")
        if marks is None or len(marks) < shape.num_layers:
            raise config.invalid("hybrid_layer_pattern", "does not name every layer")
        kinds = tuple(SLIDING if mark else FULL for mark in marks[: shape.num_layers])
    # transformers keeps one token less than its window, which it therefore sets one longer.
    window = config.positive("sliding_window_size", 127) + 1
    if config.has("sliding_window_size") is False and config.has("sliding_window"):
        window = config.positive("sliding_window")
    sparse = _sparse_layers(config, shape.num_layers, 1)
    v_head_dim = config.positive("v_head_dim", shape.head_dim)
    sinks_in_window = config.flag("add_swa_attention_sink_bias", True)

    def make(index: int) -> Layer:
        in_window = kinds[index] == SLIDING
        heads, kv_heads, head_dim, v_dim = (
            shape.num_attention_heads,
            shape.num_key_value_heads,
            shape.head_dim,
            v_head_dim,
        )
        if in_window:
            heads = config.positive("swa_num_attention_heads", heads)
            kv_heads = config.positive("swa_num_key_value_heads", 2 * kv_heads)
            head_dim = config.positive("swa_head_dim", head_dim)
            v_dim = config.positive("swa_v_head_dim", v_dim)
        cache: FullAttention | SlidingWindow = FullAttention(heads, kv_heads, head_dim, v_dim)
        if in_window:
            cache = SlidingWindow(heads, kv_heads, head_dim, v_dim, window)
        bias = config.flag("attention_bias", False)
        tensors = (
            *attention(hidden, heads, kv_heads, head_dim, v_head_dim=v_dim, qkv_bias=bias),
            *norms_of(hidden, "input_layernorm", "post_attention_layernorm"),
        )
        if in_window and sinks_in_window:
            tensors += (Tensor("self_attn.sinks", (heads,), "attention", split="out"),)
        if sparse[index]:
            tensors += routed_mlp(config, hidden, config.positive("moe_intermediate_size"))
        else:
            tensors += gated_mlp(hidden, config.positive("intermediate_size"))
        return Layer((cache,), tensors)

    return finish(config, shape, by_index(shape.num_layers, make), tied=False)


def minimax_m3_flat(config: Config) -> Structure:
    """Read MiniMax-M3's text model from a file that states it at the top, in the older spelling.

    transformers 5.23 configuration_minimax_m3_vl.py maps ``sparse_attention_config`` and
    ``moe_layer_freq`` to layer types in the same way.
    """
    sparse = config.sub("sparse_attention_config")
    if sparse is None:
        return minimax_m3(config)
    marks = sparse.integers("sparse_attention_freq")
    read: dict[str, object] = {}
    if marks is not None and not config.has("layer_types"):
        read["layer_types"] = ["minimax_m3_sparse" if mark else FULL for mark in marks]
    for key, older in (("index_n_heads", "sparse_num_index_heads"), ("index_head_dim", "sparse_index_dim")):
        if sparse.has(older):
            read[key] = sparse.positive(older)
    return minimax_m3(config.override(read))


def minimax_m3(config: Config) -> Structure:
    """Read MiniMax-M3's text model: block-sparse layers keep one indexer key a token beside K and V."""
    shape = shape_of(config, head_dim=None if config.has("head_dim") else 128)
    hidden = shape.hidden_size
    sparse_types = ("full_attention", "sparse_attention", "minimax_m3_sparse")
    kinds = layer_types(config, shape.num_layers, sparse_types) or (FULL,) * shape.num_layers
    sparse = _sparse_layers(config, shape.num_layers, 0)
    index_dim, index_heads = config.positive("index_head_dim", 128), config.positive("index_n_heads", 4)
    shared = config.positive("shared_intermediate_size", 3072)

    def make(index: int) -> Layer:
        has_index = kinds[index] != FULL
        heads, kv_heads = shape.num_attention_heads, shape.num_key_value_heads
        cache = FullAttention(heads, kv_heads, shape.head_dim, shape.head_dim, index_dim if has_index else 0)
        tensors = (
            *attention(hidden, heads, kv_heads, shape.head_dim),
            *norms_of(shape.head_dim, "self_attn.q_norm", "self_attn.k_norm"),
            *norms_of(hidden, "input_layernorm", "post_attention_layernorm"),
        )
        if has_index:
            tensors += (
                *linear("self_attn.indexer.q_proj", index_heads * index_dim, hidden, "indexer"),
                *linear("self_attn.indexer.k_proj", index_dim, hidden, "indexer"),
                *norms_of(index_dim, "self_attn.indexer.q_norm", "self_attn.indexer.k_norm"),
            )
        if sparse[index]:
            tensors += routed_mlp(config, hidden, config.positive("intermediate_size"))
            tensors += gated_mlp(hidden, shared, name="mlp.shared_experts", role="shared_expert")
        else:
            tensors += gated_mlp(hidden, config.positive("dense_intermediate_size"))
        return Layer((cache,), tensors)

    return finish(config, shape, by_index(shape.num_layers, make), tied=False)
