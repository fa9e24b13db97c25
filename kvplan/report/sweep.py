"""A sweep as matrices: a word and the free GiB in every cell, one matrix a combination of the rest."""

from collections.abc import Iterator, Mapping
from itertools import product

from kvplan.report import json_report, sheet
from kvplan.report.answer import Screen
from kvplan.report.sheet import Sheet, Table
from kvplan.report.sweep_answer import SweepAnswer
from kvplan.report.wording import COMPONENTS
from kvplan.sweep import Axis, Grid, Point
from kvplan.units import GIB, format_tokens

WORDS: dict[str, str] = {
    "fits": "fits",
    "tight": "tight",
    "offload": "slow",
    "does_not_fit": "no",
    "refused": "refused",
    "unknown": "?",
}
LEGEND = (
    "free GiB on the card with the least room: fits with its upper bound, tight within the uncertainty, "
    "slow in system memory, no: short by that much"
)


def table(answer: SweepAnswer, screen: Screen) -> str:
    """Draw the matrices."""
    return sheet.table(_sheet(answer), screen)


def plain(answer: SweepAnswer, screen: Screen) -> str:
    """Write the matrices as tab-separated rows."""
    return sheet.plain(_sheet(answer), screen)


def markdown(answer: SweepAnswer, screen: Screen) -> str:
    """Write pipe tables."""
    return sheet.markdown(_sheet(answer), screen)


def csv(answer: SweepAnswer, screen: Screen) -> str:
    """Write one record a point."""
    return sheet.csv(Sheet((), (), (), tuple(_records(answer))), screen)


def json(answer: SweepAnswer, screen: Screen) -> str:  # noqa: ARG001 - every format takes the screen
    """Write the axes and every point."""
    return json_report.document(
        "sweep",
        answer.exit_code,
        model=answer.model_name,
        axes=[{"name": axis.name, "values": list(axis.values)} for axis in answer.grid.axes],
        points=[
            {
                "at": dict(zip((axis.name for axis in answer.grid.axes), values, strict=True)),
                "verdict": point.status,
                "headroom_bytes": point.headroom_bytes,
                "required_bytes": point.required_bytes,
                "budget_bytes": point.budget_bytes,
                "components": dict(point.parts),
                "problem": point.problem or None,
            }
            for values, point in placed(answer.grid)
        ],
        notes=list(answer.notes),
    )


def points_text(grid: Grid) -> str:
    """Return how many points a grid has."""
    count = len(grid.points)
    return "1 point" if count == 1 else f"{count:,} points"


def placed(grid: Grid) -> Iterator[tuple[tuple[str, ...], Point]]:
    """Yield every point with its values on the axes."""
    yield from zip(product(*(axis.values for axis in grid.axes)), grid.points, strict=True)


def _records(answer: SweepAnswer) -> Iterator[Mapping[str, object]]:
    names = [axis.name for axis in answer.grid.axes]
    held = {name for point in answer.grid.points for name, _ in point.parts}
    parts = [name for name in COMPONENTS if name in held]
    for values, point in placed(answer.grid):
        sizes = dict(point.parts)
        yield {
            "model": answer.model_name,
            **dict(zip(names, values, strict=True)),
            "verdict": point.status,
            "headroom_bytes": point.headroom_bytes,
            "required_bytes": point.required_bytes,
            "budget_bytes": point.budget_bytes,
            **{f"{name}_bytes": sizes.get(name, 0) for name in parts},
            "problem": point.problem,
        }


def _sheet(answer: SweepAnswer) -> Sheet:
    head = f"{answer.model_name}: {points_text(answer.grid)}"
    if answer.shared:
        head += f", {answer.shared}"
    return Sheet((head,), tuple(matrices(answer.grid)), (LEGEND, *answer.notes), ())


def matrix_axes(grid: Grid) -> tuple[Axis | None, Axis | None, tuple[Axis, ...]]:
    """Return the rows' axis, the columns' and the rest: the first two that vary, and the others."""
    varied = [axis for axis in grid.axes if len(axis.values) > 1] or list(grid.axes[:1])
    rows = varied[0] if varied else None
    columns = varied[1] if len(varied) > 1 else None
    return rows, columns, tuple(varied[2:])


def matrices(grid: Grid) -> Iterator[Table]:
    """Yield one table a combination of the axes beyond the first two."""
    rows, columns, rest = matrix_axes(grid)
    if rows is None:
        return
    positions = {axis.name: 0 for axis in grid.axes}
    for picked in product(*(range(len(axis.values)) for axis in rest)):
        positions |= {axis.name: index for axis, index in zip(rest, picked, strict=True)}
        heading = ", ".join(
            f"{axis.name} {value_text(axis, axis.values[index])}"
            for axis, index in zip(rest, picked, strict=True)
        )
        names = [f"{columns.name} {value_text(columns, v)}" for v in columns.values] if columns else [""]
        lines = []
        for row, value in enumerate(rows.values):
            positions[rows.name] = row
            cells = []
            for column in range(len(columns.values) if columns else 1):
                if columns:
                    positions[columns.name] = column
                cells.append(cell(grid.at([positions[axis.name] for axis in grid.axes])))
            lines.append((value_text(rows, value), *cells))
        yield Table((rows.name, *names), tuple(lines), heading, right=(rows.name,) if _counts(rows) else ())


def _counts(axis: Axis) -> bool:
    return axis.name in ("ctx", "batch")


def value_text(axis: Axis, value: str) -> str:
    """Return an axis's value for people: token counts with separators, names as they are."""
    from kvplan.units import parse_tokens

    return format_tokens(parse_tokens(value)) if axis.name == "ctx" else value


def cell(point: Point) -> str:
    """Return a point in a word and the free GiB."""
    word = WORDS[point.status]
    if point.status in ("refused", "unknown"):
        return word
    return f"{word} {point.headroom_bytes / GIB:,.2f}"
