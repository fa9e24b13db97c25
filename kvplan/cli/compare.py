"""``kvplan compare``: models, GPUs, engines, contexts or formats side by side."""

from itertools import product
from typing import TYPE_CHECKING, Annotated

import typer

from kvplan.cli import options as opt
from kvplan.cli.app import submit
from kvplan.cli.outcome import Outcome, Output

if TYPE_CHECKING:
    from kvplan.cli.asked import Asked
    from kvplan.model import ModelSpec
    from kvplan.report.compare_answer import Difference, Subject

MAX_SUBJECTS = 24
AXES = ("model", "gpu", "engine", "ctx", "batch", "weights", "kv")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("compare")(compare)


def compare(
    models: opt.ModelsArgument,
    gpu: Annotated[
        list[str] | None, typer.Option("--gpu", metavar="GPU", help="A GPU; repeat to compare several.")
    ] = None,
    ctx: Annotated[
        list[str] | None, typer.Option("--ctx", metavar="TOKENS", help="Context length; repeatable.")
    ] = None,
    batch: Annotated[
        list[str] | None, typer.Option("--batch", metavar="N", help="Concurrent sequences; repeatable.")
    ] = None,
    weights: Annotated[
        list[str] | None, typer.Option("--weights", metavar="FORMAT", help="Weight format; repeatable.")
    ] = None,
    kv: Annotated[
        list[str] | None, typer.Option("--kv", metavar="FORMAT", help="KV cache format; repeatable.")
    ] = None,
    engine: Annotated[
        list[str] | None, typer.Option("--engine", metavar="NAME[@VERSION]", help="Engine; repeatable.")
    ] = None,
    tp: opt.TensorOption = None,
    pp: opt.PipelineOption = None,
    draft: opt.DraftOption = None,
    lora: opt.LoraOption = None,
    reserve: opt.ReserveOption = None,
    cpu_memory: opt.CpuMemoryOption = None,
    overhead: opt.OverheadOption = None,
    offline: opt.OfflineOption = False,
    assume: opt.AssumeOption = None,
    format_: opt.SheetFormatOption = "auto",
    json_: opt.JsonOption = False,
    output: opt.OutputOption = None,
    export: opt.ExportOption = None,
) -> None:
    """Compare MODELs, GPUs, engines, contexts or formats side by side, and say why they differ.

    Every combination of what is repeated, or listed with commas, is planned:
    kvplan compare qwen3-next-80b --gpu h100 --engine vllm,sglang
    """

    def job(engine_words: tuple[str, ...]) -> Outcome:
        from kvplan.cli.asked import Asked
        from kvplan.cli.question import check_kv_formats, number_of_sequences
        from kvplan.errors import InvalidValue, OptionClash
        from kvplan.sweep import values_of
        from kvplan.units import parse_tokens

        if not gpu:
            raise InvalidValue(
                "no --gpu is given",
                why="what fits depends on the card",
                hint="add --gpu h100, or two: --gpu h100 --gpu l40s",
            )
        values: tuple[list[str | None], ...] = (list(models),)
        for axis in (gpu, engine, ctx, batch, weights, kv):
            values = (*values, list(values_of(axis, None)) if axis else [None])
        for texts, parse in ((values[3], parse_tokens), (values[4], number_of_sequences)):
            for text in texts:
                if text is not None:
                    parse(text)
        check_kv_formats([name for name in values[6] if name is not None])
        if engine_words and len(values[2]) > 1:
            raise OptionClash(
                "engine flags with more than one --engine",
                why=f"{engine_words[0]} belongs to one engine",
                hint="leave out the flags behind --, or compare one engine with itself",
            )
        asked = tuple(
            Asked(
                model=str(name),
                gpus=(str(card),),
                engine=policy,
                ctx=length,
                batch=load,
                weights=stored,
                kv=kept,
                tp=tp,
                pp=pp,
                draft=draft,
                lora=lora,
                reserve=reserve,
                cpu_memory=cpu_memory,
                overhead=overhead,
                offline=offline,
                assume=assume,
                engine_words=engine_words,
            )
            for name, card, policy, length, load, stored, kept in _combinations(values)
        )
        return _answer(asked, values, Output("json" if json_ else format_, output, tuple(export or ())))

    submit(job)


