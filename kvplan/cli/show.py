"""``kvplan show``: what a model is and what it caches."""

from typing import TYPE_CHECKING

import typer

from kvplan.cli import options as opt
from kvplan.cli.app import submit
from kvplan.cli.outcome import Outcome, Output

if TYPE_CHECKING:
    from kvplan.cli.asked import Asked


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("show")(show)


def show(
    model: opt.ModelArgument,
    ctx: opt.CtxOption = None,
    batch: opt.BatchOption = None,
    weights: opt.WeightsOption = None,
    kv: opt.KvOption = None,
    kv_k: opt.KvKeyOption = None,
    kv_v: opt.KvValueOption = None,
    engine: opt.EngineOption = None,
    gpu: opt.GpuOption = None,
    tp: opt.TensorOption = None,
    pp: opt.PipelineOption = None,
    encoder_ctx: opt.EncoderCtxOption = None,
    offline: opt.OfflineOption = False,
    assume: opt.AssumeOption = None,
    format_: opt.FormatOption = "auto",
    json_: opt.JsonOption = False,
    output: opt.OutputOption = None,
    export: opt.ExportOption = None,
) -> None:
    """Show MODEL's layers, the KV formula with its numbers, its parameters, and where each fact is from.

    No GPU is needed. --format yaml writes the model spec that kvplan bundles.
    """

    def job(engine_words: tuple[str, ...]) -> Outcome:
        from kvplan.cli.asked import Asked

        asked = Asked(
            model=model,
            gpus=tuple(gpu or ()),
            ctx=ctx,
            batch=batch,
            weights=weights,
            kv=kv,
            kv_k=kv_k,
            kv_v=kv_v,
            engine=engine,
            tp=tp,
            pp=pp,
            encoder_ctx=encoder_ctx,
            offline=offline,
            assume=assume,
            engine_words=engine_words,
        )
        return _answer(asked, Output("json" if json_ else format_, output, tuple(export or ())))

    submit(job)


def _answer(asked: "Asked", output: Output) -> Outcome:
    from kvplan.cli.question import question
    from kvplan.model import num_active_parameters, num_parameters, parameters_by_role
    from kvplan.plan import plan
    from kvplan.report.answer import ShowAnswer
    from kvplan.solve import pool_limits
    from kvplan.sources.catalog import aliases_of
    from kvplan.sources.spec import spec_of

    asking = question(asked)
    structure = asking.model.structure
    result = plan(asking.model, asking.workload, asking.devices, asking.engine)
    answer = ShowAnswer(
        model=asking.model,
        plan=result,
        roles=tuple(parameters_by_role(structure).items()),
        num_parameters=num_parameters(structure),
        num_active_parameters=num_active_parameters(structure),
        limits=None if asking.devices else pool_limits(result, asking.engine),
        spec=spec_of(asking.model),
        aliases=aliases_of(asking.model.name),
    )
    return Outcome(0, answer, output)
