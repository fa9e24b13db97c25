"""``kvplan fit``: does it fit, and if not, what is the smallest change that makes it fit?"""

from typing import TYPE_CHECKING

import typer

from kvplan.cli import options as opt
from kvplan.cli.app import submit
from kvplan.cli.outcome import Outcome, Output

if TYPE_CHECKING:
    from kvplan.changes.attempt import Suggestion
    from kvplan.cli.asked import Asked
    from kvplan.cli.question import Question
    from kvplan.engines.base import Plan
    from kvplan.report.answer import Offload, Prices, Proposal, Speed


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("fit")(fit)


def fit(
    model: opt.ModelArgument,
    gpu: opt.GpuOption = None,
    ctx: opt.CtxOption = None,
    batch: opt.BatchOption = None,
    weights: opt.WeightsOption = None,
    kv: opt.KvOption = None,
    kv_k: opt.KvKeyOption = None,
    kv_v: opt.KvValueOption = None,
    engine: opt.EngineOption = None,
    tp: opt.TensorOption = None,
    pp: opt.PipelineOption = None,
    reserve: opt.ReserveOption = None,
    cpu_memory: opt.CpuMemoryOption = None,
    overhead: opt.OverheadOption = None,
    min_headroom: opt.MinHeadroomOption = None,
    encoder_ctx: opt.EncoderCtxOption = None,
    draft: opt.DraftOption = None,
    lora: opt.LoraOption = None,
    strict: opt.StrictOption = False,
    allow_offload: opt.AllowOffloadOption = False,
    allow_unknown: opt.AllowUnknownOption = False,
    offline: opt.OfflineOption = False,
    assume: opt.AssumeOption = None,
    format_: opt.FormatOption = "auto",
    json_: opt.JsonOption = False,
    output: opt.OutputOption = None,
    export: opt.ExportOption = None,
    quiet: opt.QuietOption = False,
    price: opt.PriceOption = False,
) -> None:
    """Say whether MODEL fits on the GPU, and what makes it fit.

    Flags of the engine itself go behind --: kvplan fit qwen3-32b --gpu h100 -- --max-num-seqs 256
    """

    def job(engine_words: tuple[str, ...]) -> Outcome:
        from kvplan.cli.asked import Asked
        from kvplan.errors import InvalidValue

        if not gpu:
            raise InvalidValue(
                "no --gpu is given",
                why="whether it fits depends on the card",
                hint="add --gpu h100, --gpu 48GB, --gpu local or --gpu none",
            )
        asked = Asked(
            model=model,
            gpus=tuple(gpu),
            ctx=ctx,
            batch=batch,
            weights=weights,
            kv=kv,
            kv_k=kv_k,
            kv_v=kv_v,
            engine=engine,
            tp=tp,
            pp=pp,
            reserve=reserve,
            cpu_memory=cpu_memory,
            overhead=overhead,
            min_headroom=min_headroom,
            encoder_ctx=encoder_ctx,
            draft=draft,
            lora=lora,
            strict=strict,
            allow_offload=allow_offload,
            allow_unknown=allow_unknown,
            offline=offline,
            assume=assume,
            engine_words=engine_words,
        )
        where = Output("json" if json_ else format_, output, tuple(export or ()), quiet)
        return _answer(asked, where, price=price)

    submit(job)


def _answer(asked: "Asked", output: Output, *, price: bool) -> Outcome:
    from kvplan.changes.attempt import Situation
    from kvplan.changes.suggestions import suggestions
    from kvplan.cli.question import calibrations, question
    from kvplan.judge import exit_code, judge
    from kvplan.offload import alternative, plan_or_offload
    from kvplan.report.answer import FitAnswer
    from kvplan.solve import limits

    asking = question(asked)
    result = plan_or_offload(asking.model, asking.workload, asking.devices, asking.engine, asking.rules)
    verdict = judge(result, asking.rules)
    code = exit_code(verdict.status, asking.rules)
    reach = limits(result, asking.devices, asking.engine, asking.rules)
    situation = Situation(
        asking.model,
        asking.workload,
        asking.devices,
        asking.engine,
        asked.engine is not None,
        asking.rules,
        calibrations(),
    )
    proposals: tuple[Proposal, ...] = ()
    gains: tuple[Proposal, ...] = ()
    if verdict.status in ("does_not_fit", "offload", "tight"):
        proposals = tuple(_proposal(asked, item) for item in suggestions(result, situation))
    elif verdict.status == "fits":
        from kvplan.changes.upgrades import upgrades

        gains = tuple(_proposal(asked, item) for item in upgrades(result, situation, reach))
    answer = FitAnswer(
        command="fit",
        plan=result,
        verdict=verdict,
        exit_code=code,
        limits=reach,
        gpu_text=_gpu_text(asked, len(asking.devices)),
        proposals=proposals,
        speed=_speed(result, runs=verdict.status in ("fits", "tight", "offload")),
        offload=_offload(alternative(result, asking.devices, asking.engine, asking.rules)),
        context_source=result.workload.context_source if result.workload.context_tokens else "model",
        upgrades=gains,
        rents=_rents(asking, result) if price else None,
    )
    return Outcome(code, answer, output)


def _rents(asking: "Question", result: "Plan") -> "Prices":
    from kvplan.hardware.cloud import cheapest, instances, machines
    from kvplan.pricing import cheapest_machine, price_per_million
    from kvplan.report.answer import Prices, Rent

    table = instances()
    own = None
    if len(set(asking.devices)) == 1:
        offer = cheapest(asking.devices[0], len(asking.devices), result.parallel.tensor, table)
        dollars = offer.price_usd_per_hour if offer else None
        if offer is not None and dollars is not None:
            name = f"{offer.num_instances} × {offer.instance.provider} {offer.instance.name}"
            own = Rent(name, dollars, price_per_million(result, dollars), offer.source)
    found = cheapest_machine(asking.model, asking.workload, asking.engine, machines(table), asking.rules)
    least = None
    if found is not None:
        instance = next(each for each in table if f"{each.provider} {each.name}" == found.machine.name)
        source = f"{instance.provider} {instance.region} on demand, {instance.date}"
        least = Rent(
            f"1 × {found.machine.name}", found.machine.usd_per_hour, found.usd_per_million_tokens, source
        )
    return Prices(own, least)


def _proposal(asked: "Asked", item: "Suggestion") -> "Proposal":
    from kvplan.report.answer import Proposal

    return Proposal(
        item.changes,
        asked.command("fit", item.changes),
        item.verdict.status,
        item.verdict.headroom_bytes,
        item.prices,
    )


def _speed(result: "Plan", *, runs: bool) -> "Speed":
    from kvplan.report.answer import Speed

    if not runs:
        return Speed()
    from kvplan.speed import decode_rate, prefill_rate

    return Speed(
        decode=decode_rate(result),
        prefill=prefill_rate(result),
        decode_on_devices=decode_rate(result.on_devices) if result.on_devices else None,
    )


def _offload(spilled: "Plan | None") -> "Offload | None":
    from kvplan.report.answer import Offload

    return Offload(spilled, _speed(spilled, runs=True)) if spilled is not None else None


def _gpu_text(asked: "Asked", num_devices: int) -> str:
    if num_devices == 0:
        return "the CPU"
    if len(asked.gpus) > 1:
        return " + ".join(asked.gpus)
    from kvplan.cli.asked import multiplied

    return multiplied(asked.gpus[0], num_devices).replace("x", " × ", 1)
