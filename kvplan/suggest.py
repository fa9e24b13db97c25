"""To make it fit: the smallest changes that do, each computed, not guessed.

Single changes first (KV format, weights format, context, number of GPUs); pairs where they leave
room. Ranked by loss of quality, then by what it costs. What the engine refuses is never proposed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from kvplan.device import Device
from kvplan.dtypes import weight_format
from kvplan.engines.base import Engine, Plan
from kvplan.errors import KvplanError
from kvplan.judge import DEFAULT_RULES, Rules, Verdict, exit_code, judge
from kvplan.model import ModelSpec
from kvplan.plan import default_engine, plan
from kvplan.solve import fewest_gpus, max_context
from kvplan.workload import Workload

MAX_SUGGESTIONS = 4

# Loss of quality, in the rough order that published comparisons agree on within one engine family:
# 8-bit weights and caches lose next to nothing, 4-bit weights little, below that more. A GPU costs
# money instead, a shorter context function: both are charged so that they rank among the small ones.
WEIGHT_LOSS: dict[str, int] = {
    "fp8": 2,
    "q8_0": 1,
    "int8": 2,
    "q6_k": 3,
    "q5_k_m": 4,
    "awq": 8,
    "q4_k_m": 7,
    "iq4_xs": 9,
    "q3_k_m": 16,
    "iq3_xxs": 22,
    "iq2_m": 40,
}
KV_LOSS: dict[str, dict[str, int]] = {
    "vllm": {"fp8": 2},
    "sglang": {"fp8_e4m3": 2},
    "tensorrt-llm": {"fp8": 2},
    "llama.cpp": {"q8_0": 1, "q5_1": 3, "q4_0": 9},
    "ollama": {"q8_0": 1, "q4_0": 9},
    "ideal": {"fp8": 2, "int4": 9},
    "transformers": {},
}
GPU_COST = 5
CONTEXT_LOSS = 6
MIN_CONTEXT_TOKENS = 2048


@dataclass(frozen=True, slots=True)
class Option:
    """One change: what it sets, what it loses, and how many more GPUs it takes."""

    key: str
    value: str
    loss: int
    extra_gpus: int = 0


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Changes that, made together, give ``verdict`` with ``headroom_bytes`` to spare."""

    changes: tuple[tuple[str, str], ...]
    verdict: Verdict
    plan: Plan
    loss: int


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
    singles = list(_singles(base, situation))
    found: list[Suggestion] = []
    failed: list[Option] = []
    for option in singles:
        suggestion = _try(situation, (option,))
        if suggestion is None:
            failed.append(option)
        else:
            found.append(suggestion)
    context = _context_option(situation)
    if context is not None:
        found.append(context)
    picked = _diverse(sorted(found, key=_rank))
    if len(picked) >= MAX_SUGGESTIONS:
        return tuple(picked[:MAX_SUGGESTIONS])
    pairs: list[Suggestion] = []
    for first, second in sorted(combinations(failed, 2), key=lambda pair: pair[0].loss + pair[1].loss):
        if first.key != second.key:
            suggestion = _try(situation, (first, second))
            if suggestion is not None:
                pairs.append(suggestion)
        if len(pairs) >= 2 * MAX_SUGGESTIONS:
            break
    for option in failed:
        if option.key in ("weights", "gpu"):
            shortened = _shortened(situation, option)
            if shortened is not None:
                pairs.append(shortened)
    picked += _diverse(sorted(pairs, key=_rank))
    return tuple(sorted(picked[:MAX_SUGGESTIONS], key=_rank))


def _rank(suggestion: Suggestion) -> tuple[int, int, int]:
    return (suggestion.verdict.status != "fits", suggestion.loss, len(suggestion.plan.devices))


def _diverse(ranked: Sequence[Suggestion]) -> list[Suggestion]:
    kept: dict[tuple[str, ...], Suggestion] = {}
    for suggestion in ranked:
        kept.setdefault(tuple(key for key, _ in suggestion.changes), suggestion)
    return list(kept.values())


def _singles(base: Plan, situation: Situation) -> Iterator[Option]:
    current_kv = {base.kv_dtype_k, base.kv_dtype_v}
    for name, loss in KV_LOSS.get(base.engine_name, {}).items():
        if name not in current_kv and situation.workload.kv_cache_dtype_k == "auto":
            yield Option("kv", name, loss)
    now = base.weights.expected
    for name, loss in WEIGHT_LOSS.items():
        family = weight_format(name).family
        if situation.engine_chosen and family not in situation.engine.weight_families:
            continue
        if name != base.weights_format and _smaller(situation.model, name, now):
            yield Option("weights", name, loss)
    yield from _gpu_options(situation)


def _smaller(model: ModelSpec, name: str, than_bytes: int) -> bool:
    from kvplan.weights import weight_bytes

    try:
        return weight_bytes(model, name).expected < than_bytes
    except KvplanError:
        return False


def _gpu_options(situation: Situation) -> Iterator[Option]:
    workload = situation.workload
    if workload.tensor_parallel or workload.pipeline_parallel or len(set(situation.devices)) != 1:
        return
    have = len(situation.devices)
    needed = fewest_gpus(situation.model, workload, situation.devices[0], situation.engine, situation.rules)
    counts = sorted({have * 2, have * 4, needed} - {0})
    for count in counts:
        if count > have and (not needed or count <= needed):
            yield Option("gpu", str(count), GPU_COST * (count.bit_length() - have.bit_length()), count - have)


def _apply(situation: Situation, options: Sequence[Option]) -> tuple[Workload, tuple[Device, ...], Engine]:
    workload, devices, engine = situation.workload, situation.devices, situation.engine
    for option in options:
        match option.key:
            case "kv":
                workload = replace(workload, kv_cache_dtype_k=option.value, kv_cache_dtype_v=option.value)
            case "weights":
                workload = replace(workload, weights_format=option.value)
                if not situation.engine_chosen:
                    engine = default_engine(situation.model, option.value)
            case "gpu":
                devices = (devices[0],) * int(option.value)
            case "ctx":
                workload = replace(workload, context_tokens=int(option.value), context_source="flag")
    return workload, devices, engine


def _try(situation: Situation, options: Sequence[Option]) -> Suggestion | None:
    workload, devices, engine = _apply(situation, options)
    try:
        result = plan(situation.model, workload, devices, engine)
    except KvplanError:
        return None
    verdict = judge(result, situation.rules)
    if verdict.status == "offload" or exit_code(verdict.status, situation.rules) != 0:
        return None
    changes = tuple((option.key, option.value) for option in options)
    return Suggestion(changes, verdict, result, sum(option.loss for option in options))


def _context_option(situation: Situation) -> Suggestion | None:
    longest = max_context(
        situation.model, situation.workload, situation.devices, situation.engine, situation.rules
    )
    return _at_context(situation, (), longest)


def _shortened(situation: Situation, option: Option) -> Suggestion | None:
    workload, devices, engine = _apply(situation, (option,))
    try:
        longest = max_context(situation.model, workload, devices, engine, situation.rules)
    except KvplanError:
        return None
    return _at_context(situation, (option,), longest)


def _at_context(situation: Situation, options: tuple[Option, ...], longest: int) -> Suggestion | None:
    asked = situation.workload.context_tokens or situation.model.context_limit_tokens
    if not MIN_CONTEXT_TOKENS <= longest < asked:
        return None
    rounded = longest // 1024 * 1024
    loss = CONTEXT_LOSS + (asked // rounded).bit_length()
    return _try(situation, (*options, Option("ctx", str(rounded), loss)))
