"""What free memory could buy: better precision, a longer context, more sequences, each computed.

The other direction of kvplan.changes.suggestions: from a plan that fits, the largest gain of each sort that
still fits, so that a card is not left half empty unknowingly.
"""

from collections.abc import Iterator

from kvplan.changes.attempt import Option, Situation, Suggestion, attempt
from kvplan.changes.options import WEIGHTS
from kvplan.engines.base import Plan
from kvplan.frozen import replace
from kvplan.quality import KV, kv_loss, weight_loss
from kvplan.solve import Limits, context_ceiling
from kvplan.weights import format_name_of

# Less than this many times as much is not worth a line.
WORTHWHILE = 2


def upgrades(base: Plan, situation: Situation, limits: Limits) -> tuple[Suggestion, ...]:
    """Return one gain of each sort: weights, KV format, context, sequences; fits only, never tight."""
    if not situation.devices:
        return ()
    situation = replace(situation, engine=situation.engine.searching())
    found = (
        _first(base, situation, _weights(base, situation)),
        _first(base, situation, _cache(base, situation)),
        _first(base, situation, _context(base, situation, limits)),
        _first(base, situation, _sequences(base, limits)),
    )
    return tuple(suggestion for suggestion in found if suggestion is not None)


def _first(base: Plan, situation: Situation, options: Iterator[Option]) -> Suggestion | None:
    for option in options:
        suggestion = attempt(situation, (option,))
        if suggestion is None or suggestion.verdict.status != "fits":
            continue
        same = option.key == "weights" and suggestion.plan.weights_format == base.weights_format
        # An engine that chooses the context itself may pay with it: that is no gain.
        if not same and suggestion.plan.context_tokens >= base.context_tokens:
            return suggestion
    return None


def _weights(base: Plan, situation: Situation) -> Iterator[Option]:
    """Yield better formats, the best first: the published one, then what lies between."""
    now = weight_loss(base.weights_format).rank
    published = format_name_of(situation.model, None)
    names = (published, *WEIGHTS)
    better = [name for name in dict.fromkeys(names) if weight_loss(name).rank < now]
    floor = weight_loss(published).rank
    for name in sorted(better, key=lambda name: weight_loss(name).rank):
        # What is published in few bits has no better copy.
        if weight_loss(name).rank >= floor:
            yield Option("weights", name)


def _cache(base: Plan, situation: Situation) -> Iterator[Option]:
    if situation.workload.kv_cache_dtype_k == "auto":
        return
    now = max(
        kv_loss(base.engine_name, base.kv_dtype_k).rank, kv_loss(base.engine_name, base.kv_dtype_v).rank
    )
    if now:
        yield Option("kv", "auto")
    for name, loss in sorted(KV.get(base.engine_name, {}).items(), key=lambda item: item[1].rank):
        if loss.rank < now:
            yield Option("kv", name)


def _context(base: Plan, situation: Situation, limits: Limits) -> Iterator[Option]:
    ceiling = min(limits.max_context_tokens, context_ceiling(situation.model, situation.workload))
    if ceiling >= WORTHWHILE * base.context_tokens:
        for percent in (100, 90, 75):
            longer = ceiling * percent // 100 // 1024 * 1024
            if longer > base.context_tokens:
                yield Option("ctx", str(longer))


def _sequences(base: Plan, limits: Limits) -> Iterator[Option]:
    if limits.max_sequences >= WORTHWHILE * base.num_sequences:
        for percent in (100, 90, 75):
            more = limits.max_sequences * percent // 100
            if more > base.num_sequences:
                yield Option("batch", str(more))
