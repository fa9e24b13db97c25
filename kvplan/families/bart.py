"""BART and what was built on it: mBART, PLBart, Pegasus, Marian, Blenderbot, M2M-100 (NLLB); Whisper.

Post- or pre-norm encoder-decoders with biases and absolute positions. A decoder layer caches its own
tokens and, once, the encoder's. Source: transformers 5.23 models/bart, mbart, plbart, pegasus,
marian, blenderbot, blenderbot_small, m2m_100, whisper.
"""

from kvplan.config import Config
from kvplan.errors import UnsupportedArchitecture
from kvplan.frozen import dataclass
from kvplan.layers import CrossAttention, FullAttention, Layer, LayerGroup
from kvplan.model import Structure
from kvplan.tensors import Tensor, embedding, linear, lm_head, norm, with_role

# fairseq's offset: the first two rows of a learned position table are never used.
FAIRSEQ_ROWS = 2


@dataclass(frozen=True, slots=True)
class _Kind:
    """What tells the kin apart: position rows, norms, and stacks that embed their tokens untied."""

    extra_rows: int
    has_positions: bool
    embedding_norm: bool
    final_norm: bool
    own_embeddings: bool = False


def bart(config: Config) -> Structure:
    """Read BART: post-norm, a norm over the embeddings."""
    return _pair(config, _Kind(FAIRSEQ_ROWS, True, True, False))


def mbart(config: Config) -> Structure:
    """Read mBART: pre-norm, norms over the embeddings and at each end."""
    return _pair(config, _Kind(FAIRSEQ_ROWS, True, True, True))


def pegasus(config: Config) -> Structure:
    """Read Pegasus: pre-norm with stored sinusoids."""
    return _pair(config, _Kind(0, True, False, True))


def marian(config: Config) -> Structure:
    """Read Marian: post-norm with stored sinusoids, no norm over the embeddings."""
    if not config.flag("share_encoder_decoder_embeddings", True):
        raise config.invalid("share_encoder_decoder_embeddings", "is false: two embeddings are not known")
    return _pair(config, _Kind(0, True, False, False))


def blenderbot(config: Config) -> Structure:
    """Read Blenderbot: pre-norm, learned positions without unused rows."""
    return _pair(config, _Kind(0, True, False, True))


def blenderbot_small(config: Config) -> Structure:
    """Read Blenderbot-small: post-norm, a norm over the embeddings."""
    return _pair(config, _Kind(0, True, True, False))


def m2m_100(config: Config) -> Structure:
    """Read M2M-100 and NLLB: pre-norm, sinusoids that are computed, not stored."""
    return _pair(config, _Kind(0, False, False, True, own_embeddings=True))


def _check_class(config: Config) -> bool:
    """Tell whether the class has a language model's head. Raises UnsupportedArchitecture for others."""
    name = config.architecture
    if name and not name.endswith(("ForConditionalGeneration", "MTModel", "Model")):
        raise UnsupportedArchitecture(
            f"{config.origin or name}: class '{name}' is not known",
            why="its head could be any size",
            hint="name one of the usual classes in architectures, or report the model",
        )
    return not name.endswith("Model") or name.endswith("MTModel")


def _pair(config: Config, kind: _Kind) -> Structure:
    hidden, vocab = config.positive("d_model"), config.positive("vocab_size")
    tied = config.flag("tie_word_embeddings", True)
    has_head = _check_class(config) and not tied
    positions = config.positive("max_position_embeddings", 1024)
    table = Tensor("embed_positions.weight", (positions + kind.extra_rows, hidden), "position_embedding")
    around = (
        *((table,) if kind.has_positions else ()),
        *(norm("layernorm_embedding", hidden, bias=True) if kind.embedding_norm else ()),
        *(norm("layer_norm", hidden, bias=True) if kind.final_norm else ()),
    )
    heads, decoder_heads = _heads(config, "encoder", hidden), _heads(config, "decoder", hidden)
    del heads
    own = _layer(config, "encoder", hidden)
    encoder = (*own * config.layers("encoder_layers"), *around)
    size = hidden // decoder_heads
    layer = Layer(
        (
            FullAttention(decoder_heads, decoder_heads, size, size),
            CrossAttention(decoder_heads, decoder_heads, size, size, "encoder"),
        ),
        (*_layer(config, "decoder", hidden), *_crossing(hidden)),
    )
    return Structure(
        layers=(LayerGroup(layer, config.layers("decoder_layers")),),
        tensors=(
            embedding("shared", vocab, hidden),
            *with_role(encoder, "encoder"),
            *around,
            *(lm_head(vocab, hidden) if has_head else ()),
            *(_own_embeddings(vocab, hidden) if kind.own_embeddings and not tied else ()),
        ),
        hidden_size=hidden,
        vocab_size=vocab,
        num_attention_heads=decoder_heads,
        context_limit_tokens=positions,
        tie_word_embeddings=tied,
        kind="encoder-decoder",
    )


