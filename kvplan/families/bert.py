"""BERT and its kin: RoBERTa, XLM-R, MPNet, ELECTRA, DistilBERT, ALBERT.

Encoders with learned positions and biases everywhere; embedding models and rerankers are mostly
these. They cache nothing. Source: transformers 5.23 models/bert, roberta, mpnet, electra,
distilbert, albert.
"""

from kvplan.blocks.encoder import (
    CHOICES,
    MASKED_LM,
    MODEL,
    NEXT_SENTENCE,
    PRE_TRAINING,
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
from kvplan.layers import Layer, LayerGroup
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear, norm


def encoder_layer(
    hidden: int, width: int, *, query: str = "attention.self.query", names: tuple[str, ...] = ()
) -> tuple[Tensor, ...]:
    """Return one post-norm layer: q, k, v, o, two MLP matrices, two norms, all with biases."""
    q, k, v = names or (query, "attention.self.key", "attention.self.value")
    return (
        *linear(q, hidden, hidden, "attention", bias=True, split="out"),
        *linear(k, hidden, hidden, "attention", bias=True, split="out"),
        *linear(v, hidden, hidden, "attention", bias=True, split="out"),
        *linear("attention.output.dense", hidden, hidden, "attention", bias=True, split="in"),
        *norm("attention.output.LayerNorm", hidden, bias=True),
        *linear("intermediate.dense", width, hidden, "mlp", bias=True, split="out"),
        *linear("output.dense", hidden, width, "mlp", bias=True, split="in"),
        *norm("output.LayerNorm", hidden, bias=True),
    )


def embedding_tables(config: Config, size: int, *, num_positions: int, num_types: int) -> tuple[Tensor, ...]:
    """Return token, position and segment embeddings and the norm over them."""
    rows = (
        ("embeddings.position_embeddings.weight", num_positions),
        (
            "embeddings.token_type_embeddings.weight",
            num_types,
        ),
    )
    return (
        Tensor(
            "embeddings.word_embeddings.weight",
            (config.positive("vocab_size"), size),
            "embedding",
            split="vocab",
        ),
        *(Tensor(name, (count, size), "position_embedding") for name, count in rows if count),
        *norm("embeddings.LayerNorm", size, bias=True),
    )


def _two_layer_classifier(config: Config, hidden: int) -> tuple[Tensor, ...]:
    return (
        *linear("classifier.dense", hidden, hidden, "other", bias=True),
        *classifier(config, hidden, "classifier.out_proj"),
    )


def bert(config: Config) -> Structure:
    """Read BERT: a pooler where the class classifies or is bare."""
    check_encoder(config)
    hidden = config.positive("hidden_size")
    heads = config.heads(hidden)
    tied, vocab = config.flag("tie_word_embeddings", True), config.positive("vocab_size")
    positions = config.positive("max_position_embeddings")
    masked = transform(hidden, hidden, vocab, tied=tied, name="cls.predictions")
    next_sentence = linear("cls.seq_relationship", 2, hidden, "other", bias=True)
    head = task_of(
        config,
        {
            MODEL: pooler(hidden),
            MASKED_LM: masked,
            PRE_TRAINING: (*pooler(hidden), *masked, *next_sentence),
            NEXT_SENTENCE: (*pooler(hidden), *next_sentence),
            SEQUENCE: (*pooler(hidden), *classifier(config, hidden)),
            CHOICES: (*pooler(hidden), *linear("classifier", 1, hidden, "other", bias=True)),
            TOKENS: classifier(config, hidden),
            QUESTIONS: classifier(config, hidden, "qa_outputs"),
        },
    )
    embeddings = embedding_tables(
        config, hidden, num_positions=positions, num_types=config.integer("type_vocab_size")
    )
    return _closed(config, (*embeddings, *head), heads, tied, positions)


def _closed(config: Config, tensors: tuple[Tensor, ...], heads: int, tied: bool, limit: int) -> Structure:
    layer = encoder_layer(config.positive("hidden_size"), config.positive("intermediate_size"))
    groups = (LayerGroup(Layer((), layer), config.layers()),)
    return encoder_structure(config, groups, tensors, heads=heads, tied=tied, context_limit_tokens=limit)


def roberta(config: Config) -> Structure:
    """Read RoBERTa, XLM-R and CamemBERT: positions begin after the padding id, so two are never used."""
    hidden = config.positive("hidden_size")
    num_types = config.integer("type_vocab_size")
    return _roberta(config, num_types, pooled=pooler(hidden), extra=())


def mpnet(config: Config) -> Structure:
    """Read MPNet: RoBERTa without segments, with one table of relative positions."""
    hidden = config.positive("hidden_size")
    heads = config.heads(hidden)
    buckets = config.positive("relative_attention_num_buckets", 32)
    table = Tensor("encoder.relative_attention_bias.weight", (buckets, heads), "position_embedding")
    return _roberta(config, 0, pooled=pooler(hidden), extra=(table,))


def _roberta(
    config: Config, num_types: int, *, pooled: tuple[Tensor, ...], extra: tuple[Tensor, ...]
) -> Structure:
    check_encoder(config)
    hidden = config.positive("hidden_size")
    heads = config.heads(hidden)
    tied, vocab = config.flag("tie_word_embeddings", True), config.positive("vocab_size")
    positions = config.positive("max_position_embeddings")
    head = task_of(
        config,
        {
            MODEL: pooled,
            MASKED_LM: transform(hidden, hidden, vocab, tied=tied, name="lm_head"),
            SEQUENCE: _two_layer_classifier(config, hidden),
            CHOICES: (*pooled, *linear("classifier", 1, hidden, "other", bias=True)),
            TOKENS: classifier(config, hidden),
            QUESTIONS: classifier(config, hidden, "qa_outputs"),
        },
    )
    embeddings = embedding_tables(config, hidden, num_positions=positions, num_types=num_types)
    unused = config.integer("pad_token_id", 1) + 1
    return _closed(config, (*embeddings, *extra, *head), heads, tied, max(0, positions - unused))


def electra(config: Config) -> Structure:
    """Read ELECTRA: narrow embeddings projected up; a discriminator's or a generator's head."""
    check_encoder(config)
    hidden = config.positive("hidden_size")
    heads = config.heads(hidden)
    size, vocab = config.positive("embedding_size", 128), config.positive("vocab_size")
    tied, positions = config.flag("tie_word_embeddings", True), config.positive("max_position_embeddings")
    head = task_of(
        config,
        {
            MODEL: (),
            MASKED_LM: transform(hidden, size, vocab, tied=tied, name="generator_predictions"),
            PRE_TRAINING: (
                *linear("discriminator_predictions.dense", hidden, hidden, "other", bias=True),
                *linear("discriminator_predictions.dense_prediction", 1, hidden, "other", bias=True),
            ),
            SEQUENCE: _two_layer_classifier(config, hidden),
            TOKENS: classifier(config, hidden),
            QUESTIONS: classifier(config, hidden, "qa_outputs"),
        },
    )
    embeddings = embedding_tables(
        config, size, num_positions=positions, num_types=config.integer("type_vocab_size")
    )
    up = linear("embeddings_project", hidden, size, "other", bias=True) if size != hidden else ()
    return _closed(config, (*embeddings, *up, *head), heads, tied, positions)


def distilbert(config: Config) -> Structure:
    """Read DistilBERT: BERT without segments or pooler, its sizes in words of its own."""
    hidden = config.positive("hidden_size")
    heads = config.heads(hidden)
    width, vocab = config.positive("hidden_dim"), config.positive("vocab_size")
    tied, positions = config.flag("tie_word_embeddings", True), config.positive("max_position_embeddings")
    head = task_of(
        config,
        {
            MODEL: (),
            MASKED_LM: transform(hidden, hidden, vocab, tied=tied, name="vocab_transform", two_biases=False),
            SEQUENCE: (
                *linear("pre_classifier", hidden, hidden, "other", bias=True),
                *classifier(config, hidden),
            ),
            TOKENS: classifier(config, hidden),
            QUESTIONS: classifier(config, hidden, "qa_outputs"),
        },
    )
    embeddings = embedding_tables(config, hidden, num_positions=positions, num_types=0)
    groups = (LayerGroup(Layer((), encoder_layer(hidden, width)), config.layers()),)
    return encoder_structure(
        config, groups, (*embeddings, *head), heads=heads, tied=tied, context_limit_tokens=positions
    )


def albert(config: Config) -> Structure:
    """Read ALBERT: all layers run the same few sets of weights, which are stored once."""
    check_encoder(config)
    hidden = config.positive("hidden_size")
    heads = config.heads(hidden)
    size, vocab = config.positive("embedding_size", 128), config.positive("vocab_size")
    tied, positions = config.flag("tie_word_embeddings", True), config.positive("max_position_embeddings")
    pooled = pooler(hidden, "pooler")
    head = task_of(
        config,
        {
            MODEL: pooled,
            MASKED_LM: transform(hidden, size, vocab, tied=tied, name="predictions"),
            SEQUENCE: (*pooled, *classifier(config, hidden)),
            TOKENS: classifier(config, hidden),
            QUESTIONS: classifier(config, hidden, "qa_outputs"),
        },
    )
    num_sets = config.layers("num_hidden_groups", 1) * config.layers("inner_group_num", 1)
    shared = encoder_layer(hidden, config.positive("intermediate_size")) * num_sets
    embeddings = embedding_tables(
        config, size, num_positions=positions, num_types=config.integer("type_vocab_size")
    )
    up = linear("encoder.embedding_hidden_mapping_in", hidden, size, "other", bias=True)
    groups = (LayerGroup(Layer(()), config.layers()),)
    tensors = (*embeddings, *up, *shared, *head)
    return encoder_structure(config, groups, tensors, heads=heads, tied=tied, context_limit_tokens=positions)
