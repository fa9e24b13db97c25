"""``kvplan sweep``: the grid of contexts, loads, formats, cards and engines."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kvplan.cli import options as opt
from kvplan.cli.app import submit
from kvplan.cli.outcome import Outcome, Output

if TYPE_CHECKING:
    from kvplan.cli.asked import Asked
    from kvplan.cli.question import Question
    from kvplan.errors import KvplanError
    from kvplan.model import ModelSpec
    from kvplan.sweep import Axis, Case, Grid

# In the order of the table: rows, columns, then one table each for the rest.
AXES = ("ctx", "batch", "kv", "weights", "gpu", "engine")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("sweep")(sweep)


def _axis(flag: str, metavar: str, text: str) -> object:
    return typer.Option(flag, metavar=metavar, help=text)


def sweep(
    model: opt.ModelArgument,
    gpu: Annotated[
        list[str] | None, _axis("--gpu", "GPU,...", "Cards: rtx-4090,l40s; 'all' is the whole catalogue.")
    ] = None,
    ctx: Annotated[
        list[str] | None,
        _axis("--ctx", "TOKENS,...", "Contexts: 4k,8k or 4k..128k (doubling) or 8k..64k+8k (steps)."),
    ] = None,
    batch: Annotated[
        list[str] | None, _axis("--batch", "N,...", "Concurrent sequences: 1,8,32 or 1..64.")
    ] = None,
    kv: Annotated[list[str] | None, _axis("--kv", "FORMAT,...", "KV cache formats: bf16,fp8.")] = None,
    weights: Annotated[
        list[str] | None, _axis("--weights", "FORMAT,...", "Weight formats: bf16,fp8,awq.")
    ] = None,
    engine: Annotated[list[str] | None, _axis("--engine", "NAME,...", "Engines: vllm,llama.cpp.")] = None,
    tp: opt.TensorOption = None,
    pp: opt.PipelineOption = None,
    draft: opt.DraftOption = None,
    lora: opt.LoraOption = None,
    reserve: opt.ReserveOption = None,
    cpu_memory: opt.CpuMemoryOption = None,
    overhead: opt.OverheadOption = None,
    min_headroom: opt.MinHeadroomOption = None,
    offline: opt.OfflineOption = False,
    assume: opt.AssumeOption = None,
    format_: Annotated[
        str,
        typer.Option(
            "--format", metavar="FORMAT", help="auto, table, plain, json, markdown, csv, svg, html."
        ),
    ] = "auto",
    json_: opt.JsonOption = False,
    output: opt.OutputOption = None,
    export: opt.ExportOption = None,
) -> None:
    """Plan MODEL at every combination of the values given, as a matrix of verdicts and free GiB.

    kvplan sweep llama-3-8b --gpu rtx-4090,l40s --ctx 4k..128k --batch 1,8,32
    --export svg=FILE and html=FILE draw memory against context.
    """

    def job(engine_words: tuple[str, ...]) -> Outcome:
        from kvplan.cli.asked import Asked
        from kvplan.errors import InvalidValue

        if not gpu:
            raise InvalidValue(
                "no --gpu is given",
                why="whether it fits depends on the card",
                hint="add --gpu h100, or several: --gpu rtx-4090,l40s",
            )
        asked = Asked(
            model=model,
            tp=tp,
            pp=pp,
            draft=draft,
            lora=lora,
            reserve=reserve,
            cpu_memory=cpu_memory,
            overhead=overhead,
            min_headroom=min_headroom,
            offline=offline,
            assume=assume,
            engine_words=engine_words,
        )
        typed = {"ctx": ctx, "batch": batch, "kv": kv, "weights": weights, "gpu": gpu, "engine": engine}
        axes = _axes({name: tuple(texts) for name, texts in typed.items() if texts})
        return _answer(asked, axes, Output("json" if json_ else format_, output, tuple(export or ())))

    submit(job)


def _axes(typed: dict[str, tuple[str, ...]]) -> tuple["Axis", ...]:
    """Return the axes in the table's order, counted before they are spelled out."""
    from kvplan.cli.question import check_kv_formats, number_of_sequences
    from kvplan.sweep import Axis, check_size, count_values, values_of
    from kvplan.units import parse_tokens

    check_kv_formats(values_of(typed.get("kv", ()), None))
    parsers = {"ctx": parse_tokens, "batch": number_of_sequences}
    texts = {name: _spelled(name, typed[name]) for name in AXES if name in typed}
    check_size(count_values(found, parsers.get(name)) for name, found in texts.items())
    return tuple(Axis(name, values_of(found, parsers.get(name))) for name, found in texts.items())


def _numbers(axis: "Axis") -> dict[str, int]:
    """Return an axis's values as they read, each read once."""
    from kvplan.cli.question import number_of_sequences
    from kvplan.units import parse_tokens

    parse = parse_tokens if axis.name == "ctx" else number_of_sequences
    return {text: parse(text) for text in axis.values}


def _spelled(name: str, texts: tuple[str, ...]) -> tuple[str, ...]:
    if name != "gpu" or texts != ("all",):
        return texts
    from kvplan.hardware.catalog import catalogue

    return tuple(device.name for device in catalogue())


