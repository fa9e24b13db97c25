"""Latent attention with an indexer and more around it: A.X K2, Hunyuan 4, Mistral Large 4's text.

A.X K2 has gated norms and an output gate from the query's bottleneck, Hunyuan 4 attention sinks and
hyper-connections, Mistral Large 4 layers without rotary positions, whose latent has no rotary part.
Source: transformers 5.23 models/axk2, hy_v4, mistral_large4.
"""

from kvplan.blocks.attention_pattern import unknown_layer_type
from kvplan.blocks.decoder import Shape, by_index, finish
from kvplan.blocks.latent import latent_attention, latent_cache, latent_shape
from kvplan.blocks.routing import num_experts_of, stated_sparse
from kvplan.blocks.transformer import experts, gated_mlp, router
from kvplan.config import Config
from kvplan.errors import UnsupportedArchitecture
from kvplan.layers import LatentAttention, Layer
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear, norm, norms_of

INDEXED = "indexed_attention"


def _shape(config: Config) -> Shape:
    for kind in config.per_layer("layer_types", config.layers()) or ():
        if kind != INDEXED:
            raise unknown_layer_type(config, kind)
    return latent_shape(config)


def _sparse(config: Config, num_layers: int, num_dense: int, step: int = 1) -> tuple[bool, ...]:
    stated = stated_sparse(config, num_layers)
    return stated or tuple(index >= num_dense and index % step == 0 for index in range(num_layers))


def _indexing(config: Config, num_layers: int, usual: tuple[bool, ...]) -> tuple[bool, ...]:
    """Tell which layers run an indexer of their own; the others reuse an earlier one's choice."""
    kinds = config.per_layer("indexer_types", num_layers)
    if kinds is None:
        return usual
    unknown = next((kind for kind in kinds if kind not in ("full", "shared")), None)
    if unknown is not None:
        raise unknown_layer_type(config, unknown)
    return tuple(kind == "full" for kind in kinds)


def _feed_forward(config: Config, hidden: int, *, is_sparse: bool) -> tuple[Tensor, ...]:
    if not is_sparse:
        return gated_mlp(hidden, config.positive("intermediate_size"))
    num_experts, active = num_experts_of(config)
    width = config.positive("moe_intermediate_size")
    shared = width * config.positive("n_shared_experts", 1)
    return (
        *experts(hidden, width, num_experts, active),
        *router(hidden, num_experts),
        *gated_mlp(hidden, shared, name="mlp.shared_experts", role="shared_expert"),
    )


def _indexer(config: Config, hidden: int, query_width: int) -> tuple[Tensor, ...]:
    heads, size = config.positive("index_n_heads"), config.positive("index_head_dim")
    return (
        *linear("self_attn.indexer.wq_b", heads * size, query_width, "indexer"),
        *linear("self_attn.indexer.wk", size, hidden, "indexer"),
        *norm("self_attn.indexer.k_norm", size, bias=True),
        *linear("self_attn.indexer.weights_proj", heads, hidden, "indexer"),
    )


def axk2(config: Config) -> Structure:
    """Read A.X K2: queries and the output's gate from one bottleneck, low-rank gates on the norms."""
    shape = _shape(config)
    hidden, rank = shape.hidden_size, config.positive("q_lora_rank")
    gate_rank = config.positive("gated_norm_rank")
    cache = latent_cache(config, has_index=True)
    heads = cache.num_attention_heads
    rows = heads * (cache.qk_nope_head_dim + cache.qk_rope_head_dim + cache.v_head_dim)
    own = (
        *(
            tensor
            for tensor in latent_attention(config, cache, q_lora_rank=rank)
            if not tensor.name.startswith("self_attn.q_b_proj")
        ),
        *linear("self_attn.q_gate_proj", rows, 2 * rank, "attention", split="out"),
        *_indexer(config, hidden, rank),
        *_gated_norm("input_layernorm", hidden, gate_rank),
    )
    first, step = config.integer("first_k_dense_replace", 1), config.positive("moe_layer_freq", 1)
    sparse = _sparse(config, shape.num_layers, first, step)
    after = "post_attention_layernorm"

    def make(index: int) -> Layer:
        last = _gated_norm(after, hidden, gate_rank) if sparse[index] else norm(after, hidden)
        return Layer((cache,), (*own, *_feed_forward(config, hidden, is_sparse=sparse[index]), *last))

    return finish(config, shape, by_index(shape.num_layers, make), tied=False)


def _gated_norm(name: str, hidden: int, rank: int) -> tuple[Tensor, ...]:
    return (
        *norm(f"{name}.norm", hidden),
        *linear(f"{name}.mlp.fc1", rank, hidden, "other"),
        *linear(f"{name}.mlp.fc2", hidden, rank, "other"),
    )


