"""The other decoders of 2020 to 2023: BLOOM, OPT, Falcon, Persimmon, MPT, BioGPT, XGLM.

LayerNorms with biases, ungated MLPs of four times the width, learned positions or none.
transformers 5.23 models/*; class defaults as there.
"""

from kvplan.blocks.decoder import Shape, finish, uniform
from kvplan.blocks.transformer import attention, plain_mlp
from kvplan.config import Config
from kvplan.errors import UnsupportedArchitecture
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear, norm, norms_of


def fused_attention(shape: Shape, name: str, out: str, *, bias: bool) -> tuple[Tensor, ...]:
    """Return q, k and v as one matrix ``name``, and the projection ``out``."""
    rows = (shape.num_attention_heads + 2 * shape.num_key_value_heads) * shape.head_dim
    return (
        *linear(name, rows, shape.hidden_size, "attention", bias=bias, split="out"),
        *linear(
            out,
            shape.hidden_size,
            shape.num_attention_heads * shape.head_dim,
            "attention",
            bias=bias,
            split="in",
        ),
    )


def position_table(count: int, size: int) -> Tensor:
    """Return a table of learned positions."""
    return Tensor("position_embeddings.weight", (count, size), "position_embedding")


def multi_head_shape(config: Config) -> Shape:
    """Return the shape of a decoder whose heads all have keys and values of their own."""
    hidden = config.positive("hidden_size")
    heads = config.heads(hidden)
    return Shape(hidden, config.layers(), heads, heads, hidden // heads, config.positive("vocab_size"))


def bloom(config: Config) -> Structure:
    """Read BLOOM: ALiBi, fused qkv, a norm after the embedding, tied; no trained limit but its sequence."""
    shape = multi_head_shape(config)
    hidden = shape.hidden_size
    tensors = (
        *fused_attention(shape, "self_attention.query_key_value", "self_attention.dense", bias=True),
        *plain_mlp(hidden, 4 * hidden, up="mlp.dense_h_to_4h", down="mlp.dense_4h_to_h"),
        *norms_of(hidden, "input_layernorm", "post_attention_layernorm", bias=True),
    )
    return finish(
        config,
        shape,
        uniform(shape, tensors),
        tied=True,
        norm_bias=True,
        extra=norms_of(hidden, "word_embeddings_layernorm", bias=True),
    )


def opt(config: Config) -> Structure:
    """Read OPT: learned positions with an offset of two, biases, an embedding that may be narrower."""
    shape = multi_head_shape(config)
    hidden = shape.hidden_size
    bias = config.flag("enable_bias", True)
    width = config.positive("word_embed_proj_dim", hidden)
    affine = config.flag("layer_norm_elementwise_affine", True)
    heads = shape.num_attention_heads
    norms = norms_of(hidden, "self_attn_layer_norm", "final_layer_norm", bias=True) if affine else ()
    tensors = (
        *attention(hidden, heads, heads, shape.head_dim, qkv_bias=bias, o_bias=bias),
        *plain_mlp(hidden, config.positive("intermediate_size", 3072), bias=bias, up="fc1", down="fc2"),
        *norms,
    )
    positions = config.positive("max_position_embeddings", 2048)
    extra: tuple[Tensor, ...] = (position_table(positions + 2, hidden),)
    if width != hidden:
        extra += (
            *linear("project_in", hidden, width, "other"),
            *linear("project_out", width, hidden, "other"),
        )
    before = config.flag("do_layer_norm_before", True)
    has_final = before and not config.flag("_remove_final_layer_norm", False)
    if has_final and affine:
        extra += norm("final_layer_norm", hidden, bias=True)
    return finish(
        config,
        shape,
        uniform(shape, tensors),
        tied=True,
        final_norm=False,
        extra=extra,
        embedding_size=width,
        context_limit_tokens=positions,
    )


def falcon(config: Config) -> Structure:
    """Read Falcon: one KV head (7B) or groups (40B, 180B), fused qkv, a parallel block, tied."""
    plain = multi_head_shape(config)
    heads = plain.num_attention_heads
    grouped = config.flag("new_decoder_architecture", False)
    if grouped:
        kv_heads = config.positive("num_kv_heads", heads)
    else:
        kv_heads = 1 if config.flag("multi_query", True) else heads
    shape = Shape(plain.hidden_size, plain.num_layers, heads, kv_heads, plain.head_dim, plain.vocab_size)
    hidden = shape.hidden_size
    bias = config.flag("bias", False)
    if not config.flag("parallel_attn", True):
        norms = norms_of(hidden, "input_layernorm", "post_attention_layernorm", bias=True)
    elif config.integer("num_ln_in_parallel_attn", 2 if grouped else 1) == 2:
        norms = norms_of(hidden, "ln_attn", "ln_mlp", bias=True)
    else:
        norms = norms_of(hidden, "input_layernorm", bias=True)
    tensors = (
        *fused_attention(shape, "self_attention.query_key_value", "self_attention.dense", bias=bias),
        *plain_mlp(
            hidden,
            config.positive("intermediate_size", 4 * hidden),
            bias=bias,
            up="mlp.dense_h_to_4h",
            down="mlp.dense_4h_to_h",
        ),
        *norms,
    )
    return finish(config, shape, uniform(shape, tensors), tied=True, norm_bias=True)


def persimmon(config: Config) -> Structure:
    """Read Persimmon: fused qkv with biases and norms on query and key heads."""
    shape = multi_head_shape(config)
    hidden = shape.hidden_size
    qk = norms_of(shape.head_dim, "self_attn.q_layernorm", "self_attn.k_layernorm", bias=True)
    tensors = (
        *fused_attention(shape, "self_attn.query_key_value", "self_attn.dense", bias=True),
        *(qk if config.flag("qk_layernorm", True) else ()),
        *plain_mlp(
            hidden, config.positive("intermediate_size"), up="mlp.dense_h_to_4h", down="mlp.dense_4h_to_h"
        ),
        *norms_of(hidden, "input_layernorm", "post_attention_layernorm", bias=True),
    )
    return finish(config, shape, uniform(shape, tensors), tied=False, norm_bias=True)


def mpt(config: Config) -> Structure:
    """Read MPT: ALiBi, fused Wqkv, no biases, tied.

    llm-foundry can vary heads, widths, biases and positions; transformers' class cannot and ignores
    those keys, so a file that uses them is refused.
    """
    shape = multi_head_shape(config)
    hidden = shape.hidden_size
    varied = config.positive("expansion_ratio", 4) != 4 or not config.flag("no_bias", True)
    attn = config.sub("attn_config")
    if attn is not None:
        varied = (
            varied
            or attn.text("attn_type", "multihead_attention") != "multihead_attention"
            or attn.positive("kv_n_heads", shape.num_attention_heads) != shape.num_attention_heads
            or attn.flag("qk_ln", False)
            or not attn.flag("alibi", True)
        )
    if varied:
        raise UnsupportedArchitecture(
            f"{config.origin}: an MPT of another shape than MPT-7B's and MPT-30B's is not known",
            why="grouped heads, biases, other widths or positions exist in llm-foundry alone",
            hint="report the model",
        )
    tensors = (
        *fused_attention(shape, "attn.Wqkv", "attn.out_proj", bias=False),
        *plain_mlp(hidden, 4 * hidden, bias=False, up="ffn.up_proj", down="ffn.down_proj"),
        *norms_of(hidden, "norm_1", "norm_2", bias=False),
    )
    return finish(config, shape, uniform(shape, tensors), tied=True)


def biogpt(config: Config) -> Structure:
    """Read BioGPT: OPT's layer and its positions with an offset of two, tied."""
    shape = multi_head_shape(config)
    positions = config.positive("max_position_embeddings", 1024)
    extra = (position_table(positions + 2, shape.hidden_size),)
    return _fairseq(config, shape, config.positive("intermediate_size"), extra, positions)


def xglm(config: Config) -> Structure:
    """Read XGLM: OPT's layer with sinusoidal positions, tied."""
    hidden, heads = config.positive("hidden_size"), config.positive("attention_heads")
    if hidden % heads:
        raise config.invalid("attention_heads", f"is {heads}, which does not divide {hidden}")
    shape = Shape(hidden, config.layers(), heads, heads, hidden // heads, config.positive("vocab_size"))
    positions = config.positive("max_position_embeddings", 2048)
    return _fairseq(config, shape, config.positive("ffn_dim"), (), positions)


def _fairseq(config: Config, shape: Shape, width: int, extra: tuple[Tensor, ...], limit: int) -> Structure:
    hidden, heads = shape.hidden_size, shape.num_attention_heads
    tensors = (
        *attention(hidden, heads, heads, shape.head_dim, qkv_bias=True, o_bias=True),
        *plain_mlp(hidden, width, up="fc1", down="fc2"),
        *norms_of(hidden, "self_attn_layer_norm", "final_layer_norm", bias=True),
    )
    return finish(
        config,
        shape,
        uniform(shape, tensors),
        tied=True,
        norm_bias=True,
        extra=extra,
        context_limit_tokens=limit,
    )
