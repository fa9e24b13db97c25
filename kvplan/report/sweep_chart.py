"""A sweep as pictures: memory against context in stacked areas, the budget as a line.

One chart for each combination of the other axes, as SVG that opens on its own and follows the
reader's light or dark setting. Areas carry a pattern and a name beside their colour.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice, product
from xml.sax.saxutils import escape, quoteattr

from kvplan.errors import InvalidValue
from kvplan.frozen import dataclass
from kvplan.report.answer import Screen
from kvplan.report.sweep import WORDS, value_text
from kvplan.report.sweep_answer import SweepAnswer
from kvplan.report.wording import COMPONENTS
from kvplan.sweep import Grid, Point
from kvplan.units import GIB, format_tokens, parse_tokens

# What a picture shows at most; tables and CSV have everything.
MAX_CHARTS = 24
MAX_CONTEXTS = 400

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 116, 44, 44
ORDER = tuple(COMPONENTS)
Scale = Callable[[int], float]
# Okabe and Ito's palette, which readers with colour-blindness can tell apart, and a pattern for each.
FILLS: dict[str, tuple[str, str]] = {
    "weights": ("#0072b2", "solid"),
    "kv_cache": ("#e69f00", "rising"),
    "recurrent_state": ("#cc79a7", "dots"),
    "activations": ("#009e73", "falling"),
    "cuda_graphs": ("#f0e442", "level"),
    "runtime": ("#999999", "solid"),
    "communication": ("#56b4e9", "dots"),
    "draft_model": ("#d55e00", "rising"),
    "adapters": ("#882255", "falling"),
    "multimodal": ("#44aa99", "level"),
    "other_processes": ("#666666", "dots"),
}
STYLE = """
.kv{font:12px system-ui,sans-serif;--ink:#1f2328;--soft:#59636e;--line:#d1d9e0;--page:#ffffff;--limit:#c2185b}
@media (prefers-color-scheme:dark){
.kv{--ink:#e6edf3;--soft:#9198a1;--line:#3d444d;--page:#0d1117;--limit:#ff6f9f}}
.kv text{fill:var(--ink)}.kv .soft{fill:var(--soft)}.kv .grid{stroke:var(--line)}
.kv .axis{stroke:var(--soft)}.kv .limit{stroke:var(--limit);stroke-width:2;stroke-dasharray:6 3}
.kv .under{stroke:var(--page);stroke-width:4}
.kv .limit-text{fill:var(--limit);font-weight:600}.kv .title{font-weight:600;font-size:13px}
.kv .page{fill:var(--page)}.kv .edge{stroke:var(--page);stroke-width:1}
"""


@dataclass(frozen=True, slots=True)
class Chart:
    """Memory against context for one combination of the other axes, the shortest context first."""

    title: str
    contexts: tuple[int, ...]
    points: tuple[Point, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The parts that some point holds, from the bottom up."""
        held = {name for point in self.points for name, size in point.parts if size}
        return tuple(name for name in ORDER if name in held)

    def sizes(self, name: str) -> list[int]:
        """Return one part's bytes at every context."""
        return [sum(size for part, size in point.parts if part == name) for point in self.points]


def charts(grid: Grid) -> tuple[tuple[Chart, ...], int]:
    """Return the charts, at most 24, and how many there would be.

    Raises InvalidValue when fewer than two contexts vary, since memory is drawn against context.
    """
    names = [axis.name for axis in grid.axes]
    at = names.index("ctx") if "ctx" in names else -1
    if at < 0 or len(grid.axes[at].values) < 2:
        raise InvalidValue(
            "a picture needs several contexts",
            why="it draws memory against context",
            hint="add contexts: --ctx 4k..128k",
        )
    order = sorted(range(len(grid.axes[at].values)), key=lambda i: parse_tokens(grid.axes[at].values[i]))
    picked = _thinned(order)
    others = [axis for number, axis in enumerate(grid.axes) if number != at]
    total = 1
    for axis in others:
        total *= len(axis.values)
    found = islice(_charts(grid, at, picked), MAX_CHARTS)
    return tuple(found), total


def _thinned(order: Sequence[int]) -> tuple[int, ...]:
    if len(order) <= MAX_CONTEXTS:
        return tuple(order)
    step = (len(order) - 1) / (MAX_CONTEXTS - 1)
    return tuple(order[round(number * step)] for number in range(MAX_CONTEXTS))


def _charts(grid: Grid, at: int, picked: Sequence[int]) -> Iterator[Chart]:
    others = [number for number in range(len(grid.axes)) if number != at]
    for indices in product(*(range(len(grid.axes[number].values)) for number in others)):
        position = dict(zip(others, indices, strict=True))
        title = ", ".join(
            f"{grid.axes[n].name} {value_text(grid.axes[n], grid.axes[n].values[i])}"
            for n, i in position.items()
            if len(grid.axes[n].values) > 1
        )
        points = tuple(
            grid.at([index if n == at else position[n] for n in range(len(grid.axes))]) for index in picked
        )
        if any(point.parts for point in points):
            contexts = tuple(parse_tokens(grid.axes[at].values[index]) for index in picked)
            yield Chart(title, contexts, points)


def svg(answer: SweepAnswer, screen: Screen) -> str:  # noqa: ARG001 - every format takes the screen
    """Return one SVG with every chart, two beside each other."""
    found, total = charts(answer.grid)
    columns = min(2, max(1, len(found)))
    rows = -(-len(found) // columns)
    head = 34
    width, height = columns * WIDTH, head + rows * HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="kv" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img">',
        f"<title>{escape(_title(answer))}</title><style>{STYLE}</style>",
        patterns(),
        f'<rect class="page" width="{width}" height="{height}"/>',
        f'<text class="title" x="{LEFT}" y="22">{escape(_title(answer))}</text>',
    ]
    for number, chart in enumerate(found):
        x, y = number % columns * WIDTH, head + number // columns * HEIGHT
        parts.append(f'<g transform="translate({x} {y})">{drawing(chart)}</g>')
    if total > len(found):
        parts.append(
            f'<text class="soft" x="{LEFT}" y="{head - 2}">the first {len(found)} of {total:,} charts</text>'
        )
    return "\n".join((*parts, "</svg>")) + "\n"


def _title(answer: SweepAnswer) -> str:
    return f"{answer.model_name}: memory against context" + (f", {answer.shared}" if answer.shared else "")


def patterns() -> str:
    """Return the patterns that areas are filled with, each in its colour."""
    lines = {
        "rising": '<path d="M0 8L8 0M-2 2L2 -2M6 10L10 6" stroke="#000" stroke-opacity=".35"/>',
        "falling": '<path d="M0 0L8 8M-2 6L2 10M6 -2L10 2" stroke="#000" stroke-opacity=".35"/>',
        "level": '<path d="M0 4H8" stroke="#000" stroke-opacity=".35"/>',
        "dots": '<circle cx="4" cy="4" r="1.3" fill="#000" fill-opacity=".45"/>',
        "solid": "",
    }
    made = "".join(
        f'<pattern id="kv-{name}" width="8" height="8" patternUnits="userSpaceOnUse">'
        f'<rect width="8" height="8" fill="{color}"/>{lines[kind]}</pattern>'
        for name, (color, kind) in FILLS.items()
    )
    return f"<defs>{made}</defs>"


def drawing(chart: Chart) -> str:
    """Return one chart's elements, in a box of 460 by 300."""
    highest = max(max(point.required_bytes, point.budget_bytes) for point in chart.points)
    step = _step(highest / GIB)
    top = step * (int(highest / GIB / step) + 1)
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    first, last = chart.contexts[0], chart.contexts[-1]

    def x(tokens: int) -> float:
        return LEFT + (right - LEFT) * (tokens - first) / max(1, last - first)

    def y(num_bytes: int) -> float:
        return bottom - (bottom - TOP) * num_bytes / GIB / top

    parts = [f'<text class="title" x="{LEFT}" y="20">{escape(chart.title)}</text>']
    ticks = 0.0
    while ticks <= top + step / 2:
        parts.append(
            f'<path class="grid" d="M{LEFT} {y(int(ticks * GIB)):.1f}H{right}"/>'
            f'<text class="soft" x="{LEFT - 6}" y="{y(int(ticks * GIB)) + 4:.1f}" '
            f'text-anchor="end">{ticks:g}</text>'
        )
        ticks += step
    parts += [
        f'<text class="soft" x="{LEFT - 6}" y="{TOP - 12}" text-anchor="end">GiB</text>',
        *_areas(chart, x, y),
        *_context_ticks(chart, x, bottom),
        f'<path class="axis" fill="none" d="M{LEFT} {TOP}V{bottom}H{right}"/>',
        *_limit(chart, x, y, right),
        *_legend(chart, right, y(chart.points[-1].budget_bytes)),
    ]
    return "".join(parts)


def _areas(chart: Chart, x: Scale, y: Scale) -> Iterator[str]:
    below = [0] * len(chart.points)
    for name in chart.names:
        above = [low + size for low, size in zip(below, chart.sizes(name), strict=True)]
        line = [f"{x(c):.1f},{y(v):.1f}" for c, v in zip(chart.contexts, above, strict=True)]
        back = [f"{x(c):.1f},{y(v):.1f}" for c, v in zip(chart.contexts, below, strict=True)]
        label = (
            f"{COMPONENTS[name]}: {chart.sizes(name)[0] / GIB:,.2f} to {chart.sizes(name)[-1] / GIB:,.2f} GiB"
        )
        yield (
            f'<polygon class="edge" fill="url(#kv-{name})" points="{" ".join((*line, *reversed(back)))}">'
            f"<title>{escape(label)}</title></polygon>"
        )
        below = above


def _limit(chart: Chart, x: Scale, y: Scale, right: int) -> Iterator[str]:
    budgets = [point.budget_bytes for point in chart.points]
    line = " ".join(f"{x(c):.1f},{y(v):.1f}" for c, v in zip(chart.contexts, budgets, strict=True))
    yield f'<polyline class="under" fill="none" points="{line}"/>'
    yield f'<polyline class="limit" fill="none" points="{line}"><title>budget</title></polyline>'
    height = y(budgets[-1])
    yield (
        f'<text class="limit-text" x="{right + 6}" y="{height + 4:.1f}">{budgets[-1] / GIB:,.1f} GiB</text>'
        f'<text class="limit-text" x="{right + 6}" y="{height - 10:.1f}">budget</text>'
    )


def _context_ticks(chart: Chart, x: Scale, bottom: int) -> Iterator[str]:
    taken = -1e9
    for tokens, point in reversed(tuple(zip(chart.contexts, chart.points, strict=True))):
        place = x(tokens)
        if taken > -1e9 and taken - place < 46:
            continue
        taken = place
        word = WORDS[point.status]
        yield (
            f'<path class="axis" d="M{place:.1f} {bottom}v4"/>'
            f'<text class="soft" x="{place:.1f}" y="{bottom + 16}" text-anchor="middle">'
            f"{_short(tokens)}</text>"
            f'<text x="{place:.1f}" y="{bottom + 31}" text-anchor="middle" font-weight="600" '
            f"data-verdict={quoteattr(point.status)}>{escape(word)}</text>"
        )


def _short(tokens: int) -> str:
    return f"{tokens // 1024}k" if tokens % 1024 == 0 else format_tokens(tokens)


def _legend(chart: Chart, right: int, budget_at: float) -> Iterator[str]:
    # From the top down, as the areas lie; above or below the budget's name, wherever is more room.
    names = tuple(reversed(chart.names))
    above, below = budget_at - 26 - TOP, HEIGHT - BOTTOM - budget_at - 10
    line = min(16.0, max(above, below) / max(1, len(names)))
    start = TOP if above > below else HEIGHT - BOTTOM - line * len(names)
    for number, name in enumerate(names):
        top = start + line * number
        yield (
            f'<rect x="{right + 6}" y="{top:.1f}" width="11" height="11" fill="url(#kv-{name})"/>'
            f'<text x="{right + 22}" y="{top + 10:.1f}">{escape(COMPONENTS[name])}</text>'
        )


def _step(top_gib: float) -> float:
    """Return a round step that makes four to eight lines."""
    step = 10.0**-2
    for _ in range(12):
        for factor in (1, 2, 5):
            if top_gib / (step * factor) <= 7:
                return step * factor
        step *= 10
    return step
