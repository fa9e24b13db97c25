"""To make it fit: the smallest changes that do, each computed, not guessed.

Single changes first (KV format, weights format, context, sequences, the engine's share of the card, what
it makes room for at once, its graphs, number of GPUs), then pairs of those that do not suffice alone, then
running with layers in system memory. Ranked by loss of quality, then by what it costs: a GPU costs
money, graphs speed, a shorter context or fewer sequences do less than was asked and are charged as a
small loss. What the engine refuses is never proposed.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations

from kvplan.device import Device
from kvplan.engines.base import Engine, Plan
from kvplan.errors import KvplanError
from kvplan.frozen import dataclass, replace
from kvplan.judge import DEFAULT_RULES, Rules, Verdict, exit_code, judge
from kvplan.model import ModelSpec
from kvplan.offload import plan_or_offload
from kvplan.plan import default_engine, plan
from kvplan.quality import KV, kv_loss, weight_loss
from kvplan.solve import fewest_gpus, is_short, max_context, max_sequences
from kvplan.weight_formats import weight_format
from kvplan.weights import format_name_of, least_bits, weight_bytes, weights_exceed
from kvplan.workload import Workload

MAX_SUGGESTIONS = 4
# Weights that nothing has packed.
FULL_BITS = 16
# Weights that are published in fewer bits than this are not published in other packings.
PACKED_BITS = 8
MIN_CONTEXT_TOKENS = 2048
# Beyond this a server has no room for what its allocator and libraries take later.
MAX_SHARE = 0.97

# Formats of weights that are proposed: those that people publish and engines run.
WEIGHTS: tuple[str, ...] = (
    "q8_0",
    "fp8",
    "q6_k",
    "q5_k_m",
    "q4_k_m",
    "awq",
    "iq4_xs",
    "q3_k_m",
    "iq3_xxs",
    "iq2_m",
)
# What each engine calls its share of the card and its switch for running without graphs.
SHARE_OPTION = {"vllm": "gpu_memory_utilization", "sglang": "mem_fraction_static"}
EAGER_OPTION = {"vllm": "enforce_eager", "sglang": "disable_cuda_graph"}
# What a server makes room for at once: a step of a prompt (vLLM's default on small cards) and the rows it
# samples (half of that default).
ROOM_OPTIONS: dict[str, tuple[tuple[str, int], ...]] = {
    "vllm": (("max_num_batched_tokens", 2048), ("max_num_seqs", 128)),
}

SHORTER_LOSS = 6
GPU_COST = 10
EAGER_COST = 2
ROOM_COST = 2
OFFLOAD_COST = 100
# Files that people run from system memory, the best first.
SPILLED_WEIGHTS = ("q8_0", "q4_k_m")


@dataclass(frozen=True, slots=True)
class Option:
    """One change: what it sets, the quality it loses, and what else it costs."""

    key: str
    value: str
    loss: int = 0
    cost: int = 0


@dataclass(frozen=True, slots=True)
class Price:
    """What one change costs in quality, as published; ``text`` is empty where nobody measured it."""

    key: str
    value: str
    text: str
    source: str


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Changes that, made together, give ``verdict``; ``loss`` and ``cost`` rank it."""

    changes: tuple[tuple[str, str], ...]
    verdict: Verdict
    plan: Plan
    loss: int
    cost: int = 0
    prices: tuple[Price, ...] = ()


@dataclass(frozen=True, slots=True)
class Situation:
    """What is being changed: the question, its devices and whether the engine was chosen by name."""

    model: ModelSpec
    workload: Workload
    devices: tuple[Device, ...]
    engine: Engine
    engine_chosen: bool
    rules: Rules = DEFAULT_RULES


def suggestions(base: Plan, situation: Situation) -> tuple[Suggestion, ...]:
    """Return at most four ways to make it fit, smallest loss first, no two of one sort."""
    if not situation.devices:
        return ()
    situation = replace(situation, engine=situation.engine.searching())
    found: list[Suggestion] = []
    failed: list[Option] = []
    fitting: dict[str, list[tuple[int, int]]] = {}
    for option in _singles(base, situation):
        if any(option.loss >= loss and option.cost >= cost for loss, cost in fitting.get(option.key, ())):
            # One of each sort is shown, and this would lose more.
            continue
        suggestion = attempt(situation, (option,))
        if suggestion is None:
            failed.append(option)
            continue
        found.append(suggestion)
        if suggestion.verdict.status == "fits":
            fitting.setdefault(option.key, []).append((option.loss, option.cost))
    found += _reduced(situation, ())
    is_tight = judge(base, situation.rules).status == "tight"
    picked = _diverse(sorted(found, key=_rank))
    if len(picked) < MAX_SUGGESTIONS:
        picked += _diverse(sorted(_pairs(situation, failed), key=_rank))
    if len(picked) < MAX_SUGGESTIONS and not is_tight and not situation.rules.allow_offload:
        picked += _spilled(base, situation)
    # What is tight already is only helped by what fits for certain.
    useful = [suggestion for suggestion in picked if not is_tight or suggestion.verdict.status == "fits"]
    return tuple(sorted(_diverse(useful)[:MAX_SUGGESTIONS], key=_rank))


