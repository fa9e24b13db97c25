"""DeBERTa-v2 and v3: BERT with positions told apart from content.

They cache nothing. Source: transformers 5.23 models/deberta_v2.
"""

from kvplan.blocks.encoder import (
    MASKED_LM,
    MODEL,
    QUESTIONS,
    SEQUENCE,
    TOKENS,
    check_encoder,
    classifier,
    encoder_structure,
    pooler,
    task_of,
    transform,
)
from kvplan.config import Config
from kvplan.families.bert import embedding_tables, encoder_layer
from kvplan.layers import Layer, LayerGroup
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear, norm


def deberta_v2(config: Config) -> Structure:
    """Read DeBERTa-v2 and v3: disentangled attention with one table of relative positions."""
    check_encoder(config)
    hidden = config.positive("hidden_size")
    heads = config.heads(hidden)
    size, vocab = config.positive("embedding_size", hidden), config.positive("vocab_size")
    tied, positions = config.flag("tie_word_embeddings", True), config.positive("max_position_embeddings")
    if not config.flag("legacy", True):
        raise config.invalid("legacy", "is false: only the published head is known")
    if config.positive("attention_head_size", hidden // heads) != hidden // heads:
        raise config.invalid("attention_head_size", "is not hidden_size over the heads")
    pool = config.positive("pooler_hidden_size", hidden)
    head = task_of(
        config,
        {
            MODEL: (),
            MASKED_LM: transform(hidden, size, vocab, tied=tied, name="cls.predictions"),
            SEQUENCE: (*pooler(pool), *classifier(config, pool)),
            TOKENS: classifier(config, hidden),
            QUESTIONS: classifier(config, hidden, "qa_outputs"),
        },
    )
    num_positions = positions if config.flag("position_biased_input", True) else 0
    embeddings = tuple(
        tensor
        for tensor in embedding_tables(
            config, size, num_positions=num_positions, num_types=config.integer("type_vocab_size", 0)
        )
        if tensor.role != "norm"
    )
    up = linear("embeddings.embed_proj", hidden, size, "other") if size != hidden else ()
    tensors = (*embeddings, *up, *norm("embeddings.LayerNorm", hidden, bias=True))
    layer = encoder_layer(
        hidden,
        config.positive("intermediate_size"),
        names=tuple(f"attention.self.{name}_proj" for name in ("query", "key", "value")),
    )
    if config.flag("relative_attention", False):
        tensors += _relative_positions(config, hidden, positions)
        layer += _position_projections(config, hidden)
    if "layer_norm" in config.text("norm_rel_ebd", "none").lower():
        tensors += norm("encoder.LayerNorm", hidden, bias=True)
    kernel = config.integer("conv_kernel_size", 0)
    if kernel:
        groups = config.positive("conv_groups", 1)
        if hidden % groups:
            raise config.invalid("conv_groups", f"is {groups}, which does not divide hidden_size {hidden}")
        tensors += (
            Tensor("encoder.conv.conv.weight", (hidden, hidden // groups, kernel), "other"),
            Tensor("encoder.conv.conv.bias", (hidden,), "other"),
            *norm("encoder.conv.LayerNorm", hidden, bias=True),
        )
    return encoder_structure(
        config,
        (LayerGroup(Layer((), layer), config.layers()),),
        (*tensors, *head),
        heads=heads,
        tied=tied,
        context_limit_tokens=positions,
    )


def _relative_positions(config: Config, hidden: int, positions: int) -> tuple[Tensor, ...]:
    """Return the table of 2 x position_buckets (or of twice the furthest distance) rows."""
    rows = positions
    for key in ("max_relative_positions", "position_buckets"):
        value = config.raw(key)
        if isinstance(value, int) and value > 0:
            rows = config.positive(key)
    return (Tensor("encoder.rel_embeddings.weight", (2 * rows, hidden), "position_embedding"),)


def _position_projections(config: Config, hidden: int) -> tuple[Tensor, ...]:
    """Return the projections of relative positions, which v2 and v3 share with the tokens'."""
    if config.flag("share_att_key", False):
        return ()
    said = config.raw("pos_att_type")
    kinds = said.split("|") if isinstance(said, str) else list(config.texts("pos_att_type") or ())
    kinds = [kind.strip().lower() for kind in kinds]
    tensors: tuple[Tensor, ...] = ()
    if "c2p" in kinds:
        tensors += linear("attention.self.pos_key_proj", hidden, hidden, "attention", bias=True)
    if "p2c" in kinds:
        tensors += linear("attention.self.pos_query_proj", hidden, hidden, "attention", bias=True)
    return tensors
