"""T5Gemma: Gemma 2's layers as an encoder and a decoder that also looks at the encoder.

Source: transformers 5.23 models/t5gemma.
"""

from kvplan.blocks.attention_pattern import layer_types, window_of
from kvplan.blocks.decoder import Shape, attention_cache, by_index, shape_of
from kvplan.blocks.transformer import attention, gated_mlp
from kvplan.config import Config
from kvplan.layers import CrossAttention, Layer
from kvplan.model import Structure
from kvplan.tensors import Tensor, embedding, linear, lm_head, norm, with_role


def t5gemma(config: Config) -> Structure:
    """Read T5Gemma from its nested ``encoder`` and ``decoder``; each has an embedding of its own."""
    encoder, decoder = config.sub("encoder"), config.sub("decoder")
    if encoder is None or decoder is None:
        raise config.invalid("encoder" if encoder is None else "decoder", "is missing")
    if config.architecture.endswith("EncoderModel"):
        raise config.invalid("architectures", "names the encoder alone, which is not known")
    seen, shape = _shape(encoder), _shape(decoder)
    tied = config.flag("tie_word_embeddings", True)
    kinds = layer_types(decoder, shape.num_layers) or tuple(
        "full_attention" if (index + 1) % 2 == 0 else "sliding_attention" for index in range(shape.num_layers)
    )
    window = window_of(decoder.behind({"sliding_window": 4096}), kinds)
    own = _layer(decoder, shape)
    cross = CrossAttention(
        shape.num_attention_heads, shape.num_key_value_heads, shape.head_dim, shape.head_dim, "encoder"
    )
    crossing = _crossing(shape, seen.hidden_size, bias=decoder.flag("attention_bias", False))
    made = {
        kind: Layer((attention_cache(shape, kind, window), cross), (*own, *crossing)) for kind in set(kinds)
    }
    vocab = decoder.positive("vocab_size", config.integer("vocab_size", 256_000) or None)
    return Structure(
        layers=by_index(shape.num_layers, lambda index: made[kinds[index]]),
        tensors=(
            embedding("decoder.embed_tokens", vocab, shape.hidden_size),
            *norm("decoder.norm", shape.hidden_size),
            *with_role(
                (
                    embedding(
                        "encoder.embed_tokens", encoder.positive("vocab_size", vocab), seen.hidden_size
                    ),
                    *norm("encoder.norm", seen.hidden_size),
                    *_layer(encoder, seen) * seen.num_layers,
                ),
                "encoder",
            ),
            *(() if tied else lm_head(vocab, shape.hidden_size)),
        ),
        hidden_size=shape.hidden_size,
        vocab_size=vocab,
        num_attention_heads=shape.num_attention_heads,
        context_limit_tokens=decoder.integer("max_position_embeddings", 8192),
        tie_word_embeddings=tied,
        kind="encoder-decoder",
    )


def _shape(config: Config) -> Shape:
    return shape_of(
        config.behind({"num_key_value_heads": 4, "head_dim": 256, "num_attention_heads": 8}),
        vocab_size=256_000,
    )


def _layer(config: Config, shape: Shape) -> tuple[Tensor, ...]:
    hidden, bias = shape.hidden_size, config.flag("attention_bias", False)
    return (
        *attention(
            hidden,
            shape.num_attention_heads,
            shape.num_key_value_heads,
            shape.head_dim,
            qkv_bias=bias,
            o_bias=bias,
        ),
        *gated_mlp(hidden, config.positive("intermediate_size")),
        *(
            tensor
            for name in ("pre_self_attn", "post_self_attn", "pre_feedforward", "post_feedforward")
            for tensor in norm(f"{name}_layernorm", hidden)
        ),
    )


def _crossing(shape: Shape, seen_size: int, *, bias: bool) -> tuple[Tensor, ...]:
    hidden, query = shape.hidden_size, shape.num_attention_heads * shape.head_dim
    rows, heads = shape.num_key_value_heads * shape.head_dim, shape.num_key_value_heads
    return (
        *linear("cross_attn.q_proj", query, hidden, "attention", bias=bias, split="out"),
        *linear("cross_attn.k_proj", rows, seen_size, "attention", bias=bias, split="kv", num_heads=heads),
        *linear("cross_attn.v_proj", rows, seen_size, "attention", bias=bias, split="kv", num_heads=heads),
        *linear("cross_attn.o_proj", hidden, query, "attention", bias=bias, split="in"),
        *norm("pre_cross_attn_layernorm", hidden),
        *norm("post_cross_attn_layernorm", hidden),
    )
