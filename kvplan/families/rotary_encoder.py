"""Encoders with rotary positions: ModernBERT, Nomic BERT, GTE, EuroBERT.

They cache nothing, windows or not. Source: transformers 5.23 models/modernbert, nomic_bert, gte,
eurobert; GTE's first files (``model_type: new``) have the same layout.
"""

from kvplan.blocks.decoder import Shape, block, by_index, shape_of
from kvplan.blocks.encoder import (
    MASKED_LM,
    MODEL,
    QUESTIONS,
    SEQUENCE,
    TOKENS,
    classifier,
    encoder_structure,
    pooler,
    task_of,
    transform,
)
from kvplan.blocks.transformer import attention, gated_mlp
from kvplan.config import Config
from kvplan.errors import UnsupportedArchitecture
from kvplan.layers import Layer, LayerGroup
from kvplan.model import Structure
from kvplan.tensors import Tensor, embedding, linear, lm_head, norm


def modernbert(config: Config) -> Structure:
    """Read ModernBERT: fused qkv and gate, no norm before the first attention, biases by switches."""
    hidden, width = config.positive("hidden_size"), config.positive("intermediate_size")
    heads, vocab = config.heads(hidden), config.positive("vocab_size")
    norm_bias = config.flag("norm_bias", False)
    bias, mlp_bias = config.flag("attention_bias", False), config.flag("mlp_bias", False)
    tied = config.flag("tie_word_embeddings", True)
    tensors = (
        *linear("attn.Wqkv", 3 * hidden, hidden, "attention", bias=bias, split="out"),
        *linear("attn.Wo", hidden, hidden, "attention", bias=bias, split="in"),
        *linear("mlp.Wi", 2 * width, hidden, "mlp", bias=mlp_bias, split="out"),
        *linear("mlp.Wo", hidden, width, "mlp", bias=mlp_bias, split="in"),
        *norm("mlp_norm", hidden, bias=norm_bias),
    )
    first = Layer((), tensors)
    later = Layer((), (*tensors, *norm("attn_norm", hidden, bias=norm_bias)))
    layers = by_index(config.layers(), lambda index: later if index else first)
    dense = (
        *linear("head.dense", hidden, hidden, "lm_head", bias=config.flag("classifier_bias", False)),
        *norm("head.norm", hidden, bias=norm_bias),
    )
    decoder: tuple[Tensor, ...] = () if tied else (embedding("decoder", vocab, hidden),)
    if config.flag("decoder_bias", True):
        decoder += (Tensor("decoder.bias", (vocab,), "lm_head", split="vocab"),)
    head = task_of(
        config,
        {
            MODEL: (),
            MASKED_LM: (*dense, *decoder),
            SEQUENCE: (*dense, *classifier(config, hidden)),
            TOKENS: (*dense, *classifier(config, hidden)),
            QUESTIONS: (*dense, *classifier(config, hidden)),
        },
    )
    return encoder_structure(
        config,
        layers,
        (
            embedding("embeddings.tok_embeddings", vocab, hidden),
            *norm("embeddings.norm", hidden, bias=norm_bias),
            *norm("final_norm", hidden, bias=norm_bias),
            *head,
        ),
        heads=heads,
        tied=tied,
        context_limit_tokens=config.positive("max_position_embeddings"),
    )


def nomic_bert(config: Config) -> Structure:
    """Read Nomic Embed's BERT: a gated MLP without biases, norms after each sublayer.

    The first files spell switches for other layouts; what they switch on is refused.
    """
    shape = shape_of(config)
    for key in ("qkv_proj_bias", "mlp_fc1_bias", "mlp_fc2_bias", "use_rms_norm", "prenorm"):
        if config.flag(key, False):
            raise _unknown_layout(config, key)
    if config.has("num_experts") and config.integer("num_experts") > 0:
        raise _unknown_layout(config, "num_experts")
    hidden = shape.hidden_size
    layer = (
        *_attention(shape, bias=False),
        *gated_mlp(hidden, config.positive("intermediate_size", 4 * hidden)),
        *norm("post_attention_layernorm", hidden, bias=True),
        *norm("post_mlp_layernorm", hidden, bias=True),
    )
    tied = config.flag("tie_word_embeddings", True)
    head = task_of(
        config,
        {
            MODEL: (),
            MASKED_LM: transform(hidden, hidden, shape.vocab_size, tied=tied, name="cls.predictions"),
            SEQUENCE: (*pooler(hidden), *classifier(config, hidden)),
            TOKENS: classifier(config, hidden),
        },
    )
    return _with_segments(config, shape, layer, head, tied)