def _combinations(values: tuple[list[str | None], ...]) -> list[tuple[str | None, ...]]:
    from math import prod

    from kvplan.errors import InvalidValue

    count = prod(len(axis) for axis in values)
    if count > MAX_SUBJECTS:
        raise InvalidValue(
            f"{count:,} combinations are too many to set side by side",
            why=f"compare takes at most {MAX_SUBJECTS}",
            hint="repeat fewer options, or draw a grid: kvplan sweep --help",
        )
    return list(product(*values))


def _answer(asked: tuple["Asked", ...], values: tuple[list[str | None], ...], output: Output) -> Outcome:
    from kvplan.report.compare_answer import CompareAnswer

    varied = [axis for axis, found in zip(AXES, values, strict=True) if len(found) > 1] or ["model"]
    opened: dict[str, ModelSpec] = {}
    subjects = tuple(_subject(each, varied, opened) for each in asked)
    if all(subject.problem is not None for subject in subjects):
        problem = subjects[0].problem
        if problem is not None:
            raise problem
    answer = CompareAnswer(_shared(asked[0], varied), subjects, _differences(subjects))
    return Outcome(answer.exit_code, answer, output)


def _subject(asked: "Asked", varied: list[str], opened: dict[str, "ModelSpec"]) -> "Subject":
    from kvplan.cli.question import MISSPELT, question
    from kvplan.errors import KvplanError
    from kvplan.judge import judge
    from kvplan.offload import plan_or_offload
    from kvplan.report.compare_answer import Subject
    from kvplan.solve import limits

    words = {
        "model": asked.model,
        "gpu": asked.gpus[0],
        "engine": asked.engine or "",
        "ctx": asked.ctx or "",
        "batch": f"batch {asked.batch}",
        "weights": asked.weights or "",
        "kv": f"kv {asked.kv}",
    }
    labels = tuple((axis, words[axis]) for axis in varied)
    command = asked.command("fit")
    try:
        asking = question(asked, opened.get(asked.model))
    except MISSPELT:
        raise
    except KvplanError as problem:
        return Subject(labels, command, problem=problem)
    opened[asked.model] = asking.model
    try:
        result = plan_or_offload(asking.model, asking.workload, asking.devices, asking.engine, asking.rules)
        verdict = judge(result, asking.rules)
        reach = limits(result, asking.devices, asking.engine, asking.rules)
    except KvplanError as problem:
        return Subject(labels, command, problem=problem)
    return Subject(labels, command, result, verdict, reach)


def _differences(subjects: tuple["Subject", ...]) -> tuple["Difference", ...]:
    """Explain each subject by the earlier one it shares most with."""
    from kvplan.differences.between_plans import reasons
    from kvplan.report.compare_answer import Difference

    found: list[Difference] = []
    planned = [number for number, subject in enumerate(subjects) if subject.plan is not None]
    for position, second in enumerate(planned[1:], start=1):

        def apart(first: int, second: int = second) -> int:
            pairs = zip(subjects[first].labels, subjects[second].labels, strict=True)
            return sum(one != other for one, other in pairs)

        first = min(planned[:position], key=apart)
        one, other = subjects[first].plan, subjects[second].plan
        if one is not None and other is not None:
            why = reasons(one, other)
            if why:
                found.append(Difference(first, second, why))
    return tuple(found)


def _shared(asked: "Asked", varied: list[str]) -> str:
    parts = [
        ("model", asked.model),
        ("gpu", f"on {asked.gpus[0]}"),
        ("ctx", f"{asked.ctx} tokens" if asked.ctx else ""),
        ("batch", f"× {asked.batch}" if asked.batch else ""),
        ("weights", asked.weights or ""),
        ("kv", f"kv {asked.kv}" if asked.kv else ""),
        ("engine", asked.engine or ""),
    ]
    return " ".join(text for axis, text in parts if text and axis not in varied)
