"""``kvplan find``: which models, and in which precision, fit here."""

from typing import TYPE_CHECKING, Annotated

import typer

from kvplan.cli import options as opt
from kvplan.cli.app import submit
from kvplan.cli.outcome import Outcome, Output
from kvplan.frozen import dataclass

if TYPE_CHECKING:
    from kvplan.cli.asked import Asked
    from kvplan.device import Device
    from kvplan.engines.base import Engine
    from kvplan.find import Candidate
    from kvplan.hardware.cloud import Offer
    from kvplan.model import ModelSpec
    from kvplan.report.find_answer import Found

MAX_ROWS = 10_000
EVERY_CARD = "all"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("find")(find)


@dataclass(frozen=True, slots=True)
class _Filters:
    words: tuple[str, ...]
    families: tuple[str, ...]
    weights: tuple[str, ...]
    tokens_per_second: float | None
    every_format: bool
    top: int
    price: bool


def find(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[FILTER]...", help="Only models that have all these words.")
    ] = None,
    gpu: Annotated[
        list[str] | None,
        typer.Option("--gpu", metavar="GPU", help="A card or a size; 'all' is each card of the catalogue."),
    ] = None,
    ctx: opt.CtxOption = None,
    batch: opt.BatchOption = None,
    weights: Annotated[
        list[str] | None, typer.Option("--weights", metavar="FORMAT", help="Only this format; repeatable.")
    ] = None,
    kv: opt.KvOption = None,
    engine: opt.EngineOption = None,
    family: Annotated[
        list[str] | None,
        typer.Option("--family", metavar="TYPE", help="Only this model_type (qwen3, llama); repeatable."),
    ] = None,
    min_tokens_per_second: Annotated[
        float | None,
        typer.Option(
            "--min-tokens-per-second", metavar="N", min=0, help="Only what decodes this fast, a sequence."
        ),
    ] = None,
    every_format: Annotated[
        bool, typer.Option("--every-format", help="Every precision that fits, not the best a model.")
    ] = False,
    top: Annotated[
        int, typer.Option("--top", metavar="N", min=1, max=MAX_ROWS, help="How many rows to show.")
    ] = 20,
    price: opt.PriceOption = False,
    reserve: opt.ReserveOption = None,
    cpu_memory: opt.CpuMemoryOption = None,
    overhead: opt.OverheadOption = None,
    min_headroom: opt.MinHeadroomOption = None,
    strict: opt.StrictOption = False,
    allow_offload: opt.AllowOffloadOption = False,
    format_: opt.SheetFormatOption = "auto",
    json_: opt.JsonOption = False,
    output: opt.OutputOption = None,
    export: opt.ExportOption = None,
) -> None:
    """Find the bundled models and precisions that fit on the GPU, best first.

    Best means: fits before tight, four bits and more before fewer, then most parameters, then the
    format that loses least. No benchmark scores are used. Exit code 1 when nothing fits.
    --gpu all shows the best on each card, the smallest card first.
    """

    def job(_: tuple[str, ...]) -> Outcome:
        from kvplan.cli.asked import Asked
        from kvplan.errors import InvalidValue

        if not gpu:
            raise InvalidValue(
                "no --gpu is given",
                why="what fits depends on the card",
                hint="add --gpu h100, --gpu 24GB, --gpu local, or --gpu all for each card",
            )
        asked = Asked(
            model="",
            gpus=tuple(gpu),
            ctx=ctx or "8k",
            batch=batch,
            kv=kv,
            engine=engine,
            reserve=reserve,
            cpu_memory=cpu_memory,
            overhead=overhead,
            min_headroom=min_headroom,
            strict=strict,
            allow_offload=allow_offload,
        )
        filters = _Filters(
            tuple(words or ()),
            tuple(family or ()),
            tuple(weights or ()),
            min_tokens_per_second,
            every_format,
            top,
            price,
        )
        return _answer(asked, filters, Output("json" if json_ else format_, output, tuple(export or ())))

    submit(job)


def _answer(asked: "Asked", filters: _Filters, output: Output) -> Outcome:
    from kvplan.cli.question import calibrations, devices_of, rules_of, workload_of
    from kvplan.errors import CannotTell
    from kvplan.find import candidates, fast_enough, ranked
    from kvplan.report.find_answer import FindAnswer

    if asked.gpus == (EVERY_CARD,):
        return _every_card(asked, filters, output)
    workload, rules = workload_of(asked), rules_of(asked)
    devices, _ = devices_of(asked)
    models, engine = _models(filters), _engine(asked, filters)
    if not devices and workload.cpu_memory_bytes is None:
        raise CannotTell(
            "how much memory the machine has is not said",
            why="--gpu none leaves everything to the CPU and its memory",
            hint="add --cpu-memory 64GiB",
        )
    wanted = filters.tokens_per_second
    fitting = list(
        candidates(
            models,
            workload,
            devices,
            formats=filters.weights or None,
            engine=engine,
            rules=rules,
            measured=calibrations(),
            every_format=filters.every_format,
            tokens_per_second=wanted,
        )
    )
    fast = [found for found in fitting if fast_enough(found, wanted)]
    best = ranked(fast)
    answer = FindAnswer(
        asked=_asked_text(asked, filters),
        found=tuple(_row(asked, found) for found in best[: filters.top]),
        num_fitting=len(best),
        num_models=len(models),
        num_too_slow=len(fitting) - len(fast),
        num_unknown=sum(found.rate is None for found in fitting) if wanted is not None else 0,
        exit_code=0 if best else 1,
        offer=_offer(devices) if filters.price else None,
        priced=filters.price,
    )
    return Outcome(answer.exit_code, answer, output)


