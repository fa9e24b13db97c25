"""``kvplan capacity`` for scripts: the JSON document, and the records of CSV."""

from collections.abc import Iterator, Mapping

from kvplan.capacity.estimate import Estimate, known_traffic, mean_lengths
from kvplan.capacity.fleet import Fleet
from kvplan.hardware.cloud import Offer
from kvplan.report import json_report, plan_json
from kvplan.report.answer import Screen
from kvplan.report.capacity_answer import CapacityAnswer
from kvplan.report.capacity_tables import PAPER


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
            "tokens_per_second": plan_json.rate(fleets.rate),
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


def records(answer: CapacityAnswer) -> Iterator[Mapping[str, object]]:
    """Yield one record a fleet, or a policy where no sessions were asked."""
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
