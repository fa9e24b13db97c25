"""Putting a decoder together: the shape its config states, its layers, what lies around them.

Families read a Shape, build the layers that differ, and close the model with ``finish``.
"""

from collections.abc import Callable, Sequence

from kvplan.blocks.attention_pattern import CHUNKED, FULL, SLIDING, window_of, windowed
from kvplan.blocks.transformer import attention, gated_mlp
from kvplan.config import Config
from kvplan.errors import UnsupportedArchitecture
from kvplan.frozen import dataclass
from kvplan.layers import (
    Cache,
    ChunkedAttention,
    FullAttention,
    Layer,
    LayerGroup,
    SlidingWindow,
    run_lengths,
)
from kvplan.model import Structure
from kvplan.tensors import Tensor, embedding, linear, lm_head, norm, norms_of

# Classes whose name ends in Model and that have the language model's head all the same.
MODELS_WITH_HEAD = ("LMHeadModel", "ChatModel", "ChatGLMModel", "MTModel", "DoubleHeadsModel")

# The two norms of a layer in Llama's shape.
TWO_NORMS = ("input_layernorm", "post_attention_layernorm")


@dataclass(frozen=True, slots=True)
class Shape:
    """What nearly every decoder's config states."""

    hidden_size: int
    num_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int


def shape_of(
    config: Config,
    *,
    num_key_value_heads: int | None = None,
    head_dim: int | None = None,
    vocab_size: int | None = None,
    num_attention_heads: int | None = None,
) -> Shape:
    """Read a Shape; the arguments are class defaults for keys that files omit.

    Without a default, key-value heads equal the query heads and a head is hidden / heads, as the
    classes of transformers 5.23 have it. Raises InvalidSpec where heads do not group evenly.
    """
    hidden_size = config.positive("hidden_size")
    heads = config.positive("num_attention_heads", num_attention_heads)
    kv_heads = config.positive("num_key_value_heads", num_key_value_heads or heads)
    if heads % kv_heads:
        raise config.invalid("num_key_value_heads", f"is {kv_heads}, which does not divide {heads} heads")
    if head_dim is None and not config.has("head_dim") and hidden_size < heads:
        raise config.invalid("num_attention_heads", f"is {heads}, more than hidden_size {hidden_size}")
    return Shape(
        hidden_size=hidden_size,
        num_layers=config.layers(),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=config.positive("head_dim", head_dim or hidden_size // heads),
        vocab_size=config.positive("vocab_size", vocab_size),
    )


def attention_cache(shape: Shape, kind: str, window: int) -> Cache:
    """Return the cache of one layer: full, sliding or chunked by ``kind``."""
    heads, kv_heads, head_dim = shape.num_attention_heads, shape.num_key_value_heads, shape.head_dim
    if kind == SLIDING:
        return SlidingWindow(heads, kv_heads, head_dim, head_dim, window)
    if kind == CHUNKED:
        return ChunkedAttention(heads, kv_heads, head_dim, head_dim, window)
    return FullAttention(heads, kv_heads, head_dim, head_dim)


def attention_of(
    shape: Shape, *, qkv_bias: bool = False, o_bias: bool = False, qk_norm: str = ""
) -> tuple[Tensor, ...]:
    """Return q, k, v and o of a layer in Llama's shape, and the norms of its queries and keys.

    ``qk_norm`` is ``head`` (a query and a key norm of one head's size) or ``all`` (over all heads).
    """
    query, key = shape.head_dim, shape.head_dim
    if qk_norm == "all":
        query, key = query * shape.num_attention_heads, key * shape.num_key_value_heads
    return (
        *attention(
            shape.hidden_size,
            shape.num_attention_heads,
            shape.num_key_value_heads,
            shape.head_dim,
            qkv_bias=qkv_bias,
            o_bias=o_bias,
        ),
        *((*norm("self_attn.q_norm", query), *norm("self_attn.k_norm", key)) if qk_norm else ()),
    )


def block(
    config: Config,
    shape: Shape,
    *,
    qkv_bias: bool = False,
    o_bias: bool = False,
    mlp_bias: bool = False,
    qk_norm: str = "",
    norms: tuple[str, ...] = TWO_NORMS,
) -> tuple[Tensor, ...]:
    """Return the tensors of a layer in Llama's shape: attention, a gated MLP and ``norms``."""
    return (
        *attention_of(shape, qkv_bias=qkv_bias, o_bias=o_bias, qk_norm=qk_norm),
        *gated_mlp(shape.hidden_size, config.positive("intermediate_size"), bias=mlp_bias),
        *norms_of(shape.hidden_size, *norms),
    )


def num_labels(config: Config) -> int:
    """Return how many classes a classifier tells apart: 2 where the file names none.

    Source: transformers 5.23 configuration_utils.py (``id2label``, ``num_labels``).
    """
    labels = config.raw("id2label")
    count = len(labels) if isinstance(labels, dict) and labels else 2
    return config.positive("num_labels", count)


def output_head(config: Config, vocab_size: int, size: int, *, tied: bool, bias: bool) -> tuple[Tensor, ...]:
    """Return what follows the last norm, by the class that the file names.

    A bare ``...Model`` (an embedding model) has nothing, a classifier or reward model scores each
    label, all others have the language model's head. Source: transformers 5.23 modeling_layers.py
    (GenericForSequenceClassification without bias, the other two with).
    """
    name = "" if config.path else config.architecture
    if name.endswith("ForSequenceClassification"):
        return linear("score", num_labels(config), size, "other")
    if name.endswith("ForTokenClassification"):
        return linear("score", num_labels(config), size, "other", bias=True)
    if name.endswith("ForQuestionAnswering"):
        return linear("qa_outputs", 2, size, "other", bias=True)
    if name.endswith("RewardModel"):
        raise UnsupportedArchitecture(
            f"{config.origin or name}: class '{name}' is not known",
            why="each reward model has a head of its own",
            hint="plan the language model it was made from",
        )
    if name.endswith("Model") and not name.endswith(MODELS_WITH_HEAD):
        return ()
    if not tied:
        return lm_head(vocab_size, size, bias=bias)
    # A tied head shares the embedding's matrix but not its bias.
    return (Tensor("lm_head.bias", (vocab_size,), "lm_head", split="vocab"),) if bias else ()


def uniform(shape: Shape, tensors: tuple[Tensor, ...]) -> tuple[LayerGroup, ...]:
    """Return layers that are all alike: full attention and the same tensors."""
    return (LayerGroup(Layer((attention_cache(shape, FULL, 0),), tensors), shape.num_layers),)


def as_stated(config: Config, shape: Shape, tensors: tuple[Tensor, ...]) -> tuple[LayerGroup, ...]:
    """Return layers with the same tensors; attention is full unless the file states otherwise.

    A ``sliding_window`` or ``layer_types`` counts for any class: transformers 5.23 builds its cache
    from those keys alone (cache_utils.py), and so does vLLM.
    """
    kinds = windowed(config, shape.num_layers)
    return patterned(shape, kinds, window_of(config, kinds), tensors)


def fixed_head_dim(config: Config, shape: Shape) -> Shape:
    """Return the shape of a class whose heads are always hidden / heads.

    Raises InvalidSpec where the file says otherwise, which the class would not follow.
    """
    if shape.head_dim * shape.num_attention_heads != shape.hidden_size:
        raise config.invalid(
            "num_attention_heads",
            f"is {shape.num_attention_heads}, times {shape.head_dim} not hidden_size {shape.hidden_size}",
        )
    return shape


def patterned(
    shape: Shape, kinds: Sequence[str], window: int, tensors: tuple[Tensor, ...]
) -> tuple[LayerGroup, ...]:
    """Return layers with the same tensors whose attention follows ``kinds``."""
    made = {kind: Layer((attention_cache(shape, kind, window),), tensors) for kind in set(kinds)}
    return run_lengths([made[kind] for kind in kinds])


def by_index(num_layers: int, make: Callable[[int], Layer]) -> tuple[LayerGroup, ...]:
    """Return layers made one by one, equal neighbours in one group."""
    return run_lengths([make(index) for index in range(num_layers)])


def finish(
    config: Config,
    shape: Shape,
    layers: tuple[LayerGroup, ...],
    *,
    tied: bool,
    norm_bias: bool = False,
    final_norm: bool = True,
    norm_name: str = "model.norm",
    head_bias: bool = False,
    extra: tuple[Tensor, ...] = (),
    mtp_layers: tuple[LayerGroup, ...] = (),
    mtp_tensors: tuple[Tensor, ...] = (),
    embedding_size: int | None = None,
    context_limit_tokens: int | None = None,
    ssm_dtype: str | None = None,
    assumptions: tuple[str, ...] = (),
) -> Structure:
    """Close a decoder: embedding, final norm, output head.

    ``tied`` is the class's default for ``tie_word_embeddings``, which the config may overrule. A
    tied head may still have its own bias (``head_bias``).
    """
    is_tied = config.flag("tie_word_embeddings", tied)
    size = embedding_size or shape.hidden_size
    limit = context_limit_tokens
    if limit is None:
        limit = config.integer("max_position_embeddings", 0)
    return Structure(
        layers=layers,
        tensors=(
            embedding("model.embed_tokens", shape.vocab_size, size),
            *(norm(norm_name, shape.hidden_size, bias=norm_bias) if final_norm else ()),
            *output_head(config, shape.vocab_size, size, tied=is_tied, bias=head_bias),
            *extra,
        ),
        hidden_size=shape.hidden_size,
        vocab_size=shape.vocab_size,
        num_attention_heads=shape.num_attention_heads,
        context_limit_tokens=limit,
        tie_word_embeddings=is_tied,
        mtp_layers=mtp_layers,
        mtp_tensors=mtp_tensors,
        ssm_dtype=ssm_dtype,
        assumptions=assumptions,
    )
