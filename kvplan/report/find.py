"""Models that fit, one row each, best first."""

from collections.abc import Iterator, Mapping

from kvplan.pricing import usd_per_million_tokens
from kvplan.report import json_report, plan_json, sheet
from kvplan.report.answer import Screen
from kvplan.report.find_answer import FindAnswer, Found
from kvplan.report.sheet import Sheet, Table
from kvplan.report.wording import VERDICTS, engine_text
from kvplan.speed import Rate
from kvplan.units import GIB, format_tokens

COLUMNS = (
    "model",
    "parameters",
    "active",
    "weights",
    "verdict",
    "free GiB",
    "max context",
    "tokens/s",
    "engine",
)


def table(answer: FindAnswer, screen: Screen) -> str:
    """Draw the rows."""
    return sheet.table(_sheet(answer), screen)


def plain(answer: FindAnswer, screen: Screen) -> str:
    """Write tab-separated rows."""
    return sheet.plain(_sheet(answer), screen)


def markdown(answer: FindAnswer, screen: Screen) -> str:
    """Write a pipe table."""
    return sheet.markdown(_sheet(answer), screen)


def csv(answer: FindAnswer, screen: Screen) -> str:
    """Write one record a row."""
    return sheet.csv(_sheet(answer), screen)


def json(answer: FindAnswer, screen: Screen) -> str:  # noqa: ARG001 - every format takes the screen
    """Write every row with its amounts."""
    return json_report.document(
        "find",
        answer.exit_code,
        asked=answer.asked,
        **({"num_gpus": answer.num_cards} if answer.num_cards else {}),
        num_models=answer.num_models,
        num_fitting=answer.num_fitting,
        num_too_slow=answer.num_too_slow,
        num_unknown_speed=answer.num_unknown,
        **({"usd_per_hour": _usd(answer)} if answer.priced else {}),
        found=[_as_json(answer, found) for found in answer.found],
    )


def _as_json(answer: FindAnswer, found: Found) -> Mapping[str, object]:
    candidate = found.candidate
    loss = candidate.loss
    return {
        **_record(found, card=bool(answer.num_cards)),
        **({"usd_per_million_tokens": _per_million(answer, found)} if answer.priced else {}),
        "tokens_per_second": plan_json.rate(candidate.rate),
        "quality": {"tier": loss.tier, "text": loss.text or None, "source": loss.source or None},
        "command": found.command,
    }


def _record(found: Found, *, card: bool) -> dict[str, object]:
    candidate = found.candidate
    plan, rate = candidate.plan, candidate.rate
    return {
        **({"gpu": plan.devices[0].device.name} if card else {}),
        "model": plan.model.name,
        "num_parameters": candidate.num_parameters,
        "num_active_parameters": candidate.num_active_parameters,
        "weights_format": plan.weights_format,
        "weights_bytes": plan.weights.expected,
        "verdict": candidate.verdict.status,
        "headroom_bytes": candidate.verdict.headroom_bytes,
        "max_context_tokens": found.max_context_tokens,
        "tokens_per_second": rate.expected if rate else None,
        "engine_name": plan.engine_name,
        "engine_version": plan.engine_version,
    }


def _sheet(answer: FindAnswer) -> Sheet:
    shown = len(answer.found)
    head = f"{answer.num_fitting} of {answer.num_models} models fit {answer.asked}"
    if answer.num_cards:
        what = "the model" if answer.num_models == 1 else f"one of {answer.num_models} models"
        head = f"{answer.num_fitting} of {answer.num_cards} GPUs hold {what}, {answer.asked}"
    if shown < answer.num_fitting:
        head += f"; the {'smallest' if answer.num_cards else 'best'} {shown}"
    rows: tuple[tuple[str, ...], ...] = tuple(_row(found) for found in answer.found)
    columns: tuple[str, ...] = COLUMNS
    if _usd(answer) is not None:
        columns = (*COLUMNS, "$ a million")
        rows = tuple(
            (*row, _money(_per_million(answer, found))) for row, found in zip(rows, answer.found, strict=True)
        )
    device_notes: tuple[str, ...] = ()
    if answer.num_cards:
        columns = ("gpu", *columns)
        rows = tuple(
            (found.candidate.plan.devices[0].device.name, *row)
            for row, found in zip(rows, answer.found, strict=True)
        )
    elif answer.found:
        first = answer.found[0].candidate.plan.devices[:1]
        device_notes = tuple(note for item in first for note in item.device.notes[:1])
    notes = list(_notes(answer))
    records = tuple(_record(found, card=bool(answer.num_cards)) for found in answer.found)
    tables = (Table(columns, rows, drop=_DROP, right=_RIGHT),) if rows else ()
    return Sheet((head, *device_notes), tables, tuple(notes), records)


_DROP = ("active", "engine", "free GiB", "parameters", "max context")
_RIGHT = ("parameters", "active", "free GiB", "max context")


def _row(found: Found) -> tuple[str, ...]:
    candidate = found.candidate
    plan = candidate.plan
    return (
        plan.model.name,
        f"{candidate.num_parameters / 1e9:,.1f} B",
        f"{candidate.num_active_parameters / 1e9:,.1f} B",
        plan.weights_format,
        VERDICTS[candidate.verdict.status],
        f"{candidate.verdict.headroom_bytes / GIB:,.2f}",
        format_tokens(found.max_context_tokens),
        rate_text(candidate.rate),
        engine_text(plan),
    )


def rate_text(rate: Rate | None) -> str:
    """Return tokens a second with their bounds, ``?`` where no bandwidth is known."""
    if rate is None:
        return "?"
    return f"{rate.expected:,.0f} ({rate.low:,.0f} to {rate.high:,.0f})"


def _usd(answer: FindAnswer) -> float | None:
    return answer.offer.price_usd_per_hour if answer.offer else None


def _per_million(answer: FindAnswer, found: Found) -> float | None:
    dollars, rate = _usd(answer), found.candidate.rate
    return None if dollars is None or rate is None else usd_per_million_tokens(dollars, rate.expected)


def _money(dollars: float | None) -> str:
    return "?" if dollars is None else f"{dollars:,.2f}"


def _notes(answer: FindAnswer) -> Iterator[str]:
    if answer.num_too_slow:
        text = f"{answer.num_too_slow} more fit and are slower"
        yield f"{text}; of {answer.num_unknown} the speed is not known" if answer.num_unknown else text
    if answer.priced:
        dollars = _usd(answer)
        if answer.offer is None or dollars is None:
            yield "price: none known for these cards"
        else:
            name = f"{answer.offer.num_instances} × {answer.offer.instance.name}"
            yield f"price: {name}, ${dollars:,.2f} an hour, {answer.offer.source}"
    if answer.found:
        if answer.num_cards:
            yield "one row a GPU, the smallest first" + (
                "; each with its best" if answer.num_models > 1 else ""
            )
        if answer.as_published:
            yield "models as they are published; name some, or --weights, to try other formats"
        yield f"best{'' if answer.num_cards else ' first'}: " + (
            "fits before tight, four bits and more before fewer, then most parameters, then "
            "the format that loses least; no benchmark scores"
        )
        yield "tokens/s: of all sequences, at the asked context, from the bandwidth; an estimate"
        yield f"the first: {answer.found[0].command}"
    else:
        yield "nothing fits: try a shorter --ctx, --weights q3_k_m, or more memory"
