"""Capacity for people: the GPUs and their condition first, then allocation, load, and the context."""

from collections.abc import Iterator, Mapping

from kvplan.capacity.estimate import Estimate, known_traffic, mean_lengths, percentiles_text
from kvplan.capacity.fleet import Fleet
from kvplan.hardware.cloud import Offer
from kvplan.report import json_report, sheet
from kvplan.report.answer import Screen
from kvplan.report.capacity_answer import CapacityAnswer
from kvplan.report.sheet import Sheet, Table
from kvplan.report.wording import VERDICTS, engine_text
from kvplan.units import format_gib, format_tokens

# PagedAttention (arXiv 2309.06180): memory in use by Fig. 2, requests at once by Fig. 13a (ShareGPT).
PAPER: dict[str, tuple[str, str]] = {
    "maximum": ("20.4", "7.00"),
    "power_of_two": ("26.8", "9.81"),
    "exact": ("38.2", "13.62"),
    "paged": ("96.3", "30.42"),
}
RESOURCES = {"kv_pool": "KV pool", "state_slots": "state slots"}


def table(answer: CapacityAnswer, screen: Screen) -> str:
    """Draw the tables."""
    return sheet.table(_sheet(answer), screen)


def plain(answer: CapacityAnswer, screen: Screen) -> str:
    """Write tab-separated rows."""
    return sheet.plain(_sheet(answer), screen)


def markdown(answer: CapacityAnswer, screen: Screen) -> str:
    """Write pipe tables."""
    return sheet.markdown(_sheet(answer), screen)


def csv(answer: CapacityAnswer, screen: Screen) -> str:
    """Write one record a fleet, or a policy where no sessions were asked."""
    return sheet.csv(_sheet(answer), screen)


def _sheet(answer: CapacityAnswer) -> Sheet:
    found = answer.estimate
    tables = [each for each in (_gpus(answer), _cheapest(answer), *_traffic(found)) if each is not None]
    return Sheet(tuple(_head(answer)), tuple(tables), tuple(_notes(answer)), tuple(_records(answer)))


def _head(answer: CapacityAnswer) -> Iterator[str]:
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


def _gpus(answer: CapacityAnswer) -> Table | None:
    fleets = answer.estimate.fleets
    if fleets is None:
        return None
    rows = []
    for name, fleet, offer in (
        ("every context reserved", fleets.reserved, answer.reserved_offer),
        ("the same without stages", fleets.tensor_only, None),
        ("in blocks", fleets.paged, answer.paged_offer),
    ):
        if fleet is None or (name == "the same without stages" and fleet == fleets.reserved):
            continue
        rows.append(
            (
                name,
                f"{fleet.num_gpus:,}",
                fleet.layout,
                f"{fleet.num_nodes:,}",
                f"{fleet.shape.num_sessions:,}",
                f"{fleet.max_live_tokens:,}",
                VERDICTS[fleet.status],
                _price(offer),
            )
        )
    columns = ("cache", "GPUs", "layout", "nodes", "sessions a replica", "tokens each", "verdict", "an hour")
    right = ("GPUs", "nodes", "sessions a replica", "tokens each")
    return Table(columns, tuple(rows), drop=("sessions a replica", "nodes"), right=right)


def _price(offer: Offer | None) -> str:
    price = offer.price_usd_per_hour if offer else None
    return "" if price is None else f"${price:,.2f}"


def _cheapest(answer: CapacityAnswer) -> Table | None:
    if not answer.cheapest:
        return None
    rows = tuple(
        (
            f"{row.offer.num_instances} × {row.offer.instance.provider} {row.offer.instance.name}",
            row.gpu,
            f"{row.num_gpus:,}",
            row.layout,
            f"${row.usd_per_hour:,.2f}",
            "" if row.usd_per_million_tokens is None else f"~${row.usd_per_million_tokens:,.2f}",
        )
        for row in answer.cheapest
    )
    columns = ("instances", "GPU", "GPUs", "layout", "an hour", "a million tokens")
    return Table(
        columns, rows, "cheapest, in blocks:", drop=("GPU", "GPUs"), right=("GPUs", "an hour", columns[5])
    )


