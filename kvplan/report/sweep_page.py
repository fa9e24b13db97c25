"""A sweep as one self-contained page: matrices, charts, and the values under the pointer.

Nothing is loaded from anywhere; it follows the reader's light or dark setting, and every number that
hovering shows stands in the tables as well.
"""

import json
from collections.abc import Iterator
from xml.sax.saxutils import escape, quoteattr

from kvplan import __version__
from kvplan.errors import InvalidValue
from kvplan.report.answer import Screen
from kvplan.report.sweep import LEGEND, WORDS, matrices, points_text
from kvplan.report.sweep_answer import SweepAnswer
from kvplan.report.sweep_chart import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    STYLE,
    TOP,
    WIDTH,
    Chart,
    charts,
    drawing,
    patterns,
)
from kvplan.report.wording import COMPONENTS
from kvplan.units import GIB, format_tokens

# More cells than this make a page that no browser scrolls well; CSV has them all.
MAX_CELLS = 20_000

PAGE_STYLE = """
:root{color-scheme:light dark}
body{margin:0 auto;max-width:1000px;padding:1.5rem;font:15px/1.5 system-ui,sans-serif}
body{color:#1f2328;background:#fff}
h1{font-size:1.35rem;margin:0 0 .25rem}h2{font-size:1rem;margin:1.5rem 0 .5rem}
p{margin:.25rem 0;color:#59636e}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .7rem;text-align:right;border:1px solid #d1d9e0;white-space:nowrap}th{font-weight:600}
td.fits{background:#dafbe1}td.tight,td.offload{background:#fff3c4}td.does_not_fit,td.refused{background:#ffe2e0}
.charts{display:flex;flex-wrap:wrap;gap:1rem}.chart{position:relative;width:460px;max-width:100%}
.chart svg{width:100%;height:auto;display:block}
.tip{position:absolute;pointer-events:none;background:#1f2328;color:#fff;padding:.35rem .6rem;
border-radius:4px;font-size:12px;line-height:1.45;white-space:pre;visibility:hidden;z-index:1}
.cursor{stroke:#59636e;visibility:hidden}
@media (prefers-color-scheme:dark){
body{color:#e6edf3;background:#0d1117}p{color:#9198a1}th,td{border-color:#3d444d}
td.fits{background:#12361f}td.tight,td.offload{background:#3b2f0b}td.does_not_fit,td.refused{background:#4a1a1d}
.tip{background:#e6edf3;color:#0d1117}.cursor{stroke:#9198a1}}
"""
SCRIPT = """
for (const box of document.querySelectorAll('.chart')) {
  const data = JSON.parse(box.querySelector('script').textContent);
  const svg = box.querySelector('svg'), tip = box.querySelector('.tip');
  const cursor = box.querySelector('.cursor');
  const show = (i) => {
    const x = data.x[i];
    cursor.setAttribute('d', `M${x} ${data.top}V${data.bottom}`);
    cursor.style.visibility = tip.style.visibility = 'visible';
    tip.textContent = data.text[i];
    const scale = svg.clientWidth / data.width, left = x * scale;
    tip.style.top = data.top * scale + 'px';
    const room = box.clientWidth - left - 8;
    tip.style.left = (tip.offsetWidth <= room ? left + 8 : Math.max(0, left - tip.offsetWidth - 8)) + 'px';
  };
  let at = 0;
  const hide = () => { cursor.style.visibility = tip.style.visibility = 'hidden'; };
  svg.addEventListener('pointermove', (event) => {
    const x = (event.clientX - svg.getBoundingClientRect().left) * data.width / svg.clientWidth;
    at = data.x.reduce((best, value, i) => Math.abs(value - x) < Math.abs(data.x[best] - x) ? i : best, 0);
    show(at);
  });
  svg.addEventListener('pointerleave', hide);
  svg.addEventListener('blur', hide);
  svg.addEventListener('focus', () => show(at));
  svg.addEventListener('keydown', (event) => {
    if (event.key === 'ArrowRight') at = Math.min(at + 1, data.x.length - 1);
    else if (event.key === 'ArrowLeft') at = Math.max(at - 1, 0);
    else return;
    event.preventDefault(); show(at);
  });
}
"""


