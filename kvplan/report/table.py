"""The fit answer as a person reads it on a terminal: at most twenty lines, any width."""

from collections.abc import Sequence
from textwrap import wrap

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kvplan.engines.base import Component
from kvplan.report.answer import FitAnswer, Proposal, Screen
from kvplan.report.drawing import drawing_console, drawn_text
from kvplan.report.wording import (
    COMPONENTS,
    VERDICTS,
    component_note,
    engine_says,
    headroom,
    limits_text,
    offload_text,
    quality_text,
    rent_lines,
    speed_text,
    spilled_text,
    subject,
    unequal_cards,
)
from kvplan.units import GIB, format_gib

STYLES = {
    "fits": "bold green",
    "tight": "bold yellow",
    "offload": "bold yellow",
    "does_not_fit": "bold red",
    "refused": "bold red",
    "unknown": "bold magenta",
}
# Drawn with these marks, so that the bar reads without colour as well.
MARKS = {"weights": "█", "kv_cache": "▓", "overhead": "▒", "free": "·"}
ASCII_MARKS = {"weights": "#", "kv_cache": "=", "overhead": "+", "free": "."}
MARK_STYLES = {"weights": "blue", "kv_cache": "cyan", "overhead": "magenta", "free": "dim"}
MIN_WIDTH = 20
# Narrower screens show the amounts alone.
MIN_WIDTH_FOR_NOTES = 60
MIN_BAR = 10
MAX_BAR = 72
SAID_LINES = 2


def fit(answer: FitAnswer, screen: Screen) -> str:
    """Draw verdict, bar, components, limits, warnings and what makes it fit."""
    console = drawing_console(screen, MIN_WIDTH)
    status = answer.verdict.status
    console.print(Text.assemble((VERDICTS[status], STYLES[status]), "  ", subject(answer)))
    console.print(Text(headroom(answer)))
    if answer.plan.devices:
        console.print(_bar(answer, screen))
        console.print(_components(answer, with_notes=screen.width >= MIN_WIDTH_FOR_NOTES))
        if unequal_cards(answer.plan):
            console.print(Text(f"  {unequal_cards(answer.plan)}"))
        for note in answer.plan.devices[max(0, answer.verdict.device_index)].device.notes[:1]:
            console.print(Text(f"  {note}"))
    if spilled_text(answer):
        console.print(Text(spilled_text(answer)))
    said = engine_says(answer.plan)
    if not said or answer.limits.max_sequences or answer.limits.max_context_tokens:
        console.print(Text(limits_text(answer)))
    if said:
        console.print(Text(_cropped(said, SAID_LINES * console.width)))
    if answer.verdict.status in ("fits", "tight", "offload") and speed_text(answer):
        console.print(Text(f"decodes {speed_text(answer)}"))
    if offload_text(answer):
        console.print(Text(offload_text(answer)))
    if answer.verdict.status in ("fits", "tight", "offload"):
        for line in answer.plan.command_lines[:3]:
            # A command is never broken, so that it can be copied.
            console.print(Text(line, no_wrap=True, overflow="ignore"), soft_wrap=True)
    for warning in answer.plan.warnings[:2]:
        console.print(Text.assemble(("! ", "yellow"), warning.message))
    if len(answer.plan.warnings) > 2:
        console.print(Text(f"! and {len(answer.plan.warnings) - 2} more: see --format plain", style="yellow"))
    for line in rent_lines(answer):
        console.print(Text(line))
    _proposals(console, answer)
    text = drawn_text(console)
    return text if screen.unicode else to_ascii(text)


def _cropped(text: str, length: int) -> str:
    """Cut a long message; --format plain has it whole."""
    room = max(20, length - 8)
    return text if len(text) <= room else f"{text[: room - 3]}..."


def to_ascii(text: str) -> str:
    """Return the text with every symbol spelled in ASCII."""
    for symbol, plain in (
        *zip(MARKS.values(), ASCII_MARKS.values(), strict=True),
        ("×", "x"),
        ("┃", "|"),
        ("–", "-"),
        ("→", "->"),
    ):
        text = text.replace(symbol, plain)
    return text.encode("ascii", "replace").decode("ascii")


def _group(component: Component) -> str:
    return component.name if component.name in ("weights", "kv_cache") else "overhead"


def _bar(answer: FitAnswer, screen: Screen) -> Text:
    device = answer.plan.devices[max(0, answer.verdict.device_index)]
    sizes = {"weights": 0, "kv_cache": 0, "overhead": 0}
    for component in device.components:
        sizes[_group(component)] += component.bytes.expected
    used = sum(sizes.values())
    sizes["free"] = max(0, device.budget_bytes - used)
    scale = max(used, device.budget_bytes, 1)
    width = min(MAX_BAR, max(MIN_BAR, screen.width - 2))
    bar = Text(no_wrap=True, overflow="crop")
    drawn = passed = 0
    limit = device.budget_bytes * width // scale
    for name, size in sizes.items():
        passed += size
        end = passed * width // scale
        for position in range(drawn, end):
            over = used > device.budget_bytes and position == limit
            bar.append("┃" if over else MARKS[name], style="bold red" if over else MARK_STYLES[name])
        drawn = max(drawn, end)
    return bar


def _components(answer: FitAnswer, *, with_notes: bool) -> Table:
    device = answer.plan.devices[max(0, answer.verdict.device_index)]
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    if with_notes:
        table.add_column()
    for component in device.components:
        mark = MARKS[_group(component)]
        name = Text.assemble((mark, MARK_STYLES[_group(component)]), " ", COMPONENTS[component.name])
        note = (component_note(component, answer.plan),) if with_notes else ()
        table.add_row(name, format_gib(component.bytes.expected), component.bytes.basis, *note)
    where = "in the machine" if device.device.unified_memory else "on the card"
    budget = f"of {format_gib(device.device.memory_bytes)} {where}"
    options = dict(answer.plan.engine_options)
    share = options.get("gpu_memory_utilization") or options.get("mem_fraction_static")
    if share is not None:
        budget = f"{share:g} of {format_gib(device.device.usable_bytes)} usable"
    table.add_row("  budget", format_gib(device.budget_bytes), "", *((budget,) if with_notes else ()))
    return table


def _proposals(console: Console, answer: FitAnswer) -> None:
    if answer.verdict.status == "fits" and answer.upgrades:
        console.print(Text("the free memory could buy (GiB then free):"))
        _commands(console, answer.upgrades)
    if answer.verdict.status not in ("does_not_fit", "refused", "offload", "tight"):
        return
    if not answer.proposals:
        if answer.verdict.status == "does_not_fit":
            console.print(Text("nothing small makes it fit: fewer layers on the card, or another card"))
        return
    head = "to make it fit" if answer.verdict.status != "tight" else "for more room"
    console.print(Text(f"{head} (GiB free):"))
    _commands(console, answer.proposals)
    # Two lines at most; --format plain has them all, with their sources.
    for line in wrap(quality_text(answer.proposals), max(20, console.width), break_long_words=False)[:2]:
        console.print(Text(line, no_wrap=True, overflow="crop"))


def _commands(console: Console, proposals: Sequence[Proposal]) -> None:
    for proposal in proposals:
        # A command is never broken, so that it can be copied; the room stands in front of it.
        line = f"{proposal.headroom_bytes / GIB:6.2f}  {proposal.command}"
        if proposal.status != "fits":
            line += f"  # {proposal.status}"
        console.print(Text(line, no_wrap=True, overflow="ignore"), soft_wrap=True)
