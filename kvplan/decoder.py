"""Putting a decoder together: the shape its config states, its layers, what lies around them.

Families read a Shape, build the layers that differ, and close the model with ``finish``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kvplan.attention_pattern import CHUNKED, FULL, SLIDING
from kvplan.config import Config
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
from kvplan.tensors import Tensor, embedding, lm_head, norm


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


def uniform(shape: Shape, tensors: tuple[Tensor, ...]) -> tuple[LayerGroup, ...]:
    """Return layers that are all alike: full attention and the same tensors."""
    return (LayerGroup(Layer((attention_cache(shape, FULL, 0),), tensors), shape.num_layers),)


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
    head: tuple[Tensor, ...] = () if is_tied else lm_head(shape.vocab_size, size, bias=head_bias)
    if is_tied and head_bias:
        head = (Tensor("lm_head.bias", (shape.vocab_size,), "lm_head", split="vocab"),)
    limit = context_limit_tokens
    if limit is None:
        limit = config.integer("max_position_embeddings", 0)
    return Structure(
        layers=layers,
        tensors=(
            embedding("model.embed_tokens", shape.vocab_size, size),
            *(norm("model.norm", shape.hidden_size, bias=norm_bias) if final_norm else ()),
            *head,
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
