"""T5 and its kin: T5 1.0 and 1.1, FLAN-T5, mT5, UMT5, ByT5. Relative positions, RMSNorms, no biases.

A decoder layer caches its own tokens and, once, the encoder's. Source: transformers 5.23 models/t5,
mt5, umt5.
"""

from kvplan.config import Config
from kvplan.errors import UnsupportedArchitecture
from kvplan.layers import CrossAttention, FullAttention, Layer, LayerGroup
from kvplan.model import Structure
from kvplan.tensors import Tensor, embedding, linear, lm_head, norm, with_role


def t5(config: Config) -> Structure:
    """Read T5: one table of relative positions in each stack's first layer, a tied head by default."""
    return _t5(config, table_in_every_layer=False)


def mt5(config: Config) -> Structure:
    """Read mT5, which is T5 1.1 with another vocabulary."""
    return _t5(config, table_in_every_layer=False)


def umt5(config: Config) -> Structure:
    """Read UMT5: a table of relative positions in every layer."""
    return _t5(config, table_in_every_layer=True)


def _t5(config: Config, *, table_in_every_layer: bool) -> Structure:
    hidden, heads = config.positive("hidden_size"), config.positive("num_attention_heads")
    size, vocab = config.positive("d_kv", 64), config.positive("vocab_size")
    inner = heads * size
    name = config.architecture
    tied = config.flag("tie_word_embeddings", True)
    table = Tensor(
        "relative_attention_bias.weight",
        (config.positive("relative_attention_num_buckets", 32), heads),
        "position_embedding",
    )
    feed_forward = _feed_forward(config, hidden)
    own = (*_attention("SelfAttention", hidden, inner), *norm("layer.0.layer_norm", hidden))
    cross = (*_attention("EncDecAttention", hidden, inner), *norm("layer.1.layer_norm", hidden))
    every = (table,) if table_in_every_layer else ()
    num_encoder = config.layers("num_layers") if config.has("num_layers") else config.layers()
    num_decoder = config.layers("num_decoder_layers", num_encoder)
    encoder = (
        *(own + feed_forward + every) * num_encoder,
        *(() if table_in_every_layer else (table,)),
        *norm("encoder.final_layer_norm", hidden),
    )
    shared = embedding("shared", vocab, hidden)
    limit = config.integer("max_position_embeddings", 0)
    if name.endswith("EncoderModel"):
        return Structure(
            layers=(LayerGroup(Layer((), (*own, *feed_forward, *every)), num_encoder),),
            tensors=(shared, *encoder[num_encoder * len(own + feed_forward + every) :]),
            hidden_size=hidden,
            vocab_size=vocab,
            num_attention_heads=heads,
            context_limit_tokens=limit,
            tie_word_embeddings=tied,
            kind="encoder",
        )
    if name and not name.endswith(("ForConditionalGeneration", "Model", "WithLMHeadModel")):
        raise UnsupportedArchitecture(
            f"{config.origin or name}: class '{name}' is not known",
            why="its head could be any size",
            hint="name one of the usual classes in architectures, or report the model",
        )
    has_head = not tied and not (name.endswith("Model") and not name.endswith("WithLMHeadModel"))
    layer = Layer(
        (FullAttention(heads, heads, size, size), CrossAttention(heads, heads, size, size, "encoder")),
        (*own, *cross, *feed_forward, *every),
    )
    return Structure(
        layers=(LayerGroup(layer, num_decoder),),
        tensors=(
            shared,
            *with_role(encoder, "encoder"),
            *(() if table_in_every_layer else (table,)),
            *norm("decoder.final_layer_norm", hidden),
            *(lm_head(vocab, hidden) if has_head else ()),
        ),
        hidden_size=hidden,
        vocab_size=vocab,
        num_attention_heads=heads,
        context_limit_tokens=limit,
        tie_word_embeddings=tied,
        kind="encoder-decoder",
    )


def _attention(name: str, hidden: int, inner: int) -> tuple[Tensor, ...]:
    return (
        *linear(f"{name}.q", inner, hidden, "attention", split="out"),
        *linear(f"{name}.k", inner, hidden, "attention", split="out"),
        *linear(f"{name}.v", inner, hidden, "attention", split="out"),
        *linear(f"{name}.o", hidden, inner, "attention", split="in"),
    )


def _feed_forward(config: Config, hidden: int) -> tuple[Tensor, ...]:
    width = config.positive("d_ff", 2048)
    names = ("wi_0", "wi_1") if config.text("feed_forward_proj", "relu").startswith("gated-") else ("wi",)
    return (
        *(
            tensor
            for name in names
            for tensor in linear(f"DenseReluDense.{name}", width, hidden, "mlp", split="out")
        ),
        *linear("DenseReluDense.wo", hidden, width, "mlp", split="in"),
        *norm("layer_norm", hidden),
    )