def _own_embeddings(vocab: int, hidden: int) -> tuple[Tensor, ...]:
    """Return what each stack stores where M2M-100's class does not share its embedding."""
    return (
        embedding("encoder.embed_tokens", vocab, hidden),
        embedding("decoder.embed_tokens", vocab, hidden),
    )


def _heads(config: Config, side: str, hidden: int) -> int:
    heads = config.positive(f"{side}_attention_heads")
    if hidden % heads:
        raise config.invalid(f"{side}_attention_heads", f"is {heads}, which does not divide d_model {hidden}")
    return heads


def _attention(name: str, hidden: int, *, key_bias: bool = True) -> tuple[Tensor, ...]:
    return (
        *linear(f"{name}.q_proj", hidden, hidden, "attention", bias=True, split="out"),
        *linear(f"{name}.k_proj", hidden, hidden, "attention", bias=key_bias, split="out"),
        *linear(f"{name}.v_proj", hidden, hidden, "attention", bias=True, split="out"),
        *linear(f"{name}.out_proj", hidden, hidden, "attention", bias=True, split="in"),
    )


def _layer(config: Config, side: str, hidden: int, *, key_bias: bool = True) -> tuple[Tensor, ...]:
    width = config.positive(f"{side}_ffn_dim")
    return (
        *_attention("self_attn", hidden, key_bias=key_bias),
        *norm("self_attn_layer_norm", hidden, bias=True),
        *linear("fc1", width, hidden, "mlp", bias=True, split="out"),
        *linear("fc2", hidden, width, "mlp", bias=True, split="in"),
        *norm("final_layer_norm", hidden, bias=True),
    )


def _crossing(hidden: int, *, key_bias: bool = True) -> tuple[Tensor, ...]:
    return (
        *_attention("encoder_attn", hidden, key_bias=key_bias),
        *norm("encoder_attn_layer_norm", hidden, bias=True),
    )


def whisper(config: Config) -> Structure:
    """Read Whisper: the encoder always hears 1,500 frames (``max_source_positions``); keys have no bias."""
    hidden, vocab = config.positive("d_model"), config.positive("vocab_size")
    tied = config.flag("tie_word_embeddings", True)
    has_head = _check_class(config) and not tied
    frames, targets = (
        config.positive("max_source_positions", 1500),
        config.positive("max_target_positions", 448),
    )
    _heads(config, "encoder", hidden)
    heads = _heads(config, "decoder", hidden)
    size = hidden // heads
    encoder = (
        Tensor("conv1.weight", (hidden, config.positive("num_mel_bins", 80), 3), "encoder"),
        Tensor("conv1.bias", (hidden,), "encoder"),
        Tensor("conv2.weight", (hidden, hidden, 3), "encoder"),
        Tensor("conv2.bias", (hidden,), "encoder"),
        Tensor("embed_positions.weight", (frames, hidden), "encoder"),
        *_layer(config, "encoder", hidden, key_bias=False) * config.layers("encoder_layers"),
        *norm("layer_norm", hidden, bias=True),
    )
    layer = Layer(
        (
            FullAttention(heads, heads, size, size),
            CrossAttention(heads, heads, size, size, "encoder", frames),
        ),
        (*_layer(config, "decoder", hidden, key_bias=False), *_crossing(hidden, key_bias=False)),
    )
    return Structure(
        layers=(LayerGroup(layer, config.layers("decoder_layers")),),
        tensors=(
            embedding("embed_tokens", vocab, hidden),
            Tensor("embed_positions.weight", (targets, hidden), "position_embedding"),
            *norm("layer_norm", hidden, bias=True),
            *with_role(encoder, "encoder"),
            *(lm_head(vocab, hidden) if has_head else ()),
        ),
        hidden_size=hidden,
        vocab_size=vocab,
        num_attention_heads=heads,
        context_limit_tokens=targets,
        tie_word_embeddings=tied,
        kind="encoder-decoder",
    )