def html(answer: SweepAnswer, screen: Screen) -> str:  # noqa: ARG001 - every format takes the screen
    """Return the page. Raises InvalidValue for a sweep with too many cells to read."""
    if len(answer.grid.points) > MAX_CELLS:
        raise InvalidValue(
            f"{len(answer.grid.points):,} points are too many for a page",
            why=f"a page shows at most {MAX_CELLS:,}",
            hint="write them with --export csv=FILE, or sweep fewer values",
        )
    found, total = charts(answer.grid)
    title = f"{answer.model_name}: does it fit?"
    parts = [
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{PAGE_STYLE}{STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        f"<p>{points_text(answer.grid)}{escape(', ' + answer.shared if answer.shared else '')}</p>",
        '<svg width="0" height="0" style="position:absolute" aria-hidden="true">',
        f"{patterns()}</svg>",
        "<h2>Memory against context</h2>",
        f'<div class="charts">{"".join(_figure(chart) for chart in found)}</div>',
    ]
    if total > len(found):
        parts.append(f"<p>the first {len(found)} of {total:,} charts; the tables have every point</p>")
    parts.append(f"<h2>Free GiB</h2><p>{escape(LEGEND)}</p>")
    parts += _tables(answer)
    parts += [f"<p>{escape(note)}</p>" for note in answer.notes]
    parts.append(f"<p>kvplan {__version__}</p><script>{SCRIPT}</script></body></html>")
    return "\n".join(parts) + "\n"


def _figure(chart: Chart) -> str:
    right = WIDTH - RIGHT
    first, last = chart.contexts[0], chart.contexts[-1]
    data = {
        "x": [round(LEFT + (right - LEFT) * (c - first) / max(1, last - first), 1) for c in chart.contexts],
        "text": [_tip(chart, number) for number in range(len(chart.contexts))],
        "top": TOP,
        "bottom": HEIGHT - BOTTOM,
        "width": WIDTH,
    }
    # A closing tag inside the data would end the script.
    text = json.dumps(data).replace("</", "<\\/")
    label = f"memory against context {chart.title}"
    return (
        f'<div class="chart"><svg class="kv" viewBox="0 0 {WIDTH} {HEIGHT}" tabindex="0" role="img" '
        f'aria-label={quoteattr(label)}>{drawing(chart)}<path class="cursor"/></svg>'
        f'<div class="tip"></div><script type="application/json">{text}</script></div>'
    )


def _tip(chart: Chart, number: int) -> str:
    point = chart.points[number]
    sizes = dict(point.parts)
    lines = [f"{format_tokens(chart.contexts[number])} tokens: {WORDS[point.status]}"]
    lines += [f"{COMPONENTS[name]} {sizes.get(name, 0) / GIB:,.2f}" for name in reversed(chart.names)]
    lines += [
        f"needs {point.required_bytes / GIB:,.2f} of {point.budget_bytes / GIB:,.2f} GiB",
        f"free {point.headroom_bytes / GIB:,.2f}",
    ]
    return "\n".join(lines)


def _tables(answer: SweepAnswer) -> Iterator[str]:
    statuses = {word: status for status, word in WORDS.items()}
    for each in matrices(answer.grid):
        if each.heading:
            yield f"<h2>{escape(each.heading)}</h2>"
        head = "".join(f"<th>{escape(name)}</th>" for name in each.columns)
        body = ""
        for row in each.rows:
            cells = "".join(
                f'<td class="{statuses.get(cell.split(" ")[0], "")}">{escape(cell)}</td>' for cell in row[1:]
            )
            body += f"<tr><th>{escape(row[0])}</th>{cells}</tr>"
        yield f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'