def _rank(suggestion: Suggestion) -> tuple[int, int, int, int]:
    order = {"fits": 0, "tight": 1}.get(suggestion.verdict.status, 2)
    return (order, suggestion.loss, suggestion.cost, len(suggestion.plan.devices))


def _diverse(ranked: Sequence[Suggestion]) -> list[Suggestion]:
    kept: dict[tuple[str, ...], Suggestion] = {}
    for suggestion in ranked:
        kept.setdefault(tuple(sorted(key for key, _ in suggestion.changes)), suggestion)
    return list(kept.values())


def _singles(base: Plan, situation: Situation) -> Iterator[Option]:
    current_kv = {base.kv_dtype_k, base.kv_dtype_v}
    if situation.workload.kv_cache_dtype_k == "auto":
        for name, loss in KV.get(base.engine_name, {}).items():
            if name not in current_kv and base.cache.total.expected:
                yield Option("kv", name, loss.rank)
    now = base.weights.expected
    for name in WEIGHTS:
        other = name != base.weights_format and _can_load(situation, name)
        other = other and not _packs_again(situation.model, name)
        if other and _smaller(situation.model, name, base.weights_format, now):
            yield Option("weights", name, weight_loss(name).rank)
    yield from _engine_options(base, situation)
    yield from _gpu_options(situation)


def _can_load(situation: Situation, name: str) -> bool:
    """Tell whether the engine, or the one that the weights would call for, loads a format."""
    if weight_format(name).family in situation.engine.weight_families:
        return True
    # Another engine would not understand the flags that were given.
    return not situation.engine_chosen and not situation.workload.engine_options


def _packs_again(model: ModelSpec, name: str) -> bool:
    """Tell whether a format would pack anew what is published packed: GGUF files are, others are not."""
    return least_bits(model.weights_format) < PACKED_BITS and weight_format(name).family != "gguf"


def _smaller(model: ModelSpec, name: str, now: str, than_bytes: int) -> bool:
    if least_bits(now) >= FULL_BITS > least_bits(name):
        return True
    try:
        return weight_bytes(model, name).expected < than_bytes
    except KvplanError:
        return False


def _engine_options(base: Plan, situation: Situation) -> Iterator[Option]:
    options = dict(base.engine_options)
    share_name = SHARE_OPTION.get(base.engine_name)
    share = options.get(share_name) if share_name else None
    if share_name and isinstance(share, float) and situation.workload.option("kv_cache_memory_bytes") is None:
        step = int(share * 100) + 1
        while step / 100 <= MAX_SHARE:
            yield Option(share_name, f"{step / 100:g}", cost=1)
            step += 1
    for name, least in ROOM_OPTIONS.get(base.engine_name, ()):
        now = options.get(name)
        if isinstance(now, int) and now > least >= situation.workload.num_sequences:
            yield Option(name, str(least), cost=ROOM_COST)
    eager = EAGER_OPTION.get(base.engine_name)
    if eager and not situation.workload.option(eager):
        yield Option(eager, "true", cost=EAGER_COST)


def _gpu_options(situation: Situation) -> Iterator[Option]:
    workload = situation.workload
    if workload.tensor_parallel or workload.pipeline_parallel or len(set(situation.devices)) != 1:
        return
    have = len(situation.devices)
    needed = fewest_gpus(situation.model, workload, situation.devices[0], situation.engine, situation.rules)
    for count in sorted({have * 2, have * 4, needed} - {0}):
        if count > have and (not needed or count <= needed):
            yield Option("gpu", str(count), cost=GPU_COST * (count.bit_length() - have.bit_length()))


def _apply(situation: Situation, options: Sequence[Option]) -> tuple[Workload, tuple[Device, ...], Engine]:
    workload, devices, engine = situation.workload, situation.devices, situation.engine
    for option in options:
        match option.key:
            case "kv":
                workload = replace(workload, kv_cache_dtype_k=option.value, kv_cache_dtype_v=option.value)
            case "weights":
                workload = replace(workload, weights_format=option.value)
                if not situation.engine_chosen:
                    engine = default_engine(situation.model, option.value).searching()
            case "gpu":
                devices = (devices[0],) * int(option.value)
            case "ctx":
                workload = replace(workload, context_tokens=int(option.value), context_source="flag")
            case "batch":
                workload = replace(workload, num_sequences=int(option.value))
            case "allow_offload":
                pass
            case _:
                value = _read(option.value)
                kept = tuple(pair for pair in workload.engine_options if pair[0] != option.key)
                workload = replace(workload, engine_options=(*kept, (option.key, value)))
    return workload, devices, engine


def _read(text: str) -> object:
    if text == "true":
        return True
    return int(text) if text.isdigit() else float(text)


def _weights_exceed(model: ModelSpec, workload: Workload, devices: Sequence[Device]) -> bool:
    """Tell whether the weights alone are more than the devices, so that nothing needs to be planned."""
    name = format_name_of(model, workload.weights_format)
    return weights_exceed(model, name, sum(device.usable_bytes for device in devices))


