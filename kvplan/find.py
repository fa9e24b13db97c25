"""Which models, and in which precision, fit on given devices: planned one by one, then ranked.

Ranking, best first: what fits before what is tight; formats that lose little (four bits and more)
before the rest; then the most parameters, since no measure of quality is shipped; then the smaller
loss of the format. A model that is published in few bits is never unpacked into more.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from kvplan.device import Device
from kvplan.engines.base import Engine, Plan
from kvplan.errors import KvplanError
from kvplan.frozen import dataclass, replace
from kvplan.judge import DEFAULT_RULES, Rules, Verdict, exit_code, judge
from kvplan.model import ModelSpec, num_active_parameters
from kvplan.plan import default_engine, plan
from kvplan.quality import Loss, weight_loss
from kvplan.speed import Rate, decode_rate
from kvplan.weight_formats import weight_format
from kvplan.weights import format_name_of, least_bits, num_model_parameters, weight_bytes
from kvplan.workload import Workload

# What is tried beside the published format: one of each width that people use.
FORMATS: tuple[str, ...] = ("fp8", "q8_0", "q6_k", "q5_k_m", "awq", "q4_k_m")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model in a format that fits: its plan, how fast it decodes, what the format loses.

    ``rate`` is of all sequences together; None where a bandwidth is not known.
    """

    plan: Plan
    verdict: Verdict
    rate: Rate | None
    loss: Loss

    @property
    def num_parameters(self) -> int:
        """The model's parameters, the stand-in for its quality."""
        return num_model_parameters(self.plan.model)

    @property
    def num_active_parameters(self) -> int:
        """The parameters that one token uses."""
        return _num_active_parameters(self.plan.model)


@dataclass(frozen=True, slots=True)
class Choice:
    """A model in a format to try: the weights' least bytes by a bound, and what the format loses."""

    model: ModelSpec
    format_name: str
    least_bytes: int
    loss: Loss


def candidates(
    models: Iterable[ModelSpec],
    workload: Workload,
    devices: Sequence[Device],
    *,
    formats: Sequence[str] | None = None,
    engine: Engine | None = None,
    rules: Rules = DEFAULT_RULES,
    published_only: bool = False,
    rates: bool = True,
) -> Iterator[Candidate]:
    """Yield every model and format that fits, in the order of the models: ``choices``, then ``fitting``."""
    tried = choices(models, formats=formats, engine=engine, published_only=published_only)
    return fitting(tried, workload, devices, engine=engine, rules=rules, rates=rates)


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
    return tuple(sorted(tried, key=lambda choice: _order(choice.model, choice.loss)))


def fitting(
    tried: Iterable[Choice],
    workload: Workload,
    devices: Sequence[Device],
    *,
    engine: Engine | None = None,
    rules: Rules = DEFAULT_RULES,
    rates: bool = True,
) -> Iterator[Candidate]:
    """Yield the choices that fit on ``devices``, in their order.

    ``engine`` None takes the one the weights call for; without ``rates`` none is worked out. A model
    that the engine cannot plan is left out, as is one whose limit is below the asked context.
    """
    memory = sum(device.memory_bytes for device in devices)
    asked: dict[str, Workload] = {}
    for choice in tried:
        if choice.least_bytes >= memory:
            continue
        model, name = choice.model, choice.format_name
        limit = model.context_limit_tokens
        if (limit and workload.context_tokens > limit) or weight_bytes(model, name).low >= memory:
            continue
        if name not in asked:
            asked[name] = replace(workload, weights_format=name)
        found = _planned(choice, asked[name], devices, engine, rules, rates=rates)
        if found is not None:
            yield found


def best_on(
    tried: Iterable[Choice],
    workload: Workload,
    devices: Sequence[Device],
    *,
    engine: Engine | None = None,
    rules: Rules = DEFAULT_RULES,
    tokens_per_second: float | None = None,
) -> Candidate | None:
    """Return the best of the choices on ``devices`` that decodes so fast; None if none fits.

    ``tried`` are in the order of ``best_first``: what cannot be better than what fits is never planned.
    """
    is_fast = tokens_per_second is not None
    tight: Candidate | None = None
    for candidate in fitting(tried, workload, devices, engine=engine, rules=rules, rates=is_fast):
        if tokens_per_second is not None and not fast_enough(candidate, tokens_per_second):
            continue
        if candidate.verdict.status == "fits":
            return candidate if is_fast else replace(candidate, rate=decode_rate(candidate.plan))
        tight = tight or candidate
    return tight if tight is None or is_fast else replace(tight, rate=decode_rate(tight.plan))


@lru_cache(maxsize=4096)
def _num_active_parameters(model: ModelSpec) -> int:
    return num_active_parameters(model.structure)


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
        Choice(model, name, num_model_parameters(model) * least_bits(name) // 8, weight_loss(name))
        for name in dict.fromkeys(names)
        if families is None or weight_format(name).family in families
    )


def _planned(
    choice: Choice,
    workload: Workload,
    devices: Sequence[Device],
    engine: Engine | None,
    rules: Rules,
    *,
    rates: bool,
) -> Candidate | None:
    try:
        policy = engine or default_engine(choice.model, choice.format_name, has_gpu=bool(devices))
        result = plan(choice.model, workload, devices, policy)
    except KvplanError:
        return None
    verdict = judge(result, rules)
    if exit_code(verdict.status, rules) != 0 or verdict.status == "unknown":
        return None
    return Candidate(result, verdict, decode_rate(result) if rates else None, choice.loss)


def ranked(found: Iterable[Candidate], *, every_format: bool = False) -> tuple[Candidate, ...]:
    """Return candidates best first, one a model unless ``every_format``."""
    order = sorted(found, key=_rank)
    if every_format:
        return tuple(order)
    best: dict[str, Candidate] = {}
    for candidate in order:
        best.setdefault(candidate.plan.model.name, candidate)
    return tuple(best.values())


def _rank(candidate: Candidate) -> tuple[bool, tuple[bool, int, int, str]]:
    return candidate.verdict.status != "fits", _order(candidate.plan.model, candidate.loss)


def _order(model: ModelSpec, loss: Loss) -> tuple[bool, int, int, str]:
    return loss.tier == "large", -num_model_parameters(model), loss.rank, model.name


def fast_enough(candidate: Candidate, tokens_per_second: float) -> bool:
    """Tell whether one sequence decodes at that rate, by the expected value; not if it is unknown."""
    if candidate.rate is None:
        return False
    return candidate.rate.expected / max(1, candidate.plan.num_sequences) >= tokens_per_second
