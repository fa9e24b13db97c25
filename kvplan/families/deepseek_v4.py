"""DeepSeek-V4: compressed caches, grouped output projections, hyper-connections between layers.

transformers 5.23 models/deepseek_v4. ``compress_ratios`` says for each layer whether it keeps a
window alone (0), a compressed row every 4 tokens with an indexer, or every 128 tokens.
"""

from kvplan.blocks.attention_pattern import unknown_layer_type
from kvplan.blocks.decoder import Shape, by_index, finish
from kvplan.blocks.routing import num_experts_of
from kvplan.blocks.transformer import experts, gated_mlp, router
from kvplan.config import Config
from kvplan.errors import UnsupportedArchitecture
from kvplan.layers import CompressedAttention, Layer, LayerGroup
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear, norm

SPARSE_RATIO = 4
HEAVY_RATIO = 128
RATIO_OF_TYPE = {
    "sliding_attention": 0,
    "compressed_sparse_attention": SPARSE_RATIO,
    "heavily_compressed_attention": HEAVY_RATIO,
}


def _ratios(config: Config, num_layers: int) -> tuple[int, ...]:
    kinds = config.per_layer("layer_types", num_layers)
    if kinds is not None:
        for kind in kinds:
            if kind not in RATIO_OF_TYPE:
                raise unknown_layer_type(config, kind)
        return tuple(RATIO_OF_TYPE[kind] for kind in kinds)
    ratios = config.integers("compress_ratios")
    if ratios is None or len(ratios) < num_layers:
        raise config.invalid("compress_ratios", "does not name every layer")
    for ratio in ratios[:num_layers]:
        if ratio not in RATIO_OF_TYPE.values():
            raise unknown_layer_type(config, f"compress ratio {ratio}")
    return ratios[:num_layers]


def deepseek_v4(config: Config) -> Structure:
    """Read DeepSeek-V4 Flash and Pro."""
    hidden, heads = config.positive("hidden_size"), config.positive("num_attention_heads")
    head_dim = config.positive("head_dim")
    shape = Shape(hidden, config.layers(), heads, 1, head_dim, config.positive("vocab_size"))
    window = config.positive("sliding_window", 128)
    ratios = _ratios(config, shape.num_layers)
    num_experts, active = num_experts_of(config)
    width = config.positive("moe_intermediate_size")
    common = (
        *_attention(config, hidden, heads, head_dim),
        *experts(hidden, width, num_experts, active),
        *router(hidden, num_experts),
        *gated_mlp(
            hidden,
            width * _shared_experts(config),
            bias=config.flag("mlp_bias", False),
            name="mlp.shared_experts",
            role="shared_expert",
        ),
        *norm("input_layernorm", hidden),
        *norm("post_attention_layernorm", hidden),
        *_connections("attn_hc", config, hidden),
        *_connections("ffn_hc", config, hidden),
    )
    made: dict[int, Layer] = {}

    def make(index: int) -> Layer:
        ratio = ratios[index]
        if ratio not in made:
            index_dim = config.positive("index_head_dim") if ratio == SPARSE_RATIO else 0
            cache = CompressedAttention(heads, head_dim, window, ratio, index_dim)
            made[ratio] = Layer((cache,), (*common, *_compressor(config, hidden, head_dim, ratio)))
        return made[ratio]

    layers = by_index(shape.num_layers, make)
    streams = config.positive("hc_mult", 4)
    head = (
        Tensor("model.hc_head.hc_fn", (streams, streams * hidden), "other"),
        Tensor("model.hc_head.hc_base", (streams,), "other"),
        Tensor("model.hc_head.hc_scale", (1,), "other"),
    )
    num_mtp = config.integer("num_nextn_predict_layers", 0)
    mtp = (LayerGroup(make(0), num_mtp),) if num_mtp else ()
    return finish(config, shape, layers, tied=False, extra=head, mtp_layers=mtp)


def _shared_experts(config: Config) -> int:
    if config.positive("n_shared_experts", 1) != 1:
        raise UnsupportedArchitecture(
            f"{config.origin}: n_shared_experts {config.integer('n_shared_experts')} is not known",
            why="transformers 5.23 builds one whatever the key says",
            hint="report the model",
        )
    return 1


def _attention(config: Config, hidden: int, heads: int, head_dim: int) -> tuple[Tensor, ...]:
    rank, groups = config.positive("q_lora_rank"), config.positive("o_groups")
    out_rank = config.positive("o_lora_rank")
    if heads * head_dim % groups:
        raise config.invalid("o_groups", f"is {groups}, which does not divide {heads} heads")
    return (
        Tensor("self_attn.sinks", (heads,), "attention", split="out"),
        *linear("self_attn.q_a_proj", rank, hidden, "attention"),
        *norm("self_attn.q_a_norm", rank),
        *linear("self_attn.q_b_proj", heads * head_dim, rank, "attention", split="out"),
        *linear("self_attn.kv_proj", head_dim, hidden, "attention"),
        *norm("self_attn.kv_norm", head_dim),
        *linear(
            "self_attn.o_a_proj", groups * out_rank, heads * head_dim // groups, "attention", split="out"
        ),
        *linear("self_attn.o_b_proj", hidden, groups * out_rank, "attention", split="in"),
    )


def _connections(name: str, config: Config, hidden: int) -> tuple[Tensor, ...]:
    streams = config.positive("hc_mult", 4)
    rows = (2 + streams) * streams
    return (
        Tensor(f"{name}.fn", (rows, streams * hidden), "other"),
        Tensor(f"{name}.base", (rows,), "other"),
        Tensor(f"{name}.scale", (3,), "other"),
    )


def _compressor(config: Config, hidden: int, head_dim: int, ratio: int) -> tuple[Tensor, ...]:
    if not ratio:
        return ()
    # With ratio 4 neighbouring windows overlap, so keys and gates are twice as wide.
    wide = head_dim * (2 if ratio == SPARSE_RATIO else 1)
    tensors = (
        Tensor("self_attn.compressor.position_bias", (ratio, wide), "attention"),
        *linear("self_attn.compressor.kv_proj", wide, hidden, "attention"),
        *linear("self_attn.compressor.gate_proj", wide, hidden, "attention"),
        *norm("self_attn.compressor.kv_norm", head_dim),
    )
    if ratio != SPARSE_RATIO:
        return tensors
    index, num_heads = config.positive("index_head_dim"), config.positive("index_n_heads")
    name = "self_attn.compressor.indexer"
    return (
        *tensors,
        Tensor(f"{name}.position_bias", (ratio, 2 * index), "indexer"),
        *linear(f"{name}.kv_proj", 2 * index, hidden, "indexer"),
        *linear(f"{name}.gate_proj", 2 * index, hidden, "indexer"),
        *norm(f"{name}.kv_norm", index),
        *linear(f"{name}.q_b_proj", num_heads * index, config.positive("q_lora_rank"), "indexer"),
        *linear(f"{name}.scorer.weights_proj", num_heads, hidden, "indexer"),
    )