def _traffic(found: Estimate) -> Iterator[Table]:
    if found.shares:
        yield _allocation(found)
    if found.evictions:
        bounded = tuple(
            (
                f"{each.name} {each.kept_first:,}+{each.kept_recent:,}",
                f"{each.bounded_bytes_per_sequence / 2**20:,.0f} of {each.bytes_per_sequence / 2**20:,.0f}",
                each.available or "not in this engine",
                ", ".join(each.engines) or "no engine",
            )
            for each in found.evictions
        )
        yield Table(("eviction", "MiB a sequence", "here", "elsewhere"), bounded, "bounded caches:")
    if found.steps:
        rows = tuple(
            (
                step.name,
                format_tokens(step.context_tokens),
                f"{100 * step.served:.1f} %",
                f"{step.bytes_per_sequence / 2**20:,.0f}",
                "" if step.max_sequences is None else f"{step.max_sequences:,}",
                "" if step.max_sequences is None else VERDICTS[step.status],
            )
            for step in found.steps
        )
        columns = ("context for", "tokens", "requests served", "MiB a sequence", "at once", "verdict")
        right = columns[1:5]
        yield Table(columns, rows, "which context:", drop=("verdict",), right=right)


def _allocation(found: Estimate) -> Table:
    usage = {each.policy: each for each in found.usage}
    rows = []
    for share in found.shares:
        run = usage.get(share.policy)
        cells = (
            tuple(
                f"{100 * value:.1f}"
                for value in (run.in_use, run.reserved_for_later, run.internal_waste, run.external_waste)
            )
            if run
            else ("", "", "", "")
        )
        at_once = f"{run.mean_running:,.1f}" if run else ""
        in_use, paper = PAPER[share.policy]
        rows.append(
            (
                share.policy.replace("_", " "),
                f"{100 * share.effective:.2f}",
                *cells,
                at_once,
                f"{in_use}, {paper}",
            )
        )
    columns = (
        "allocation", "% effective", "% in use", "for later", "internal", "external", "at once", "paper",
    )  # fmt: skip
    return Table(columns, tuple(rows), _lengths_text(found), drop=("paper",), right=columns[1:7])


def _lengths_text(found: Estimate) -> str:
    if found.lengths is None:
        return ""
    text = f"lengths: {found.lengths.source}"
    if len(found.lengths.prompts) > 1:
        mean_in, mean_out, live = mean_lengths(found.lengths)
        text += f"; mean {mean_in:,.1f} in, {mean_out:,.1f} out, {live:,.0f} held while decoding"
        text += f"; {percentiles_text(found.lengths.totals)}"
    if found.lengths.num_dropped:
        text += f"; {found.lengths.num_dropped:,} longer than {found.limit_tokens:,} left out"
    return text


def _notes(answer: CapacityAnswer) -> Iterator[str]:
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


def _records(answer: CapacityAnswer) -> Iterator[Mapping[str, object]]:
    found = answer.estimate
    if found.fleets is not None:
        for name, fleet, offer in (
            ("reserved", found.fleets.reserved, answer.reserved_offer),
            ("reserved_tensor_only", found.fleets.tensor_only, None),
            ("paged", found.fleets.paged, answer.paged_offer),
        ):
            if fleet is not None:
                yield {"cache": name, **_fleet(fleet, offer)}
        return
    usage = {each.policy: each for each in found.usage}
    for share in found.shares:
        run = usage.get(share.policy)
        yield {
            "allocation": share.policy,
            "effective": round(share.effective, 6),
            "in_use": round(run.in_use, 6) if run else None,
            "reserved_for_later": round(run.reserved_for_later, 6) if run else None,
            "internal_waste": round(run.internal_waste, 6) if run else None,
            "external_waste": round(run.external_waste, 6) if run else None,
            "mean_running": round(run.mean_running, 3) if run else None,
        }
    for row in answer.cheapest:
        yield {
            "instance": row.offer.instance.name,
            "provider": row.offer.instance.provider,
            "num_instances": row.offer.num_instances,
            "usd_per_hour": round(row.usd_per_hour, 4),
        }


def _fleet(fleet: Fleet, offer: Offer | None) -> dict[str, object]:
    price = offer.price_usd_per_hour if offer else None
    return {
        "num_gpus": fleet.num_gpus,
        "replicas": fleet.replicas,
        "tensor": fleet.shape.tensor,
        "pipeline": fleet.shape.pipeline,
        "num_nodes": fleet.num_nodes,
        "sessions_per_replica": fleet.shape.num_sessions,
        "binding": fleet.shape.binding,
        "pool_tokens": fleet.shape.pool_tokens,
        "max_live_tokens": fleet.max_live_tokens,
        "verdict": fleet.status,
        "instance": offer.instance.name if offer else None,
        "num_instances": offer.num_instances if offer else None,
        "usd_per_hour": round(price, 4) if price is not None else None,
        "price_source": offer.source if offer else None,
    }