def hy4(config: Config) -> Structure:
    """Read Hunyuan 4: gated attention with sinks, ``hc_mult`` streams mixed around each sublayer."""
    shape = _shape(config)
    hidden, rank = shape.hidden_size, config.integer("q_lora_rank", None)
    if rank is None:
        raise config.missing("q_lora_rank")
    streams = config.positive("hc_mult", 4)
    usual = tuple(index == 0 or (index - 1) % 4 == 0 for index in range(shape.num_layers))
    indexing = _indexing(config, shape.num_layers, usual)
    sparse = _sparse(config, shape.num_layers, 1)
    heads = shape.num_attention_heads
    v_dim = config.positive("v_head_dim")
    own = (
        *latent_attention(config, latent_cache(config), q_lora_rank=rank),
        Tensor("self_attn.sinks", (heads,), "attention", split="out"),
        *linear("self_attn.gate_proj", heads * v_dim, hidden, "attention", split="out"),
        *norms_of(hidden, "input_layernorm", "post_attention_layernorm"),
        *(
            tensor
            for name in ("attn_hc", "ffn_hc")
            for tensor in (
                Tensor(f"{name}.fn", (2 * streams, streams * hidden), "other"),
                Tensor(f"{name}.base", (2 * streams,), "other"),
                Tensor(f"{name}.scale", (2,), "other"),
            )
        ),
    )

    def make(index: int) -> Layer:
        more = _indexer(config, hidden, rank) if indexing[index] else ()
        feed_forward = _feed_forward(config, hidden, is_sparse=sparse[index])
        return Layer((latent_cache(config, has_index=indexing[index]),), (*own, *more, *feed_forward))

    head = (
        Tensor("model.hc_head.hc_fn", (streams, streams * hidden), "other"),
        Tensor("model.hc_head.hc_base", (streams,), "other"),
        Tensor("model.hc_head.hc_scale", (1,), "other"),
    )
    return finish(config, shape, by_index(shape.num_layers, make), tied=False, extra=head)


def mistral_large4_text(config: Config) -> Structure:
    """Read Mistral Large 4's text model: full-rank queries, a learned softmax scale for each head.

    Raises UnsupportedArchitecture where layers share keys and values (``kv_source_layers``).
    """
    shape = _shape(config)
    hidden, heads = shape.hidden_size, shape.num_attention_heads
    layers = shape.num_layers
    sources = config.integers("kv_source_layers")
    if sources is not None and sources != tuple(range(layers)):
        raise UnsupportedArchitecture(
            f"{config.origin or 'mistral_large4'}: kv_source_layers that share a cache are not known",
            why="some layers would store keys and values, others an index key alone",
            hint="report the model",
        )
    interval = config.positive("no_rope_layer_interval", 4)
    rotary = config.integers("no_rope_layers") or tuple(
        int((index + 1) % interval != 0) for index in range(layers)
    )
    if len(rotary) < layers:
        raise config.invalid("no_rope_layers", f"names {len(rotary)} of {layers} layers")
    frequency, offset = (
        max(1, config.integer("index_topk_freq", 1)),
        config.integer("index_skip_topk_offset", 2),
    )
    usual = tuple(max(index - offset + 1, 0) % frequency == 0 for index in range(layers))
    if config.has("index_topk_pattern") and not config.has("indexer_types"):
        marks = config.text("index_topk_pattern")
        if len(marks) != layers or set(marks) - {"F", "S"}:
            raise config.invalid("index_topk_pattern", "is not one F or S a layer")
        usual = tuple(mark == "F" for mark in marks)
    indexing = _indexing(config, layers, usual)
    sparse = _sparse(config, layers, config.integer("first_k_dense_replace", 1))
    index_heads = config.positive("index_n_heads")

    def make(index: int) -> Layer:
        cache = latent_cache(config, has_index=indexing[index])
        if not rotary[index]:
            whole = cache.qk_nope_head_dim + cache.qk_rope_head_dim
            cache = LatentAttention(
                heads, cache.kv_lora_rank, 0, whole, cache.v_head_dim, cache.index_head_dim
            )
        tensors = (
            *latent_attention(config, cache, q_lora_rank=None),
            Tensor("self_attn.softmax_scaling.scale", (heads,), "attention"),
            Tensor("self_attn.softmax_scaling.bias", (heads,), "attention"),
        )
        if indexing[index]:
            tensors += (
                *_indexer(config, hidden, hidden),
                *norm("self_attn.indexer.q_input_norm", hidden, bias=True),
                Tensor("self_attn.indexer.softmax_scaling.scale", (index_heads,), "indexer"),
                Tensor("self_attn.indexer.softmax_scaling.bias", (index_heads,), "indexer"),
            )
        norms = norms_of(hidden, "input_layernorm", "post_attention_layernorm")
        return Layer((cache,), (*tensors, *_feed_forward(config, hidden, is_sparse=sparse[index]), *norms))

    return finish(config, shape, by_index(layers, make), tied=False)