def gte(config: Config) -> Structure:
    """Read GTE v1.5 and mGTE: biased attention, a gated MLP whose last matrix alone has a bias."""
    shape = shape_of(config)
    if config.text("position_embedding_type", "rope") not in ("rope", "rotary"):
        raise _unknown_layout(config, "position_embedding_type")
    hidden, width = shape.hidden_size, config.positive("intermediate_size")
    layer = (
        *_attention(shape, bias=True),
        *linear("mlp.gate_proj", width, hidden, "mlp", split="out"),
        *linear("mlp.up_proj", width, hidden, "mlp", split="out"),
        *linear("mlp.down_proj", hidden, width, "mlp", bias=True, split="in"),
        *norm("post_attention_layernorm", hidden, bias=True),
        *norm("post_mlp_layernorm", hidden, bias=True),
    )
    tied = config.flag("tie_word_embeddings", True)
    head = task_of(
        config,
        {
            MODEL: (),
            MASKED_LM: transform(
                hidden, hidden, shape.vocab_size, tied=tied, name="lm_head", two_biases=False
            ),
            SEQUENCE: (*pooler(hidden), *classifier(config, hidden)),
            TOKENS: classifier(config, hidden),
        },
    )
    return _with_segments(config, shape, layer, head, tied)


def eurobert(config: Config) -> Structure:
    """Read EuroBERT: Llama's layer, looking both ways."""
    shape = shape_of(config)
    hidden = shape.hidden_size
    bias, mlp_bias = config.flag("attention_bias", False), config.flag("mlp_bias", False)
    layer = block(config, shape, qkv_bias=bias, o_bias=bias, mlp_bias=mlp_bias)
    tied = config.flag("tie_word_embeddings", False)
    masked: tuple[Tensor, ...] = lm_head(shape.vocab_size, hidden, bias=mlp_bias)
    if tied:
        masked = masked[1:]
    head = task_of(
        config,
        {
            MODEL: (),
            MASKED_LM: masked,
            SEQUENCE: (*pooler(hidden, "dense"), *classifier(config, hidden)),
            TOKENS: classifier(config, hidden),
        },
    )
    return encoder_structure(
        config,
        (LayerGroup(Layer((), layer), shape.num_layers),),
        (embedding("embed_tokens", shape.vocab_size, hidden), *norm("norm", hidden), *head),
        heads=shape.num_attention_heads,
        tied=tied,
        context_limit_tokens=config.positive("max_position_embeddings"),
    )


def _attention(shape: Shape, *, bias: bool) -> tuple[Tensor, ...]:
    heads = shape.num_attention_heads
    return attention(shape.hidden_size, heads, heads, shape.head_dim, qkv_bias=bias, o_bias=bias)


def _with_segments(
    config: Config, shape: Shape, layer: tuple[Tensor, ...], head: tuple[Tensor, ...], tied: bool
) -> Structure:
    hidden, num_types = shape.hidden_size, config.integer("type_vocab_size")
    segments = Tensor("embeddings.token_type_embeddings.weight", (num_types, hidden), "position_embedding")
    return encoder_structure(
        config,
        (LayerGroup(Layer((), layer), shape.num_layers),),
        (
            embedding("embeddings.word_embeddings", shape.vocab_size, hidden),
            *((segments,) if num_types else ()),
            *norm("embeddings.LayerNorm", hidden, bias=True),
            *head,
        ),
        heads=shape.num_attention_heads,
        tied=tied,
        context_limit_tokens=config.positive("max_position_embeddings"),
    )


def _unknown_layout(config: Config, key: str) -> UnsupportedArchitecture:
    return UnsupportedArchitecture(
        f"{config.origin}: {key} asks for a layout that is not known",
        why="its layers would hold other tensors",
        hint="report the model",
    )