def _answer(asked: "Asked", axes: tuple["Axis", ...], output: Output) -> Outcome:
    from math import prod

    from kvplan.cli.progress import watched
    from kvplan.cli.question import rules_of
    from kvplan.errors import OptionClash
    from kvplan.report.sweep_answer import SweepAnswer
    from kvplan.sources import check_assumption, open_model
    from kvplan.sweep import Grid, points

    engines = next((axis.values for axis in axes if axis.name == "engine"), ())
    if asked.engine_words and len(engines) > 1:
        raise OptionClash(
            "engine flags with more than one --engine",
            why=f"{asked.engine_words[0]} belongs to one engine",
            hint="leave out the flags behind --, or name one engine",
        )
    check_assumption(asked.assume)
    model = open_model(asked.model, offline=asked.offline, assume=asked.assume)
    reader = _Reader(asked, model)
    total = prod(len(axis.values) for axis in axes)
    found = points(reader.cases(axes), rules_of(asked))
    grid = Grid(axes, tuple(watched(found, total, "planning")))
    problem = next(iter(reader.problems.values()), None)
    if problem is not None and all(point.status in ("refused", "unknown") for point in grid.points):
        raise problem
    answer = SweepAnswer(model.name, _shared(axes), grid, _notes(grid, reader))
    return Outcome(answer.exit_code, answer, output)


@dataclass(slots=True)
class _Reader:
    """Turns words into cases, each word once."""

    asked: "Asked"
    model: "ModelSpec"
    problems: "dict[str, KvplanError]"
    notes: dict[str, str]
    longest: int

    def __init__(self, asked: "Asked", model: "ModelSpec") -> None:
        self.asked, self.model = asked, model
        self.problems, self.notes, self.longest = {}, {}, 0

    def cases(self, axes: tuple["Axis", ...]) -> Iterator["Case | KvplanError"]:
        """Yield every combination's case, read as ``kvplan fit`` reads it.

        One that its engine cannot be asked is its error. Raises KvplanError for a card, engine or
        weight format that nobody knows.
        """
        from functools import cache

        from kvplan.cli.question import MISSPELT, Question, question
        from kvplan.errors import KvplanError
        from kvplan.frozen import replace
        from kvplan.sweep import Case

        names = tuple(axis.name for axis in axes)
        # Neither decides anything else that is read: each is set in what one value asks.
        numbers = {axis.name: _numbers(axis) for axis in axes if axis.name in ("ctx", "batch")}
        ctx, batch = (next(iter(numbers.get(name, ())), None) for name in ("ctx", "batch"))

        @cache
        def prepared(gpu: str, engine: str | None, weights: str | None, kv: str | None) -> Question:
            asking = question(
                replace(
                    self.asked,
                    gpus=(gpu,),
                    ctx=ctx,
                    batch=batch,
                    engine=engine,
                    weights=weights,
                    kv=kv,
                ),
                self.model,
            )
            self._note(gpu, asking)
            return asking

        self.longest = max(numbers.get("ctx", {}).values(), default=0)
        for values in product(*(axis.values for axis in axes)):
            given = dict(zip(names, values, strict=True))
            try:
                asking = prepared(given["gpu"], given.get("engine"), given.get("weights"), given.get("kv"))
            except MISSPELT:
                raise
            except KvplanError as error:
                self.problems.setdefault(" ".join(values), error)
                yield error
                continue
            changes: dict[str, Any] = {}
            if "ctx" in given:
                changes["context_tokens"] = numbers["ctx"][given["ctx"]]
            if "batch" in given:
                changes["num_sequences"] = numbers["batch"][given["batch"]]
            workload = replace(asking.workload, **changes) if changes else asking.workload
            yield Case(asking.model, workload, asking.devices, asking.engine)

    def _note(self, gpu: str, asking: "Question") -> None:
        """Keep what is to be said of a card, and the engine's flags that nobody knows."""
        for device in asking.devices[:1]:
            if device.notes:
                self.notes.setdefault(gpu, device.notes[0])
        if asking.workload.unread_flags:
            self.notes.setdefault("--", f"! not read: {' '.join(asking.workload.unread_flags)}")


def _shared(axes: tuple["Axis", ...]) -> str:
    words = {"ctx": "{} tokens", "batch": "× {}", "kv": "kv {}", "gpu": "on {}"}
    return ", ".join(
        words.get(axis.name, "{}").format(axis.values[0]) for axis in axes if len(axis.values) == 1
    )


def _notes(grid: "Grid", reader: _Reader) -> tuple[str, ...]:
    notes = list(dict.fromkeys(reader.notes.values()))[:4]
    limit = reader.model.context_limit_tokens
    if limit and reader.longest > limit:
        notes.append(
            f"contexts above {limit:,} are beyond what {reader.model.name} was trained for; "
            "some engines refuse them"
        )
    reasons = dict.fromkeys(
        f"{'cannot tell' if point.status == 'unknown' else 'refused'}: {point.problem}"
        for point in grid.points
        if point.problem
    )
    notes += list(reasons)[:3]
    return tuple(notes)
