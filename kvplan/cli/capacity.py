"""``kvplan capacity``: many requests at once, and how many GPUs they need."""

from typing import TYPE_CHECKING, Annotated

import typer

from kvplan.cli import options as opt
from kvplan.cli.app import submit
from kvplan.cli.outcome import Outcome, Output

if TYPE_CHECKING:
    from kvplan.capacity.fleet import Site
    from kvplan.cli.asked import Asked
    from kvplan.cli.capacity_demand import Traffic
    from kvplan.cli.question import Question
    from kvplan.hardware.cloud import Instance

MAX_SESSIONS = 10**7


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("capacity")(capacity)


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
    draft: opt.DraftOption = None,
    lora: opt.LoraOption = None,
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
        from kvplan.cli.asked import Asked
        from kvplan.cli.capacity_demand import Traffic
        from kvplan.cli.question import number_of_sequences
        from kvplan.errors import InvalidValue, OptionClash

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
        lengths = (trace, mean_in, mean_out, tokens)
        if not (gpu or instance or sessions or batch or prefix or evict) and lengths == (None,) * 4:
            raise InvalidValue(
                "nothing says what is to be held",
                why="capacity weighs sessions, lengths of requests and cards against each other",
                hint=f"write it like: kvplan capacity {model} --sessions 100 --gpu h100",
            )
        asked = Asked(
            model=model,
            gpus=(gpu,) if gpu else (),
            ctx=ctx,
            weights=weights,
            kv=kv,
            engine=engine,
            tp=tp,
            draft=draft,
            lora=lora,
            reserve=reserve,
            overhead=overhead,
            min_headroom=min_headroom,
            strict=strict,
            offline=offline,
            assume=assume,
            engine_words=engine_words,
        )
        traffic = Traffic(
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


def _answer(asked: "Asked", traffic: "Traffic", output: Output) -> Outcome:
    from kvplan.capacity.estimate import estimate
    from kvplan.cli.capacity_demand import demand_of
    from kvplan.cli.capacity_offers import cheapest_instances, dollars_per_million, offer_for
    from kvplan.engines.base import context_or_limit
    from kvplan.hardware.cloud import instance_named, instances
    from kvplan.report.capacity_answer import CapacityAnswer, Cheapest

    asking = _question(asked)
    limit, _ = context_or_limit(asking.model, asking.workload)
    demand = demand_of(traffic, limit)
    table = instances(traffic.prices)
    chosen = instance_named(traffic.instance, table) if traffic.instance else None
    site = _site(asking, traffic, chosen)
    found = estimate(asking.model, asking.workload, asking.engine, demand, site, asking.rules)
    fleets = found.fleets
    reserved = fleets.reserved if fleets else None
    paged = fleets.paged if fleets else None
    offers = tuple(offer_for(site, fleet, table, chosen) for fleet in (reserved, paged))
    listed: tuple[Cheapest, ...] = ()
    if site is None and traffic.sessions:
        listed = cheapest_instances(asking, demand, table, traffic.sessions)
    none_holds = fleets is not None and fleets.paged is None
    answer = CapacityAnswer(
        _asked_text(asked, traffic),
        traffic.sessions,
        traffic.instance or (asked.gpus[0] if asked.gpus else ""),
        found,
        offers[0],
        offers[1],
        dollars_per_million(offers[1], found, paged),
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


def _site(asking: "Question", traffic: "Traffic", chosen: "Instance | None") -> "Site | None":
    from kvplan.capacity.fleet import Site
    from kvplan.cli.capacity_offers import on_instance

    if chosen is not None:
        return on_instance(asking, chosen)
    if not asking.devices:
        return None
    device, per_node = asking.devices[0], traffic.gpus_per_node
    return Site(asking.model, asking.workload, device, asking.engine, asking.rules, per_node)


def _asked_text(asked: "Asked", traffic: "Traffic") -> str:
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
