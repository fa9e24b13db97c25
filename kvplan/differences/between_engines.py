"""Why two plans of one model differ in memory: short sentences with the numbers in them.

Reads nothing but the plans. Each sentence names one cause, the largest first: weights, the cache's
format, what a kind of layer keeps, state slots, padding, replication, what is reserved, the base of
the budget. What does not differ is not mentioned.
"""

from collections.abc import Iterator

from kvplan.differences.budget import budget, reserved, unused
from kvplan.differences.reason import SMALLEST_BYTES, Names, Reason, by_layout, largest, pair, size
from kvplan.differences.weights import weights
from kvplan.engines.base import CacheGroup, Plan

DISPLAY: dict[str, str] = {
    "vllm": "vLLM",
    "sglang": "SGLang",
    "tensorrt-llm": "TensorRT-LLM",
    "lmdeploy": "LMDeploy",
    "tgi": "TGI",
    "ollama": "Ollama",
}
WINDOWS = ("sliding_window", "chunked_attention")
# Engines whose bytes a token are an average over a sequence's cells.
BY_CELLS = ("llama.cpp", "ollama")
# What engines keep of a window beside it.
FLIGHT: dict[str, str] = {
    "vllm": "the window and the tokens in flight",
    "llama.cpp": "the window and one micro-batch",
    "ollama": "the window and one micro-batch",
    "transformers": "the window alone",
    "ideal": "the window alone",
}


def explain(a: Plan, b: Plan) -> tuple[str, ...]:
    """Return why ``a`` and ``b`` differ in memory, largest cause first; empty when nothing does.

    The plans are of one model; engines, formats, settings and devices may differ.
    """
    names = _names(a, b)
    reasons = [
        *weights(a, b, names),
        *_cache_format(a, b, names),
        *_kinds(a, b, names),
        *_states(a, b, names),
        *_padding(a, b, names),
        *_replication(a, b, names),
        *_peak(a, b, names),
        *_null_block(a, b, names),
        *reserved(a, b, names),
        *unused(a, b, names),
        *budget(a, b, names),
    ]
    reasons.sort(key=lambda reason: -reason.num_bytes)
    return tuple(reason.sentence for reason in reasons)


def _names(a: Plan, b: Plan) -> Names:
    first, second = (DISPLAY.get(plan.engine_name, plan.engine_name) for plan in (a, b))
    if first != second:
        return first, second
    if a.engine_version != b.engine_version:
        return f"{first} {a.engine_version}", f"{second} {b.engine_version}"
    return "the first", "the second"


def _cache_format(a: Plan, b: Plan, names: Names) -> Iterator[Reason]:
    first, second = (_short_format(plan) for plan in (a, b))
    if first == second:
        return
    rows = a.cache.bytes_per_token, b.cache.bytes_per_token
    text = pair("cache format", names, f"{first}, {rows[0]:,} B a token", f"{second}, {rows[1]:,} B a token")
    yield Reason(abs(rows[0] - rows[1]) * a.context_tokens, text)


def _short_format(plan: Plan) -> str:
    """Return the format's name; the two 16-bit floats cost the same and go by one."""
    names = {"bfloat16": "16-bit", "float16": "16-bit", "f16": "16-bit", "bf16": "16-bit", "fp16": "16-bit"}
    key, value = (names.get(text, text) for text in (plan.kv_dtype_k, plan.kv_dtype_v))
    return key if key == value else f"{key}/{value}"


def _kinds(a: Plan, b: Plan, names: Names) -> Iterator[Reason]:
    """Compare what each kind of layer keeps of one sequence."""
    others = {group.kind: group for group in _merged(b)}
    for group in _merged(a):
        other = others.get(group.kind)
        if other is None or not (group.bytes_per_token or other.bytes_per_token):
            continue
        first, second = group.bytes_per_sequence, other.bytes_per_sequence
        if abs(first - second) < SMALLEST_BYTES:
            continue
        what = f"{group.num_layers} {group.kind.replace('_', ' ')} layers, one sequence"
        text = pair(what, names, size(first) + _note(group, a), size(second) + _note(other, b))
        yield Reason(abs(first - second) * max(a.num_sequences, b.num_sequences), text)


def _note(group: CacheGroup, plan: Plan) -> str:
    """Return what makes a kind's bytes: its window, all tokens in spite of it, whole pages."""
    detail = group.detail
    grown = group.bytes_per_token * plan.context_tokens
    if not detail and group.kind in WINDOWS:
        in_full = group.bytes_per_sequence >= grown > 0
        if plan.engine_name in BY_CELLS:
            in_full = bool(plan.workload.option("swa_full"))
        detail = "kept in full" if in_full else FLIGHT.get(plan.engine_name, "")
    block = plan.cache.block_size or 1
    if not detail and grown < group.bytes_per_sequence <= grown + group.bytes_per_token * block:
        detail = f"whole pages of {block:,} tokens" if block > 1 else ""
    return f" ({detail})" if detail else ""


def _merged(plan: Plan) -> tuple[CacheGroup, ...]:
    """Return the groups of a plan, those of one kind added up."""
    merged: dict[str, CacheGroup] = {}
    for group in plan.cache.groups:
        known = merged.get(group.kind)
        if known is None:
            merged[group.kind] = group
            continue
        merged[group.kind] = CacheGroup(
            group.kind,
            known.num_layers + group.num_layers,
            known.bytes_per_token + group.bytes_per_token,
            known.bytes_per_sequence + group.bytes_per_sequence,
            known.detail or group.detail,
        )
    return tuple(merged.values())


