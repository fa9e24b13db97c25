"""Why two plans of one model differ in memory: short sentences with the numbers in them.

Reads nothing but the plans. Each sentence names one cause, the largest first: weights, the cache's
format, what a kind of layer keeps, state slots, padding, replication, what is reserved, the base of
the budget. What does not differ is not mentioned.
"""

from collections.abc import Iterator

from kvplan.engines.base import CacheGroup, ComponentName, Plan
from kvplan.frozen import dataclass
from kvplan.units import GIB, MIB

DISPLAY: dict[str, str] = {
    "vllm": "vLLM",
    "sglang": "SGLang",
    "tensorrt-llm": "TensorRT-LLM",
    "lmdeploy": "LMDeploy",
    "tgi": "TGI",
    "ollama": "Ollama",
}
# What each engine's budget is a share of, and the option that sets it.
BUDGET_BASES: dict[str, tuple[str, str]] = {
    "vllm": ("gpu_memory_utilization", "of the card's total, graphs and activations inside"),
    "sglang": ("mem_fraction_static", "of what is free before the weights, graphs and activations beside"),
    "tensorrt-llm": ("free_gpu_memory_fraction", "of what is free after weights and activations"),
    "lmdeploy": ("cache_max_entry_count", "of what is free once the model is loaded"),
    "tgi": ("wiggle_room", "of the card's total, the warm-up's activations inside"),
    "llama.cpp": ("", "all that is free"),
    "ollama": ("", "all that is free, less its reserve"),
    "transformers": ("", "all that is free"),
    "ideal": ("", "the whole card"),
}
RESERVED: tuple[ComponentName, ...] = (
    "activations",
    "cuda_graphs",
    "runtime",
    "communication",
    "multimodal",
    "draft_model",
    "adapters",
)
# Below this a difference is rounding, not a reason.
SMALLEST_BYTES = MIB


@dataclass(frozen=True, slots=True)
class Reason:
    """One cause: the bytes it accounts for, to sort by, and the sentence."""

    num_bytes: int
    sentence: str


def explain(a: Plan, b: Plan) -> tuple[str, ...]:
    """Return why ``a`` and ``b`` differ in memory, largest cause first; empty when nothing does.

    The plans are of one model; engines, formats, settings and devices may differ.
    """
    names = _names(a, b)
    reasons = [
        *_weights(a, b, names),
        *_cache_format(a, b, names),
        *_kinds(a, b, names),
        *_states(a, b, names),
        *_padding(a, b, names),
        *_replication(a, b, names),
        *_null_block(a, b, names),
        *_reserved(a, b, names),
        *_budget(a, b, names),
    ]
    reasons.sort(key=lambda reason: -reason.num_bytes)
    return tuple(reason.sentence for reason in reasons)


Names = tuple[str, str]


def _names(a: Plan, b: Plan) -> Names:
    first, second = (DISPLAY.get(plan.engine_name, plan.engine_name) for plan in (a, b))
    if first != second:
        return first, second
    if a.engine_version != b.engine_version:
        return f"{first} {a.engine_version}", f"{second} {b.engine_version}"
    return "the first", "the second"


def size(num_bytes: int) -> str:
    """Return bytes as the sentences show them: GiB, MiB below a tenth of one, or none."""
    if num_bytes == 0:
        return "none"
    if abs(num_bytes) < GIB // 10:
        return f"{num_bytes / MIB:.1f} MiB"
    return f"{num_bytes / GIB:.2f} GiB"


def _pair(what: str, names: Names, first: str, second: str) -> str:
    return f"{what}: {first} under {names[0]}, {second} under {names[1]}"


def _weights(a: Plan, b: Plan, names: Names) -> Iterator[Reason]:
    first, second = a.weights.expected, b.weights.expected
    if a.weights_format != b.weights_format:
        text = _pair(
            "weights",
            names,
            f"{size(first)} as {a.weights_format}",
            f"{size(second)} as {b.weights_format}",
        )
        yield Reason(abs(first - second), text)
    per_rank = tuple(_largest(plan, "weights") for plan in (a, b))
    same_layout = (a.weights_format, a.parallel) == (b.weights_format, b.parallel)
    if same_layout and abs(per_rank[0] - per_rank[1]) >= SMALLEST_BYTES:
        text = _pair("weights on one GPU", names, size(per_rank[0]), size(per_rank[1]))
        yield Reason(abs(per_rank[0] - per_rank[1]), text)
    elif a.weights_format == b.weights_format and a.parallel != b.parallel and a.devices and b.devices:
        text = _pair(
            "weights on one GPU",
            names,
            f"{size(per_rank[0])} ({_layout(a)})",
            f"{size(per_rank[1])} ({_layout(b)})",
        )
        yield Reason(abs(per_rank[0] - per_rank[1]), text)