def attempt(situation: Situation, options: Sequence[Option], rules: Rules | None = None) -> Suggestion | None:
    """Return what ``options`` together give, None where that is not a success or cannot be planned.

    What runs only by spilling is a success where ``rules`` allow it.
    """
    judged_by = rules or situation.rules
    workload, devices, engine = _apply(situation, options)
    if engine.name != situation.engine.name and (
        workload.engine_options
        or any(option.key == "kv" and option.value not in engine.kv_formats for option in options)
    ):
        # Flags and formats of one engine mean nothing to another.
        return None
    try:
        if rules is not None and rules.allow_offload:
            result = plan_or_offload(situation.model, workload, devices, engine, rules)
        elif (
            not judged_by.allow_offload and _weights_exceed(situation.model, workload, devices)
        ) or is_short(situation.model, workload, devices, engine):
            return None
        else:
            result = plan(situation.model, workload, devices, engine)
    except KvplanError:
        return None
    verdict = judge(result, judged_by)
    if exit_code(verdict.status, judged_by) != 0 or (verdict.status == "offload" and rules is None):
        return None
    return Suggestion(
        tuple((option.key, option.value) for option in options),
        verdict,
        result,
        sum(option.loss for option in options),
        sum(option.cost for option in options),
        tuple(_prices(result.engine_name, options)),
    )


def _prices(engine_name: str, options: Sequence[Option]) -> Iterator[Price]:
    for option in options:
        if option.key in ("kv", "weights"):
            loss = kv_loss(engine_name, option.value) if option.key == "kv" else weight_loss(option.value)
            yield Price(option.key, option.value, loss.text, loss.source)


def _pairs(situation: Situation, failed: Sequence[Option]) -> Iterator[Suggestion]:
    """Yield pairs of changes that do not suffice alone, the smallest losses first, and shortened ones."""
    pairs = sorted(
        (pair for pair in combinations(_widest(failed), 2) if pair[0].key != pair[1].key),
        key=lambda pair: (pair[0].loss + pair[1].loss, pair[0].cost + pair[1].cost),
    )
    settled: set[tuple[str, str]] = set()
    for pair in pairs:
        keys = (pair[0].key, pair[1].key)
        if keys in settled:
            # One of each sort is shown, and this would lose more.
            continue
        suggestion = attempt(situation, pair)
        if suggestion is not None:
            if suggestion.verdict.status == "fits":
                settled.add(keys)
            yield suggestion
        if len(settled) >= MAX_SUGGESTIONS:
            break
    for key in ("weights", "gpu"):
        # The smallest loss with which anything shorter succeeds: no other of its sort would be shown.
        for option in (option for option in failed if option.key == key):
            shortened = list(_reduced(situation, (option,)))
            yield from shortened
            if shortened:
                break


def _widest(options: Sequence[Option]) -> list[Option]:
    """Return the options with only the largest share of the card: where it fails, less will."""
    last = {option.key: option for option in options if option.key in SHARE_OPTION.values()}
    return [option for option in options if last.get(option.key, option) is option]


def _reduced(situation: Situation, options: tuple[Option, ...]) -> Iterator[Suggestion]:
    """Yield a shorter context and fewer sequences, as much of each as fits with ``options`` made."""
    workload, devices, engine = _apply(situation, options)
    if engine.name != situation.engine.name and workload.engine_options:
        return
    try:
        if not situation.rules.allow_offload and _weights_exceed(situation.model, workload, devices):
            return
        longest = max_context(situation.model, workload, devices, engine, situation.rules, MIN_CONTEXT_TOKENS)
        most = 0
        if workload.num_sequences > 1:
            most = max_sequences(
                situation.model, workload, devices, engine, situation.rules, workload.num_sequences
            )
    except KvplanError:
        return
    asked = workload.context_tokens or situation.model.context_limit_tokens
    if MIN_CONTEXT_TOKENS <= longest < asked:
        rounded = longest // 1024 * 1024
        loss = SHORTER_LOSS + (asked // rounded).bit_length()
        shorter = attempt(situation, (*options, Option("ctx", str(rounded), loss)))
        if shorter is not None:
            yield shorter
    if 1 <= most < workload.num_sequences:
        loss = SHORTER_LOSS + (workload.num_sequences // most).bit_length()
        fewer = attempt(situation, (*options, Option("batch", str(most), loss)))
        if fewer is not None:
            yield fewer


def _spilled(base: Plan, situation: Situation) -> list[Suggestion]:
    """Return the change that runs with a part in system memory, as the engine spills it."""
    if base.offloaded:
        return []
    rules = replace(situation.rules, allow_offload=True)
    kept: list[tuple[Option, ...]] = [()]
    if base.engine_name not in ("llama.cpp", "ollama"):
        kept = [
            (Option("weights", name, weight_loss(name).rank),)
            for name in SPILLED_WEIGHTS
            if not situation.engine_chosen and not situation.workload.engine_options
        ]
    spill = Option("allow_offload", "true", cost=OFFLOAD_COST)
    for options in kept:
        found = attempt(situation, (*options, spill), rules)
        if found is not None and found.verdict.status == "offload":
            return [found]
    return []
