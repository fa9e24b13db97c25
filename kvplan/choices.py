"""Which models are tried, in which formats, and in which order what fits is ranked.

Ranking, best first: formats that lose little (four bits and more) before the rest; then the most
parameters, since no measure of quality is shipped; then the smaller loss of the format. A model that
is published in few bits is never unpacked into more.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache

from kvplan.engines.base import Engine
from kvplan.frozen import dataclass
from kvplan.model import ModelSpec
from kvplan.quality import Loss, weight_loss
from kvplan.weight_formats import weight_format
from kvplan.weights import format_name_of, least_bits, least_bits_of, num_model_parameters

# What is tried beside the published format: one of each width that people use.
FORMATS: tuple[str, ...] = ("fp8", "q8_0", "q6_k", "q5_k_m", "awq", "q4_k_m")


@dataclass(frozen=True, slots=True)
class Choice:
    """A model in a format to try: the weights' least bytes by a bound, and what the format loses."""

    model: ModelSpec
    format_name: str
    least_bytes: int
    loss: Loss


def choices(
    models: Iterable[ModelSpec],
    *,
    formats: Sequence[str] | None = None,
    engine: Engine | None = None,
    published_only: bool = False,
) -> tuple[Choice, ...]:
    """Return what is to be tried: made once, asked for one card after the other.

    ``formats`` None tries the published one and those of ``FORMATS`` that are smaller;
    ``published_only`` tries no other format; ``engine`` leaves out what it does not load.
    """
    every = tuple(models)
    originals: frozenset[Shape] = frozenset()
    if formats is None and not published_only:
        originals = frozenset(
            _shape(model) for model in every if least_bits(format_name_of(model, None)) >= 16
        )
    names = None if formats is None else tuple(weight_format(name).name for name in formats)
    families = None if engine is None else engine.weight_families
    found: list[Choice] = []
    for model in every:
        found += _choices(model, names, families, published_only or _is_requantized(model, originals))
    return tuple(found)


def best_first(tried: Iterable[Choice]) -> tuple[Choice, ...]:
    """Return choices in the order in which what fits is ranked."""
    return tuple(sorted(tried, key=lambda choice: order_of(choice.model, choice.loss)))


def order_of(model: ModelSpec, loss: Loss) -> tuple[bool, int, int, str]:
    """Return where a model in a format stands among what fits, the best first."""
    return loss.tier == "large", -num_model_parameters(model), loss.rank, model.name


Shape = tuple[str, int, int]


def _shape(model: ModelSpec) -> Shape:
    return model.model_type, num_model_parameters(model), model.context_limit_tokens


def _is_requantized(model: ModelSpec, originals: frozenset[Shape]) -> bool:
    """Tell whether this is a quantized release of a model that is bundled in 16 bits as well.

    Its other formats are listed there.
    """
    return bool(originals) and least_bits(format_name_of(model, None)) < 16 and _shape(model) in originals


@lru_cache(maxsize=4096)
def _choices(
    model: ModelSpec, asked: tuple[str, ...] | None, families: tuple[str, ...] | None, as_published: bool
) -> tuple[Choice, ...]:
    """Return the formats of a model to try, of ``families`` that an engine loads."""
    published = format_name_of(model, None)
    bits = least_bits(published)
    if asked is not None:
        names = asked
    elif as_published:
        names = (published,)
    else:
        names = (published, *(name for name in FORMATS if least_bits(name) < bits))
    return tuple(
        Choice(model, name, num_model_parameters(model) * least_bits_of(model, name) // 8, weight_loss(name))
        for name in dict.fromkeys(names)
        if families is None or weight_format(name).family in families
    )
