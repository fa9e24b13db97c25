"""What differs between two plans, and why: models, GPUs, contexts, formats.

Each reason names the figures it explains, taken from the two plans. Why two engines price the same
question differently is in kvplan.differences.between_engines.
"""

from collections.abc import Iterator

from kvplan.differences.between_engines import explain
from kvplan.engines.base import Plan
from kvplan.model import num_active_parameters, num_parameters
from kvplan.units import format_gib, format_tokens

# Kinds whose cache does not grow with every token.
_BOUNDED = ("sliding_window", "chunked_attention")


def reasons(first: Plan, second: Plan) -> tuple[str, ...]:
    """Return why ``second`` costs something else than ``first``, the largest causes first."""
    if first.model.name == second.model.name and _engine(first) != _engine(second):
        return explain(first, second)
    found: list[str] = []
    if first.model is not second.model and first.model.name != second.model.name:
        found += _model(first, second)
    found += _formats(first, second)
    found += _load(first, second)
    found += _devices(first, second)
    return tuple(found)


def _engine(plan: Plan) -> tuple[str, str]:
    return plan.engine_name, plan.engine_version


def _model(first: Plan, second: Plan) -> Iterator[str]:
    one, other = num_parameters(first.model.structure), num_parameters(second.model.structure)
    if one != other:
        yield (
            f"weights: {_billions(other)} parameters against {_billions(one)}, "
            f"{format_gib(second.weights.expected)} against {format_gib(first.weights.expected)}"
        )
    active = num_active_parameters(second.model.structure), num_active_parameters(first.model.structure)
    if active[0] != active[1] and (active[0] != other or active[1] != one):
        yield f"speed: {_billions(active[0])} parameters are read a token, against {_billions(active[1])}"
    if first.cache.bytes_per_token != second.cache.bytes_per_token or _shape(first) != _shape(second):
        yield f"KV cache: {second.model.name} keeps {_shape(second)}; {first.model.name} {_shape(first)}"


def _billions(count: int) -> str:
    return f"{count / 1e9:,.2f} B"


def _shape(plan: Plan) -> str:
    """Return what a model's layers keep under its engine, in words with bytes."""
    growing: list[str] = []
    fixed: list[str] = []
    for group in plan.cache.groups:
        layers = f"{group.num_layers} {group.kind.replace('_', ' ')} layers"
        if group.kind in _BOUNDED:
            fixed.append(f"{layers} up to their window")
        elif group.bytes_per_token:
            growing.append(f"{group.bytes_per_token:,} B a token in {layers}")
        elif group.bytes_per_sequence:
            fixed.append(f"{format_gib(group.bytes_per_sequence)} a sequence in {layers}")
    return " and ".join((*growing, *fixed)) or "no cache"


def _formats(first: Plan, second: Plan) -> Iterator[str]:
    if first.weights_format != second.weights_format and first.model.name == second.model.name:
        yield (
            f"weights: {format_gib(second.weights.expected)} as {second.weights_format}, "
            f"{format_gib(first.weights.expected)} as {first.weights_format}"
        )
    one, other = (first.kv_dtype_k, first.kv_dtype_v), (second.kv_dtype_k, second.kv_dtype_v)
    if one != other and first.engine_name == second.engine_name:
        yield (
            f"KV cache: {second.cache.bytes_per_token:,} B a token in {'/'.join(dict.fromkeys(other))}, "
            f"{first.cache.bytes_per_token:,} in {'/'.join(dict.fromkeys(one))}"
        )


def _load(first: Plan, second: Plan) -> Iterator[str]:
    if first.model.name != second.model.name or first.engine_name != second.engine_name:
        return
    change = second.cache.bytes_per_sequence - first.cache.bytes_per_sequence
    tokens = second.context_tokens - first.context_tokens
    if tokens:
        sign = "more" if tokens > 0 else "fewer"
        text = f"context: {format_tokens(abs(tokens))} {sign} tokens a sequence are {format_gib(abs(change))}"
        if any(group.kind in _BOUNDED for group in second.cache.groups):
            text += "; layers with a window stop growing when it is full"
        yield text
    if first.num_sequences != second.num_sequences:
        yield (
            f"load: {second.num_sequences:,} sequences against {first.num_sequences:,}, "
            f"{format_gib(second.cache.total.expected)} of cache against "
            f"{format_gib(first.cache.total.expected)}"
        )


def _devices(first: Plan, second: Plan) -> Iterator[str]:
    if not first.devices or not second.devices:
        return
    one, other = first.devices[0], second.devices[0]
    if one.device.name != other.device.name and one.budget_bytes != other.budget_bytes:
        yield (
            f"budget: {format_gib(other.budget_bytes)} of {format_gib(other.device.usable_bytes)} usable "
            f"on {other.device.name}, {format_gib(one.budget_bytes)} of "
            f"{format_gib(one.device.usable_bytes)} on {one.device.name}"
        )
    if len(first.devices) != len(second.devices) or first.parallel != second.parallel:
        yield f"layout: {layout_text(second)} against {layout_text(first)}"
    if first.engine_name != second.engine_name:
        return
    if one.device.name != other.device.name:
        options = dict(first.engine_options)
        changed = [
            f"{name} {_shown(value)} against {_shown(options.get(name))}"
            for name, value in second.engine_options
            if name.startswith("max_num") and options.get(name) != value
        ]
        if changed:
            yield f"defaults by card: {', '.join(changed)}"


def layout_text(plan: Plan) -> str:
    """Return how a plan is spread over its devices: ``TP2 × PP5 on 10 GPUs``."""
    parallel, count = plan.parallel, len(plan.devices)
    parts = [
        f"{letter}{ranks}"
        for letter, ranks in (("DP", parallel.data), ("TP", parallel.tensor), ("PP", parallel.pipeline))
        if ranks > 1
    ]
    gpus = "1 GPU" if count == 1 else f"{count} GPUs"
    return f"{' × '.join(parts)} on {gpus}" if parts else gpus


def _shown(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
