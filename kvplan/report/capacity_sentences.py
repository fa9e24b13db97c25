"""The sentences of ``kvplan capacity``: the answer above its tables, and the notes below them."""

from collections.abc import Iterator

from kvplan.capacity.estimate import Estimate, known_traffic
from kvplan.capacity.fleet import Fleet
from kvplan.report.capacity_answer import CapacityAnswer
from kvplan.report.wording import engine_text
from kvplan.units import format_gib, format_tokens

RESOURCES = {"kv_pool": "KV pool", "state_slots": "state slots"}


def head(answer: CapacityAnswer) -> Iterator[str]:
    """Yield what was asked, how many GPUs hold it, and how much cache that is."""
    found = answer.estimate
    yield f"{answer.asked}, {engine_text(found.plan)}"
    fleets = found.fleets
    if fleets is not None:
        if fleets.reserved is None:
            yield f"no number of GPUs holds sessions of {format_tokens(found.limit_tokens)} tokens"
        else:
            yield (
                f"{_gpu_count(fleets.reserved)} if every session reserves "
                f"{format_tokens(found.limit_tokens)} tokens"
            )
        if fleets.paged is not None:
            yield (
                f"{_gpu_count(fleets.paged)} in blocks, while sessions hold at most "
                f"{format_tokens(fleets.paged.max_live_tokens)} tokens on average"
            )
    if found.memory is not None:
        tokens = f"{round(found.live_tokens):,} tokens a session"
        yield (
            f"cache: {format_gib(found.memory.reserved_bytes)} reserved, "
            f"{format_gib(found.memory.paged_bytes)} in blocks at {tokens}"
        )


def _gpu_count(fleet: Fleet) -> str:
    count = "1 GPU" if fleet.num_gpus == 1 else f"{fleet.num_gpus:,} GPUs"
    return count if fleet.num_gpus == 1 else f"{count} ({fleet.layout})"


def notes(answer: CapacityAnswer) -> Iterator[str]:
    """Yield on what condition the tables hold, and where their figures come from."""
    found = answer.estimate
    fleets = found.fleets
    if fleets is not None and fleets.paged is not None:
        yield from _fleet_notes(found)
    if found.usage:
        pool = found.pool_tokens or 0
        yield (
            f"in use: a pool of {pool:,} tokens with a full queue; effective: by lengths alone; paper: "
            "PagedAttention's % in use (Fig. 2) and requests at once (Fig. 13a)"
        )
    if found.load is not None:
        load = found.load
        yield (
            f"load: {load.num_sessions:,} sessions a replica exceed the pool {_percent(load.overflow_share)} "
            f"of the time, then somebody is preempted; seldom up to {load.sessions_without:,}, "
            f"half the time at {load.sessions_half:,}"
        )
    if found.sharing is not None:
        yield _sharing_text(found)
    for each in found.evictions:
        yield f"{each.name} loses {each.lost} ({each.source})"
    if found.lengths is not None and found.lengths.shared_fraction is not None:
        yield (
            f"prefixes: an endless cache would have seen {100 * found.lengths.shared_fraction:.1f} % of the "
            "prompt blocks before"
        )
    yield from _prices(answer)
    if answer.usd_per_million_tokens is not None:
        yield f"about ${answer.usd_per_million_tokens:,.2f} a million output tokens, at the rate above"
    if answer.cheapest:
        first = answer.cheapest[0].offer
        yield f"prices: on demand as in the table, the first {first.source}; rates are estimates"
    elif answer.num_sessions and fleets is None:
        yield "no priced instance holds this: name a card with --gpu"
    yield from (f"! {warning.message}" for warning in found.plan.warnings[:2])


def _prices(answer: CapacityAnswer) -> Iterator[str]:
    offers = [offer for offer in (answer.reserved_offer, answer.paged_offer) if offer is not None]
    for source in dict.fromkeys(offer.source for offer in offers):
        rented = [
            f"{offer.num_instances} × {offer.instance.name}" for offer in offers if offer.source == source
        ]
        yield f"price: {' or '.join(dict.fromkeys(rented))}, {source}"


def _fleet_notes(found: Estimate) -> Iterator[str]:
    fleets = found.fleets
    if fleets is None or fleets.paged is None:
        return
    paged = fleets.paged
    if found.lengths is None:
        yield f"in blocks is planned for {round(found.live_tokens):,} tokens a session ({found.live_source})"
    known = known_traffic(paged.max_live_tokens)
    holds = [f"{name} {tokens:,}" for name, tokens, within in known if within]
    fails = [f"{name} {tokens:,}" for name, tokens, within in known if not within]
    if holds:
        yield f"that is true for {', '.join(holds)}"
    if fails:
        yield f"that is false for {', '.join(fails)}, and when all sessions are full"
    yield (
        f"unpaged, reserving {format_tokens(found.limit_tokens)} tokens each, {fleets.unpaged_sessions:,} "
        f"sessions fit on {_gpu_count(paged)}"
    )
    if fleets.limits:
        ordered = sorted(fleets.limits, key=lambda item: item[1])
        parts = [f"{RESOURCES.get(name, name)} {count:,}" for name, count in ordered]
        yield f"sessions by resource: {', '.join(parts)}; {RESOURCES.get(ordered[0][0], ordered[0][0])} binds"
    if fleets.rate is not None:
        rate = fleets.rate
        yield (
            f"decodes about {rate.expected * paged.replicas:,.0f} tokens/s in all "
            f"({rate.low * paged.replicas:,.0f} to {rate.high * paged.replicas:,.0f}), an estimate"
        )


def _sharing_text(found: Estimate) -> str:
    shared = found.sharing
    if shared is None:
        return ""
    if not shared.engine_support:
        return f"prefix: {found.plan.engine_name} does not share it; every session keeps its own"
    if not shared.kinds:
        return "prefix: no layer of this model can share one: windows and states are each session's own"
    kinds = ", ".join(kind.replace("_", " ") for kind in shared.kinds)
    text = (
        f"prefix: {shared.prefix_tokens:,} tokens held once for {shared.num_sharing:,} sessions save "
        f"{format_gib(shared.saved_bytes)} in {kinds} layers ({shared.engine_support})"
    )
    if shared.not_shared:
        text += f"; not in {', '.join(kind.replace('_', ' ') for kind in shared.not_shared)} layers"
    return text


def _percent(share: float) -> str:
    return "less than 0.1 %" if share < 0.001 else f"{100 * share:.1f} %"