def _every_card(asked: "Asked", filters: _Filters, output: Output) -> Outcome:
    """Answer ``--gpu all``: the best model on each card of the catalogue, the smallest card first."""
    from dataclasses import replace

    from kvplan.choices import best_first, choices
    from kvplan.cli.progress import watched
    from kvplan.cli.question import calibrations, devices_of, rules_of, workload_of
    from kvplan.errors import OptionClash
    from kvplan.find import Search
    from kvplan.hardware.catalog import catalogue
    from kvplan.report.find_answer import FindAnswer

    if filters.every_format or filters.price:
        raise OptionClash(
            f"{'--every-format' if filters.every_format else '--price'} with --gpu {EVERY_CARD}",
            why="one row is shown for each card",
            hint="name the card: --gpu h100",
        )
    workload, rules = workload_of(asked), rules_of(asked)
    models, engine = _models(filters), _engine(asked, filters)
    # The whole catalogue in every format on every card would take three times as long.
    published_only = not (filters.words or filters.families or filters.weights)
    tried = best_first(
        choices(models, formats=filters.weights or None, engine=engine, published_only=published_only)
    )
    search = Search(tried, workload, engine=engine, rules=rules, measured=calibrations())
    cards = catalogue()
    found: list[tuple[Asked, Candidate]] = []
    for card in watched(cards, len(cards), "planning"):
        here = replace(asked, gpus=(card.name,))
        devices, _ = devices_of(here)
        best = search.best(devices, filters.tokens_per_second)
        if best is not None:
            found.append((here, best))
    found.sort(key=lambda pair: pair[1].plan.devices[0].device.memory_bytes)
    answer = FindAnswer(
        asked=_asked_text(asked, filters),
        found=tuple(_row(here, best) for here, best in found[: filters.top]),
        num_fitting=len(found),
        num_models=len(models),
        num_too_slow=0,
        num_unknown=0,
        exit_code=0 if found else 1,
        num_cards=len(cards),
        as_published=published_only,
    )
    return Outcome(answer.exit_code, answer, output)


def _engine(asked: "Asked", filters: _Filters) -> "Engine | None":
    from kvplan.cli.question import engine_asked
    from kvplan.weight_formats import weight_format

    for name in filters.weights:
        weight_format(name)
    return engine_asked(asked)


def _offer(devices: tuple["Device", ...]) -> "Offer | None":
    from kvplan.hardware.cloud import cheapest, instances

    if len(set(devices)) != 1:
        return None
    return cheapest(devices[0], len(devices), 1, instances())


def _models(filters: _Filters) -> tuple["ModelSpec", ...]:
    from kvplan.errors import InvalidValue, did_you_mean
    from kvplan.sources.catalog import entries, model_from_spec

    wanted = [word.casefold() for word in filters.words]
    families = [name.casefold() for name in filters.families]
    specs = list(entries())
    known = sorted({str(spec["config"].get("model_type", "")) for spec in specs})
    for name in families:
        if name not in known:
            raise InvalidValue(
                f"'{name}' is not a family of any bundled model",
                why=did_you_mean(name, known) or "a family is a config's model_type",
                hint="see: kvplan show MODEL",
            )
    found = tuple(
        model_from_spec(spec)
        for spec in specs
        if all(word in f"{spec['id']} {spec.get('repo') or ''}".casefold() for word in wanted)
        and (not families or spec["config"].get("model_type") in families)
    )
    if not found:
        from kvplan.cli.listings import nothing_matches

        rows = [{"id": spec["id"], "repo": spec.get("repo") or ""} for spec in specs]
        raise nothing_matches("models", (*filters.words, *filters.families), rows)
    return found


def _row(asked: "Asked", found: "Candidate") -> "Found":
    from dataclasses import replace

    from kvplan.cli.question import devices_of, rules_of
    from kvplan.report.find_answer import Found
    from kvplan.solve import max_context

    plan = found.plan
    devices, _ = devices_of(asked)
    longest = max_context(
        plan.model,
        plan.workload,
        devices,
        found.engine,
        rules_of(asked),
    )
    command = replace(asked, model=plan.model.name, weights=plan.weights_format).command("fit")
    return Found(found, longest, command)


def _asked_text(asked: "Asked", filters: _Filters) -> str:
    parts = [f"{asked.ctx} tokens"]
    if asked.gpus != (EVERY_CARD,):
        parts.insert(0, "on the CPU" if asked.gpus == ("none",) else f"on {' + '.join(asked.gpus)}")
    if asked.batch:
        parts.append(f"× {asked.batch}")
    if asked.kv:
        parts.append(f"kv {asked.kv}")
    if filters.tokens_per_second is not None:
        parts.append(f"at least {filters.tokens_per_second:g} tokens a second")
    return ", ".join(parts)