def json(answer: CapacityAnswer, screen: Screen) -> str:  # noqa: ARG001 - every format takes the screen
    """Write everything, None for what was not asked."""
    found = answer.estimate
    fleets = found.fleets
    return json_report.document(
        "capacity",
        answer.exit_code,
        asked=answer.asked,
        model=found.plan.model.name,
        engine={"name": found.plan.engine_name, "version": found.plan.engine_version},
        num_sessions=answer.num_sessions,
        context_tokens=found.limit_tokens,
        live_tokens=round(found.live_tokens, 3),
        live_source=found.live_source,
        cache={
            "reserved_bytes": found.memory.reserved_bytes,
            "paged_bytes": found.memory.paged_bytes,
        }
        if found.memory
        else None,
        fleets={
            "reserved": _fleet(fleets.reserved, answer.reserved_offer) if fleets.reserved else None,
            "reserved_tensor_only": _fleet(fleets.tensor_only, None) if fleets.tensor_only else None,
            "paged": _fleet(fleets.paged, answer.paged_offer) if fleets.paged else None,
            "unpaged_sessions": fleets.unpaged_sessions,
            "limits": dict(fleets.limits),
            "tokens_per_second": json_report.rate(fleets.rate),
            "usd_per_million_tokens": answer.usd_per_million_tokens,
            "traffic": [
                {"name": name, "mean_live_tokens": tokens, "holds": holds}
                for name, tokens, holds in known_traffic(fleets.paged.max_live_tokens)
            ]
            if fleets.paged
            else [],
        }
        if fleets
        else None,
        cheapest=[
            {
                "instance": row.offer.instance.name,
                "provider": row.offer.instance.provider,
                "num_instances": row.offer.num_instances,
                "gpu": row.gpu,
                "num_gpus": row.num_gpus,
                "layout": row.layout,
                "usd_per_hour": round(row.usd_per_hour, 4),
                "usd_per_million_tokens": row.usd_per_million_tokens,
                "price_source": row.offer.source,
            }
            for row in answer.cheapest
        ],
        **_traffic_json(found),
    )


def _traffic_json(found: Estimate) -> dict[str, object]:
    usage = {each.policy: each for each in found.usage}
    lengths, load, shared = found.lengths, found.load, found.sharing
    return {
        "lengths": {
            "source": lengths.source,
            "num_requests": len(lengths.prompts),
            "num_dropped": lengths.num_dropped,
            "mean_prompt": mean_lengths(lengths)[0],
            "mean_output": mean_lengths(lengths)[1],
            "mean_live": mean_lengths(lengths)[2],
            "shared_fraction": lengths.shared_fraction,
        }
        if lengths
        else None,
        "allocation": [
            {
                "policy": share.policy,
                "effective": share.effective,
                "mean_reserved_tokens": share.mean_reserved_tokens,
                "simulated": _run(usage.get(share.policy)),
                "paper": {
                    "percent_in_use": float(PAPER[share.policy][0]),
                    "requests_at_once": float(PAPER[share.policy][1]),
                },
            }
            for share in found.shares
        ],
        "pool_tokens": found.pool_tokens,
        "load": {
            "num_sessions": load.num_sessions,
            "pool_tokens": load.pool_tokens,
            "mean_tokens": load.mean_tokens,
            "overflow_share": load.overflow_share,
            "sessions_without_overflow": load.sessions_without,
            "sessions_half_the_time": load.sessions_half,
        }
        if load
        else None,
        "sharing": {
            "prefix_tokens": shared.prefix_tokens,
            "num_sharing": shared.num_sharing,
            "shared_bytes_per_token": shared.shared_bytes_per_token,
            "saved_bytes": shared.saved_bytes,
            "kinds": list(shared.kinds),
            "not_shared": list(shared.not_shared),
            "engine_support": shared.engine_support or None,
        }
        if shared
        else None,
        "evictions": [
            {
                "name": each.name,
                "kept_first": each.kept_first,
                "kept_recent": each.kept_recent,
                "bytes_per_sequence": each.bytes_per_sequence,
                "bounded_bytes_per_sequence": each.bounded_bytes_per_sequence,
                "lost": each.lost,
                "source": each.source,
                "available": each.available or None,
                "engines": list(each.engines),
            }
            for each in found.evictions
        ],
        "contexts": [
            {
                "name": step.name,
                "context_tokens": step.context_tokens,
                "served": step.served,
                "bytes_per_sequence": step.bytes_per_sequence,
                "max_sequences": step.max_sequences,
                "verdict": step.status,
            }
            for step in found.steps
        ],
    }


def _run(run: object) -> dict[str, object] | None:
    from dataclasses import asdict

    from kvplan.capacity.simulation import Usage

    return asdict(run) if isinstance(run, Usage) else None
