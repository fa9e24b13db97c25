"""To make it fit: the smallest changes that do, each computed, not guessed.

Single changes first, then pairs of those that do not suffice alone, then running with layers in system
memory. Ranked by loss of quality, then by what it costs; a shorter context or fewer sequences do less
than was asked and are charged as a small loss.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations

from kvplan.changes.attempt import Option, Situation, Suggestion, attempt, changed, weights_alone_exceed
from kvplan.changes.options import singles, widest
from kvplan.engines.base import Plan
from kvplan.errors import KvplanError
from kvplan.frozen import replace
from kvplan.judge import judge
from kvplan.quality import weight_loss
from kvplan.solve import is_short, max_context, max_sequences

MAX_SUGGESTIONS = 4
MIN_CONTEXT_TOKENS = 2048
SHORTER_LOSS = 6
OFFLOAD_COST = 100
# Files that people run from system memory, the best first.
SPILLED_WEIGHTS = ("q8_0", "q4_k_m")


def suggestions(base: Plan, situation: Situation) -> tuple[Suggestion, ...]:
    """Return at most four ways to make it fit, smallest loss first, no two of one sort."""
    if not situation.devices:
        return ()
    situation = replace(situation, engine=situation.engine.searching())
    found: list[Suggestion] = []
    failed: list[Option] = []
    fitting: dict[str, list[tuple[int, int]]] = {}
    for option in singles(base, situation):
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


def _pairs(situation: Situation, failed: Sequence[Option]) -> Iterator[Suggestion]:
    """Yield pairs of changes that do not suffice alone, the smallest losses first, and shortened ones."""
    pairs = sorted(
        (pair for pair in combinations(widest(failed), 2) if pair[0].key != pair[1].key),
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


def _reduced(situation: Situation, options: tuple[Option, ...]) -> Iterator[Suggestion]:
    """Yield a shorter context and fewer sequences, as much of each as fits with ``options`` made."""
    workload, devices, engine = changed(situation, options)
    if engine.name != situation.engine.name and workload.engine_options:
        return
    try:
        if not situation.rules.allow_offload and weights_alone_exceed(situation.model, workload, devices):
            return
        # What spills is no suggestion, whatever is searched below.
        shortest = min(workload.context_tokens or MIN_CONTEXT_TOKENS, MIN_CONTEXT_TOKENS)
        if is_short(
            situation.model,
            replace(workload, context_tokens=shortest, context_source="flag", num_sequences=1),
            devices,
            engine,
        ):
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
