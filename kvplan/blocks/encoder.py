"""Putting an encoder together: layers that cache nothing, and the head its class puts on top.

An encoder's class decides what it stores: the bare model may have a pooler, a reranker a classifier,
a masked language model a transform. Families say what theirs have; the class comes from the config's
``architectures``. Source: transformers 5.23 models/bert, roberta and their kin.
"""

from collections.abc import Mapping

from kvplan.blocks.decoder import num_labels
from kvplan.config import Config
from kvplan.errors import UnsupportedArchitecture
from kvplan.layers import LayerGroup
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear, norm

MODEL = "Model"
MASKED_LM = "ForMaskedLM"
PRE_TRAINING = "ForPreTraining"
SEQUENCE = "ForSequenceClassification"
TOKENS = "ForTokenClassification"
QUESTIONS = "ForQuestionAnswering"
CHOICES = "ForMultipleChoice"
NEXT_SENTENCE = "ForNextSentencePrediction"


def task_of(config: Config, known: Mapping[str, tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Return the head of the config's class out of ``known``, by the end of the class's name.

    A config that names no class is a bare model. Raises UnsupportedArchitecture for other classes.
    """
    name = config.architecture if not config.path else ""
    task = MODEL
    if "For" in name:
        task = name[name.index("For") :]
    elif name and (not name.endswith(MODEL) or name.endswith("LMHeadModel")):
        task = name
    if task not in known:
        raise UnsupportedArchitecture(
            f"{config.origin or name}: class '{name}' is not known",
            why="its head could be any size",
            hint="name one of the usual classes in architectures, or report the model",
        )
    return known[task]


def transform(
    hidden: int, size: int, vocab_size: int, *, tied: bool, name: str, two_biases: bool = True
) -> tuple[Tensor, ...]:
    """Return a masked language model's head: a dense layer, a norm, the (tied) decoder and its bias.

    Untied, the decoder has a matrix of its own and, with ``two_biases``, a bias beside the head's.
    """
    decoder = (
        () if tied else linear(f"{name}.decoder", vocab_size, size, "lm_head", bias=two_biases, split="vocab")
    )
    return (
        *linear(f"{name}.dense", size, hidden, "lm_head", bias=True),
        *norm(f"{name}.layer_norm", size, bias=True),
        Tensor(f"{name}.bias", (vocab_size,), "lm_head", split="vocab"),
        *decoder,
    )


def pooler(hidden: int, name: str = "pooler.dense") -> tuple[Tensor, ...]:
    """Return the dense layer over the first token."""
    return linear(name, hidden, hidden, "other", bias=True)


def classifier(config: Config, hidden: int, name: str = "classifier") -> tuple[Tensor, ...]:
    """Return one score a label."""
    return linear(name, num_labels(config), hidden, "other", bias=True)


def check_encoder(config: Config) -> None:
    """Refuse a config that turns the encoder into a decoder, whose layers would cache."""
    if config.flag("is_decoder", False) or config.flag("add_cross_attention", False):
        raise UnsupportedArchitecture(
            f"{config.origin}: an encoder used as a decoder is not known",
            why="its layers would cache keys and values",
            hint="report the model",
        )


def encoder_structure(
    config: Config,
    layers: tuple[LayerGroup, ...],
    tensors: tuple[Tensor, ...],
    *,
    heads: int,
    tied: bool,
    context_limit_tokens: int,
) -> Structure:
    """Close an encoder."""
    return Structure(
        layers=layers,
        tensors=tensors,
        hidden_size=config.positive("hidden_size"),
        vocab_size=config.positive("vocab_size"),
        num_attention_heads=heads,
        context_limit_tokens=context_limit_tokens,
        tie_word_embeddings=tied,
        kind="encoder",
    )