def _layout(plan: Plan) -> str:
    parallel = plan.parallel
    parts = [f"tp {parallel.tensor}", f"pp {parallel.pipeline}", f"dp {parallel.data}"]
    shown = [part for part in parts if not part.endswith(" 1")]
    return ", ".join(shown) or "one rank"


def _largest(plan: Plan, name: ComponentName) -> int:
    amounts = [
        sum(part.bytes.expected for part in device.components if part.name == name) for device in plan.devices
    ]
    return max(amounts, default=0)


def _cache_format(a: Plan, b: Plan, names: Names) -> Iterator[Reason]:
    first, second = (_short_format(plan) for plan in (a, b))
    if first == second:
        return
    rows = a.cache.bytes_per_token, b.cache.bytes_per_token
    text = _pair("cache format", names, f"{first}, {rows[0]:,} B a token", f"{second}, {rows[1]:,} B a token")
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
        if other is None or not (group.bytes_per_token and other.bytes_per_token):
            continue
        first, second = group.bytes_per_sequence, other.bytes_per_sequence
        if abs(first - second) < SMALLEST_BYTES:
            continue
        what = f"{group.num_layers} {group.kind.replace('_', ' ')} layers, one sequence"
        text = _pair(what, names, size(first) + _note(group, a), size(second) + _note(other, b))
        yield Reason(abs(first - second) * max(a.num_sequences, b.num_sequences), text)


def _note(group: CacheGroup, plan: Plan) -> str:
    detail = group.detail
    if not detail and plan.engine_name == "vllm" and group.kind in ("sliding_window", "chunked_attention"):
        detail = "the window and the tokens in flight"
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
        text = _pair("state of one sequence", names, size(first) + notes[0], size(second) + notes[1])
        yield Reason(abs(first - second) * max(a.num_sequences, b.num_sequences), text)
    reserved = tuple(_largest(plan, "recurrent_state") for plan in (a, b))
    if abs(reserved[0] - reserved[1]) >= SMALLEST_BYTES and max(reserved):
        text = _pair(
            "state slots set aside on one GPU whatever runs", names, size(reserved[0]), size(reserved[1])
        )
        yield Reason(abs(reserved[0] - reserved[1]), text)


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
    text = _pair(
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
        return
    text = _pair("copies of the cache over all ranks", names, f"{times[0]:.1f}", f"{times[1]:.1f}")
    extra = abs(times[0] * a.cache.total.expected - times[1] * b.cache.total.expected)
    yield Reason(int(extra), text)


def _copies(plan: Plan) -> float:
    """Return what all ranks hold over what the load takes; 1 where nothing is held twice."""
    tokens = plan.cache.total.expected - plan.cache.state_bytes_per_sequence * plan.num_sequences
    held = sum(
        part.bytes.expected
        for device in plan.devices
        for part in device.components
        if part.name == "kv_cache"
    )
    if tokens <= 0 or len(plan.devices) < 2:
        return 1.0
    return max(1.0, held / tokens)


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
    null = _largest(plan, "kv_cache") - plan.cache.total.expected
    return null if SMALLEST_BYTES <= null <= plan.cache.bytes_per_sequence else 0


def _reserved(a: Plan, b: Plan, names: Names) -> Iterator[Reason]:
    """Compare what lies inside the budget beside weights and cache."""
    first, second = (sum(_largest(plan, name) for name in RESERVED) for plan in (a, b))
    if not (a.devices and b.devices) or abs(first - second) < SMALLEST_BYTES:
        return
    parts = [", ".join(_present(plan)) for plan in (a, b)]
    text = _pair(
        "inside the budget beside weights and cache",
        names,
        size(first) + (f" ({parts[0]})" if parts[0] else ""),
        size(second) + (f" ({parts[1]})" if parts[1] else ""),
    )
    yield Reason(abs(first - second), text)


def _present(plan: Plan) -> list[str]:
    return [name.replace("_", " ") for name in RESERVED if _largest(plan, name)]


def _budget(a: Plan, b: Plan, names: Names) -> Iterator[Reason]:
    if not (a.devices and b.devices):
        return
    budgets = a.devices[0].budget_bytes, b.devices[0].budget_bytes
    if abs(budgets[0] - budgets[1]) < SMALLEST_BYTES:
        return
    text = _pair(
        "budget on one GPU", names, f"{size(budgets[0])} ({_base(a)})", f"{size(budgets[1])} ({_base(b)})"
    )
    yield Reason(abs(budgets[0] - budgets[1]), text)


def _base(plan: Plan) -> str:
    option, base = BUDGET_BASES.get(plan.engine_name, ("", "its own rule"))
    value = dict(plan.engine_options).get(option) if option else None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:.3g} {base}"
    return base
