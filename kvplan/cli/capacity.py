"""``kvplan capacity``: many requests at once, and how many GPUs they need."""

from typing import TYPE_CHECKING, Annotated

import typer

from kvplan.cli import options as opt
from kvplan.cli.app import submit
from kvplan.cli.outcome import Outcome, Output
from kvplan.frozen import dataclass

if TYPE_CHECKING:
    from kvplan.capacity.estimate import Demand, Estimate
    from kvplan.capacity.fleet import Fleet, Site
    from kvplan.capacity.lengths import Lengths
    from kvplan.cli.question import Asked, Question
    from kvplan.hardware.cloud import Instance, Offer
    from kvplan.report.capacity_answer import Cheapest

MAX_SESSIONS = 10**7
CHEAPEST_SHOWN = 5


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("capacity")(capacity)


@dataclass(frozen=True, slots=True)
class _Traffic:
    """What was typed about requests and prices."""

    sessions: int | None
    trace: str | None
    mean_in: float | None
    mean_out: float | None
    tokens: str | None
    seed: int
    block_size: int | None
    prefix: str | None
    prefix_fraction: float
    evict: tuple[str, ...]
    gpus_per_node: int
    instance: str | None
    prices: str | None


def capacity(
    model: opt.ModelArgument,
    gpu: Annotated[
        str | None, typer.Option("--gpu", metavar="GPU", help="The card; as many as it takes are used.")
    ] = None,
    ctx: opt.CtxOption = None,
    sessions: Annotated[
        int | None,
        typer.Option("--sessions", metavar="S", min=1, max=MAX_SESSIONS, help="Sessions at once."),
    ] = None,
    trace: Annotated[
        str | None, typer.Option("--trace", metavar="FILE", help="Request lengths: CSV or JSON lines.")
    ] = None,
    mean_in: Annotated[
        float | None, typer.Option("--mean-in", metavar="N", help="Draw prompts of this mean length.")
    ] = None,
    mean_out: Annotated[
        float | None, typer.Option("--mean-out", metavar="N", help="Draw outputs of this mean length.")
    ] = None,
    tokens: Annotated[
        str | None,
        typer.Option("--tokens", "--mean-tokens", metavar="N", help="Every session holds N tokens."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Seed of what is drawn.")] = 0,
    block_size: Annotated[
        int | None,
        typer.Option("--block-size", metavar="N", min=1, max=2**16, help="Tokens a block. Default: 16."),
    ] = None,
    prefix: Annotated[
        str | None, typer.Option("--prefix", metavar="TOKENS", help="A system prompt that sessions share.")
    ] = None,
    prefix_fraction: Annotated[
        float,
        typer.Option("--prefix-fraction", metavar="F", min=0, max=1, help="Part of sessions that share it."),
    ] = 1.0,
    evict: Annotated[
        list[str] | None,
        typer.Option("--evict", metavar="POLICY", help="streaming-llm:SINKS+WINDOW or h2o:HEAVY+RECENT."),
    ] = None,
    batch: opt.BatchOption = None,
    weights: opt.WeightsOption = None,
    kv: opt.KvOption = None,
    engine: opt.EngineOption = None,
    tp: opt.TensorOption = None,
    gpus_per_node: Annotated[
        int, typer.Option("--gpus-per-node", metavar="N", min=1, max=72, help="GPUs in one machine.")
    ] = 8,
    instance: Annotated[
        str | None, typer.Option("--instance", metavar="NAME", help="A cloud instance in place of --gpu.")
    ] = None,
    prices: Annotated[
        str | None, typer.Option("--prices", metavar="FILE", help="A price table of your own (YAML).")
    ] = None,
    reserve: opt.ReserveOption = None,
    overhead: opt.OverheadOption = None,
    min_headroom: opt.MinHeadroomOption = None,
    strict: opt.StrictOption = False,
    offline: opt.OfflineOption = False,
    assume: opt.AssumeOption = None,
    format_: opt.SheetFormatOption = "auto",
    json_: opt.JsonOption = False,
    output: opt.OutputOption = None,
    export: opt.ExportOption = None,
) -> None:
    """Say what many requests need: memory reserved and in blocks, GPUs, layouts, price.

    kvplan capacity llama-3-70b --sessions 200 --ctx 8k --gpu a100-80gb
    Without --gpu but with --sessions, the cheapest cloud instances are listed.
    """

    def job(engine_words: tuple[str, ...]) -> Outcome:
        from kvplan.cli.question import Asked
        from kvplan.errors import OptionClash

        if batch is not None and sessions is not None:
            raise OptionClash(
                "--batch and --sessions are both given",
                why="both say how many sessions run at once",
                hint="leave out --batch",
            )
        if gpu is not None and instance is not None:
            raise OptionClash(
                "--gpu and --instance are both given",
                why="an instance has its card",
                hint="leave out one of them",
            )
        asked = Asked(
            model=model,
            gpus=(gpu,) if gpu else (),
            ctx=ctx,
            weights=weights,
            kv=kv,
            engine=engine,
            tp=tp,
            reserve=reserve,
            overhead=overhead,
            min_headroom=min_headroom,
            strict=strict,
            offline=offline,
            assume=assume,
            engine_words=engine_words,
        )
        from kvplan.cli.question import number_of_sequences

        traffic = _Traffic(
            sessions if batch is None else number_of_sequences(batch),
            trace,
            mean_in,
            mean_out,
            tokens,
            seed,
            block_size,
            prefix,
            prefix_fraction,
            tuple(evict or ()),
            gpus_per_node,
            instance,
            prices,
        )
        return _answer(asked, traffic, Output("json" if json_ else format_, output, tuple(export or ())))

    submit(job)


def _answer(asked: "Asked", traffic: _Traffic, output: Output) -> Outcome:
    from kvplan.capacity.estimate import estimate
    from kvplan.engines.base import context_or_limit
    from kvplan.hardware.cloud import instance_named, instances
    from kvplan.report.capacity_answer import CapacityAnswer

    asking = _question(asked)
    limit, _ = context_or_limit(asking.model, asking.workload)
    demand = _demand(traffic, limit)
    table = instances(traffic.prices)
    chosen = instance_named(traffic.instance, table) if traffic.instance else None
    site = _site(asking, traffic, chosen)
    found = estimate(asking.model, asking.workload, asking.engine, demand, site, asking.rules)
    fleets = found.fleets
    reserved = fleets.reserved if fleets else None
    paged = fleets.paged if fleets else None
    offers = tuple(_offer(site, fleet, table, chosen) for fleet in (reserved, paged))
    listed = _cheapest(asking, demand, table, traffic) if site is None and traffic.sessions else ()
    none_holds = fleets is not None and fleets.paged is None
    answer = CapacityAnswer(
        _asked_text(asked, traffic),
        traffic.sessions,
        traffic.instance or (asked.gpus[0] if asked.gpus else ""),
        found,
        offers[0],
        offers[1],
        _per_million(offers[1], found, paged),
        listed,
        1 if none_holds else 0,
    )
    return Outcome(answer.exit_code, answer, output)


def _question(asked: "Asked") -> "Question":
    """Read the question; a count in front of the card is refused, since it is what is asked for."""
    from kvplan.cli.question import question
    from kvplan.errors import InvalidValue

    asking = question(asked)
    if len(asking.devices) > 1 and not asked.tp:
        raise InvalidValue(
            f"--gpu {asked.gpus[0]} names {len(asking.devices)} cards",
            why="capacity answers how many are needed",
            hint="name one card: --gpu h100",
        )
    return asking


def _demand(traffic: _Traffic, limit_tokens: int) -> "Demand":
    from kvplan.capacity.allocation import DEFAULT_BLOCK_SIZE
    from kvplan.capacity.estimate import Demand
    from kvplan.capacity.eviction import parse_eviction
    from kvplan.units import parse_tokens

    prefix = None
    if traffic.prefix is not None:
        prefix = parse_tokens(traffic.prefix, "prefix"), traffic.prefix_fraction
    return Demand(
        traffic.sessions,
        _lengths(traffic, limit_tokens),
        traffic.block_size or DEFAULT_BLOCK_SIZE,
        prefix,
        tuple(parse_eviction(text) for text in traffic.evict),
    )


def _lengths(traffic: _Traffic, limit_tokens: int) -> "Lengths | None":
    from kvplan.capacity.lengths import constant, drawn
    from kvplan.errors import OptionClash
    from kvplan.units import parse_tokens

    means = traffic.mean_in is not None or traffic.mean_out is not None
    if (traffic.trace is not None) + means + (traffic.tokens is not None) > 1:
        raise OptionClash(
            "request lengths are given twice",
            why="--trace, --mean-in with --mean-out, and --tokens each say how long requests are",
            hint="keep one of them",
        )
    if traffic.trace is not None:
        from kvplan.sources.traces import read_trace

        return read_trace(traffic.trace)
    if means:
        if traffic.mean_in is None or traffic.mean_out is None:
            raise OptionClash(
                "only one of --mean-in and --mean-out is given",
                why="a request has a prompt and an output",
                hint="write it like --mean-in 161.31 --mean-out 337.99",
            )
        return drawn(traffic.mean_in, traffic.mean_out, limit_tokens, traffic.seed)
    return constant(parse_tokens(traffic.tokens, "session")) if traffic.tokens is not None else None


def _site(asking: "Question", traffic: _Traffic, chosen: "Instance | None") -> "Site | None":
    from kvplan.capacity.fleet import Site

    if chosen is not None:
        return _on_instance(asking, chosen)
    if not asking.devices:
        return None
    return Site(
        asking.model,
        asking.workload,
        asking.devices[0],
        asking.engine,
        asking.rules,
        traffic.gpus_per_node,
    )


def _on_instance(asking: "Question", instance: "Instance") -> "Site":
    from kvplan.capacity.fleet import MAX_GPUS_PER_REPLICA, Site
    from kvplan.hardware.cloud import device_of

    return Site(
        asking.model,
        asking.workload,
        device_of(instance),
        asking.engine,
        asking.rules,
        instance.num_gpus,
        1 if instance.is_fraction else MAX_GPUS_PER_REPLICA,
    )


def _offer(
    site: "Site | None", fleet: "Fleet | None", table: tuple["Instance", ...], chosen: "Instance | None"
) -> "Offer | None":
    from kvplan.hardware.cloud import Offer, cheapest

    if site is None or fleet is None:
        return None
    if chosen is not None:
        return Offer(chosen, fleet.num_nodes)
    return cheapest(site.device, fleet.num_gpus, fleet.shape.tensor, table)


def _per_million(offer: "Offer | None", found: "Estimate", paged: "Fleet | None") -> float | None:
    from kvplan.pricing import usd_per_million_tokens

    rate = found.fleets.rate if found.fleets else None
    price = offer.price_usd_per_hour if offer else None
    if rate is None or price is None or paged is None:
        return None
    return usd_per_million_tokens(price, rate.expected * paged.replicas)


def _cheapest(
    asking: "Question", demand: "Demand", table: tuple["Instance", ...], traffic: _Traffic
) -> tuple["Cheapest", ...]:
    """Return the priced instances that serve the sessions for least, one a kind of card."""
    from kvplan.capacity.allocation import shares
    from kvplan.capacity.estimate import CHAT_TOKENS, fleets_of
    from kvplan.capacity.lengths import within
    from kvplan.engines.base import context_or_limit
    from kvplan.errors import KvplanError
    from kvplan.hardware.cloud import Offer
    from kvplan.pricing import usd_per_million_tokens
    from kvplan.report.capacity_answer import Cheapest

    limit, _ = context_or_limit(asking.model, asking.workload)
    live = float(min(CHAT_TOKENS, limit))
    if demand.lengths is not None:
        live = shares(within(demand.lengths, limit), limit, demand.block_size)[-1].mean_reserved_tokens
    best: dict[str, Cheapest] = {}
    # Of instances with the same cards only the cheapest counts.
    cheapest_of: dict[tuple[str, int, int], Instance] = {}
    for instance in table:
        if instance.price_usd_per_hour is None:
            continue
        key = (instance.gpu, instance.count, instance.gpu_memory_mib if instance.is_fraction else 0)
        kept = cheapest_of.get(key)
        if kept is None or (kept.price_usd_per_hour or 0) > instance.price_usd_per_hour:
            cheapest_of[key] = instance
    for instance in cheapest_of.values():
        try:
            site = _on_instance(asking, instance)
            fleets = fleets_of(site, traffic.sessions or 1, live)
        except KvplanError:
            continue
        if fleets.paged is None:
            continue
        offer = Offer(instance, fleets.paged.num_nodes)
        price = offer.price_usd_per_hour or 0.0
        rate = fleets.rate
        per_million = usd_per_million_tokens(price, rate.expected * fleets.paged.replicas) if rate else None
        row = Cheapest(offer, instance.gpu, fleets.paged.num_gpus, fleets.paged.layout, price, per_million)
        if instance.gpu not in best or best[instance.gpu].usd_per_hour > price:
            best[instance.gpu] = row
    return tuple(sorted(best.values(), key=lambda row: row.usd_per_hour)[:CHEAPEST_SHOWN])


def _asked_text(asked: "Asked", traffic: _Traffic) -> str:
    parts = [asked.model]
    if traffic.sessions:
        parts.append(f"{traffic.sessions:,} sessions")
    if asked.ctx:
        parts.append(f"context {asked.ctx}")
    if traffic.instance or asked.gpus:
        parts.append(f"on {traffic.instance or asked.gpus[0]}")
    if asked.weights:
        parts.append(asked.weights)
    if asked.kv:
        parts.append(f"kv {asked.kv}")
    return ", ".join(parts)
