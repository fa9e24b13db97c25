"""Why two plans of one model hold other weights: formats, system memory, layouts, padding."""

from collections.abc import Iterator

from kvplan.differences.reason import SMALLEST_BYTES, Names, Reason, by_layout, largest, pair, size
from kvplan.engines.base import Plan


def weights(a: Plan, b: Plan, names: Names) -> Iterator[Reason]:
    """Compare weights: all of them by format, what lies in system memory, what one GPU holds."""
    first, second = a.weights.expected, b.weights.expected
    if a.weights_format != b.weights_format and abs(first - second) >= SMALLEST_BYTES:
        text = pair(
            "weights",
            names,
            f"{size(first)} as {a.weights_format}",
            f"{size(second)} as {b.weights_format}",
        )
        yield Reason(abs(first - second), text)
    hosted = tuple(_in_system_memory(plan) for plan in (a, b))
    if abs(hosted[0] - hosted[1]) >= SMALLEST_BYTES:
        text = pair("weights in system memory", names, size(hosted[0]), size(hosted[1]))
        yield Reason(abs(hosted[0] - hosted[1]), text)
    per_rank = largest(a, "weights"), largest(b, "weights")
    if not (a.devices and b.devices) or abs(per_rank[0] - per_rank[1]) < SMALLEST_BYTES:
        return
    if a.parallel != b.parallel:
        yield by_layout("weights on one GPU", a, b, names, per_rank)
        return
    # What the checkpoint, its format and system memory do not explain: padding, tables, copies.
    beyond = abs((per_rank[0] - per_rank[1]) - ((first - hosted[0]) - (second - hosted[1])) // len(a.devices))
    if beyond >= SMALLEST_BYTES:
        notes = [_weights_note(plan) for plan in (a, b)]
        text = pair(
            "weights on one GPU", names, f"{size(per_rank[0])}{notes[0]}", f"{size(per_rank[1])}{notes[1]}"
        )
        yield Reason(beyond, text)


def _in_system_memory(plan: Plan) -> int:
    return sum(part.bytes.expected for part in plan.host if part.name == "weights")


def _weights_note(plan: Plan) -> str:
    """Return why an engine's weights are not the checkpoint's own bytes."""
    parts = [part.bytes for part in plan.devices[0].components if part.name == "weights"]
    why = next((amount.why for amount in parts if amount.basis != "exact" and amount.why), "")
    return f" ({why})" if why else ""