def _states(a: Plan, b: Plan, names: Names) -> Iterator[Reason]:
    first, second = a.cache.state_bytes_per_sequence, b.cache.state_bytes_per_sequence
    if abs(first - second) >= SMALLEST_BYTES:
        notes = [_state_note(plan) for plan in (a, b)]
        text = pair("state of one sequence", names, size(first) + notes[0], size(second) + notes[1])
        yield Reason(abs(first - second) * max(a.num_sequences, b.num_sequences), text)
    beyond = tuple(_idle_slots(plan) for plan in (a, b))
    if abs(beyond[0] - beyond[1]) >= SMALLEST_BYTES and max(beyond):
        notes = [_slots_note(plan) if idle else "" for plan, idle in zip((a, b), beyond, strict=True)]
        text = pair(
            "state slots set aside on one GPU beyond the load's",
            names,
            f"{size(beyond[0])}{notes[0]}",
            f"{size(beyond[1])}{notes[1]}",
        )
        yield Reason(abs(beyond[0] - beyond[1]), text)


def _idle_slots(plan: Plan) -> int:
    """Return the state slots of one GPU that the load does not use; 0 where states lie in the cache."""
    held = largest(plan, "recurrent_state")
    ranks = max(1, plan.parallel.tensor * plan.parallel.pipeline)
    used = plan.cache.state_bytes_per_sequence * plan.num_sequences // ranks
    return held - used if held > 2 * used else 0


def _slots_note(plan: Plan) -> str:
    """Return what decides how many slots there are, as the plan's component says it."""
    parts = (part for device in plan.devices for part in device.components if part.name == "recurrent_state")
    note = next((part.note for part in parts if part.note), "")
    return f" ({note})" if note else ""


def _state_note(plan: Plan) -> str:
    for group in plan.cache.groups:
        if group.bytes_per_token == 0 and group.detail:
            return f" ({group.detail})"
    return ""


def _padding(a: Plan, b: Plan, names: Names) -> Iterator[Reason]:
    """Compare what a sequence takes beyond its layers: one page size for all kinds, whole blocks, slots."""
    beyond = tuple(_beyond_layers(plan) for plan in (a, b))
    if abs(beyond[0] - beyond[1]) < SMALLEST_BYTES:
        return
    notes = [_block_note(plan) for plan in (a, b)]
    text = pair(
        "beyond the layers' own bytes, one sequence",
        names,
        f"{size(beyond[0])}{notes[0]}",
        f"{size(beyond[1])}{notes[1]}",
    )
    yield Reason(abs(beyond[0] - beyond[1]) * max(a.num_sequences, b.num_sequences), text)


def _beyond_layers(plan: Plan) -> int:
    layers = sum(group.bytes_per_sequence for group in plan.cache.groups)
    return max(0, plan.cache.bytes_per_sequence - layers)


def _block_note(plan: Plan) -> str:
    block = plan.cache.block_size
    return f" (pages of {block:,} tokens)" if block and block > 1 else ""


def _replication(a: Plan, b: Plan, names: Names) -> Iterator[Reason]:
    """Compare how often the ranks together hold the cache of the load."""
    times = tuple(_copies(plan) for plan in (a, b))
    if abs(times[0] - times[1]) < 0.1 or max(times) < 1.1:
        held = largest(a, "kv_cache"), largest(b, "kv_cache")
        both = a.cache.total.expected, b.cache.total.expected
        same = abs(both[0] - both[1]) <= max(both) // 50
        if same and abs(held[0] - held[1]) >= SMALLEST_BYTES:
            yield by_layout("cache on one GPU", a, b, names, held)
        return
    text = pair("copies of the cache over all ranks", names, f"{times[0]:.1f}", f"{times[1]:.1f}")
    extra = abs(times[0] * a.cache.total.expected - times[1] * b.cache.total.expected)
    yield Reason(int(extra), text)


def _copies(plan: Plan) -> float:
    """Return what all ranks hold over what the load takes; 1 where nothing is held twice."""
    tokens = plan.cache.total.expected
    if largest(plan, "recurrent_state"):
        # Elsewhere states lie in the cache's own pages.
        tokens -= plan.cache.state_bytes_per_sequence * plan.num_sequences
    held = sum(
        part.bytes.expected
        for device in plan.devices
        for part in device.components
        if part.name == "kv_cache"
    )
    if tokens <= 0 or len(plan.devices) < 2:
        return 1.0
    return max(1.0, held / tokens)


def _peak(a: Plan, b: Plan, names: Names) -> Iterator[Reason]:
    """Compare what the load's cache holds more for a moment, such as a prompt before its window is cut."""
    more = tuple(max(0, plan.cache.peak_bytes - plan.cache.total.expected) for plan in (a, b))
    if abs(more[0] - more[1]) >= SMALLEST_BYTES:
        text = pair("cache beyond the load's, for a moment", names, size(more[0]), size(more[1]))
        yield Reason(abs(more[0] - more[1]), text)


def _null_block(a: Plan, b: Plan, names: Names) -> Iterator[Reason]:
    """Name the block that vLLM never hands out (since 0.29) where only one of the two keeps one."""
    kept = _null_bytes(a), _null_bytes(b)
    if bool(kept[0]) != bool(kept[1]):
        name = names[0] if kept[0] else names[1]
        yield Reason(max(kept), f"one block of {size(max(kept))} is never handed out under {name}")


def _null_bytes(plan: Plan) -> int:
    """Return vLLM's null block as one rank's cache shows it; 0 for any other engine."""
    if plan.engine_name != "vllm" or len(plan.devices) != 1:
        return 0
    null = largest(plan, "kv_cache") - plan.cache.total.expected
    return null if SMALLEST_BYTES <= null <= plan.cache.bytes_per_sequence else 0
