"""``kvplan verify``: the plan against real tensors, an engine's log, or a running server."""

from typing import Annotated

import typer

from kvplan.cli import options as opt
from kvplan.cli.app import submit
from kvplan.cli.outcome import Outcome, Output

ModelOption = Annotated[
    str | None,
    typer.Argument(metavar="[MODEL]", help="The model. With --log and --url: what they name, if left out."),
]
DeviceOption = Annotated[
    str, typer.Option("--device", metavar="DEVICE", help="Where to allocate: auto, cuda, cpu, mps, xpu.")
]
MaxMemoryOption = Annotated[
    str | None,
    typer.Option("--max-memory", metavar="SIZE", help="Allocate at most this much: fewer layers, said."),
]
LogOption = Annotated[
    str | None,
    typer.Option("--log", metavar="FILE", help="Compare with an engine's start-up log; - is standard input."),
]
UrlOption = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="Ask a running vLLM, SGLang, llama-server or Ollama."),
]
ApiKeyOption = Annotated[
    str | None,
    typer.Option("--api-key", metavar="KEY", help="The server's key, with --url; else KVPLAN_API_KEY."),
]
AgainstOption = Annotated[
    str | None,
    typer.Option("--against", metavar="WHAT", help="transformers: its own cache classes, filled."),
]
ForwardOption = Annotated[
    bool, typer.Option("--forward", help="Run a few tokens through a random model with fewer layers.")
]
SaveOption = Annotated[
    bool, typer.Option("--save", help="Keep what was measured; later plans on that device use it and say so.")
]
ForgetOption = Annotated[bool, typer.Option("--forget", help="Remove everything that --save kept.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("verify")(verify)


def verify(
    model: ModelOption = None,
    ctx: opt.CtxOption = None,
    batch: opt.BatchOption = None,
    kv: opt.KvOption = None,
    kv_k: opt.KvKeyOption = None,
    kv_v: opt.KvValueOption = None,
    weights: opt.WeightsOption = None,
    engine: opt.EngineOption = None,
    device: DeviceOption = "auto",
    max_memory: MaxMemoryOption = None,
    against: AgainstOption = None,
    forward: ForwardOption = False,
    log: LogOption = None,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    gpu: opt.GpuOption = None,
    tp: opt.TensorOption = None,
    pp: opt.PipelineOption = None,
    save: SaveOption = False,
    forget: ForgetOption = False,
    encoder_ctx: opt.EncoderCtxOption = None,
    offline: opt.OfflineOption = False,
    assume: opt.AssumeOption = None,
    format_: opt.FormatOption = "auto",
    json_: opt.JsonOption = False,
    output: opt.OutputOption = None,
    export: opt.ExportOption = None,
    quiet: opt.QuietOption = False,
) -> None:
    """Allocate MODEL's cache for real, read an engine's log or ask its server, and compare with the plan.

    Exit codes: 0 agrees, 1 measured outside the plan's interval, 3 could not measure.
    """

    def job(engine_words: tuple[str, ...]) -> Outcome:
        from kvplan.cli.asked import Asked

        asked = Asked(
            model=model or "",
            gpus=tuple(gpu or ()),
            tp=tp,
            pp=pp,
            ctx=ctx,
            batch=batch,
            weights=weights,
            kv=kv,
            kv_k=kv_k,
            kv_v=kv_v,
            engine=engine,
            encoder_ctx=encoder_ctx,
            offline=offline,
            assume=assume,
            engine_words=engine_words,
        )
        out = Output("json" if json_ else format_, output, tuple(export or ()), quiet)
        if forget:
            from kvplan.verify.calibration import forget as remove
            from kvplan.verify.calibration_file import path

            there = remove()
            return Outcome(0, text=f"removed {path()}\n" if there else f"nothing is kept in {path()}\n")
        if save and (against is not None or forward):
            from kvplan.errors import OptionClash

            raise OptionClash(
                f"--save and {'--forward' if forward else '--against'} are both given",
                why="transformers' caches show bytes, which the plan knows, not what a device takes for them",
                hint="leave it out, or save from a log or server: --log FILE, --url URL",
            )
        if log is not None and url is not None:
            from kvplan.errors import OptionClash

            raise OptionClash(
                "--log and --url are both given",
                why="one reads a log, the other asks a server",
                hint="use one of them",
            )
        if url is not None:
            from kvplan.cli import verify_server

            return verify_server.answer(asked, url, out, api_key=api_key, keep=save)
        if log is not None:
            from kvplan.cli import verify_log

            return verify_log.answer(asked, log, out, keep=save)
        if against is not None or forward:
            from kvplan.cli import verify_transformers

            if against not in (None, "transformers"):
                from kvplan.errors import InvalidValue

                raise InvalidValue(
                    f"'{against}' is nothing to verify against",
                    why="it takes transformers",
                    hint="write it like --against transformers, --log FILE or --url URL",
                )
            return verify_transformers.answer(asked, device, max_memory, out, run_model=forward)
        from kvplan.cli import verify_allocation

        return verify_allocation.answer(asked, device, max_memory, out, keep=save)

    submit(job)
