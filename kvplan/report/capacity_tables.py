"""The tables of ``kvplan capacity``: fleets, instances, allocation, evictions, contexts."""

from collections.abc import Iterator

from kvplan.capacity.estimate import Estimate, mean_lengths, percentiles_text
from kvplan.hardware.cloud import Offer
from kvplan.report.capacity_answer import CapacityAnswer
from kvplan.report.sheet import Table
from kvplan.report.wording import VERDICTS
from kvplan.units import format_tokens

# PagedAttention (arXiv 2309.06180): memory in use by Fig. 2, requests at once by Fig. 13a (ShareGPT).
PAPER: dict[str, tuple[str, str]] = {
    "maximum": ("20.4", "7.00"),
    "power_of_two": ("26.8", "9.81"),
    "exact": ("38.2", "13.62"),
    "paged": ("96.3", "30.42"),
}


def tables(answer: CapacityAnswer) -> Iterator[Table]:
    """Yield the tables that have something to say."""
    found = answer.estimate
    yield from (each for each in (_gpus(answer), _cheapest(answer), *_traffic(found)) if each is not None)


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
