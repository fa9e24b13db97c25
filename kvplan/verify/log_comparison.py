"""An engine's own figures against the plan's, component by component, and what makes the difference."""

from collections.abc import Callable
from dataclasses import replace

from kvplan.engines.base import DevicePlan, Plan
from kvplan.quantity import Quantity, exact, total
from kvplan.units import format_gib
from kvplan.verify import share_comparison
from kvplan.verify.comparison import Comparison, as_loaded, of_quantity
from kvplan.verify.log_question import is_gpu
from kvplan.verify.readings import MIB, Reading, Readings

# Plans again with the options changed: what the same server would have printed.
Replan = Callable[[dict[str, object]], Plan]
# The names that logs give to components of a plan.
COMPONENT_OF = {
    "weights": "weights",
    "activations": "activations",
    "non_torch": "runtime",
    "cuda_graphs": "cuda_graphs",
    "recurrent_state": "recurrent_state",
}
# Engines whose pool is a share of what is free: the option, its default. What is taken before counts by it.
SHARES = {"tensorrt-llm": ("free_gpu_memory_fraction", 0.9), "lmdeploy": ("cache_max_entry_count", 0.8)}
FILE_TYPE_UNKNOWN = "the log does not name the file's type: add --weights"


def compare(plan: Plan, readings: Readings, replan: Replan) -> tuple[Comparison, ...]:
    """Return every figure that both sides have."""
    if readings.engine in ("llama.cpp", "ollama"):
        return _llama_cpp(plan, readings)
    if readings.engine in share_comparison.ENGINES:
        return share_comparison.shares(plan, readings)
    rows = [*_shared(plan, readings)]
    if readings.engine == "vllm":
        rows += _vllm(plan, readings, replan)
    else:
        rows += _sglang(plan, readings)
    return tuple(rows)


def explain(rows: tuple[Comparison, ...], readings: Readings) -> tuple[str, ...]:
    """Say what makes the difference, largest part first."""
    lines: list[str] = []
    pool = next((row for row in rows if row.name == "kv_cache_available"), None)
    if pool is not None and pool.difference is not None and pool.expected is not None:
        option, usual = SHARES.get(readings.engine, ("", 1.0))
        share = float(readings.counts.get(option, usual))
        parts = [
            (-row.difference * share, row.name)
            for row in rows
            if row.name in ("weights", "activations", "runtime", "cuda_graphs") and row.difference is not None
        ]
        budget = next((row for row in rows if row.name == "budget" and row.difference is not None), None)
        if budget is not None and budget.difference is not None:
            parts.append((budget.difference, "budget"))
        parts.sort(key=lambda part: -abs(part[0]))
        rest = pool.difference - sum(amount for amount, _ in parts)
        said = [f"{name.replace('_', ' ')} {_signed(amount)}" for amount, name in parts if abs(amount) > MIB]
        if abs(rest) > 64 * MIB:
            said.append(f"not explained {_signed(rest)}")
        if said:
            lines.append(f"available KV memory {_signed(pool.difference)}: {', '.join(said)}")
    free, device = readings.smallest("free_at_start"), readings.largest("device_total")
    if free is not None and device is not None and device.num_bytes - free.num_bytes > 2**30:
        lines.append(
            f"{format_gib(device.num_bytes - free.num_bytes)} were held before the engine measured: "
            "other processes, its own context, or NCCL"
        )
    if readings.out_of_memory:
        lines.append("the log ends in an out-of-memory error")
    if readings.refusal:
        lines.append(f"the engine refused: {readings.refusal.strip()[:200]}")
    for row in rows:
        if row.status in ("above", "below") and row.why:
            lines.append(f"{row.name.replace('_', ' ')}: {row.why}")
    return tuple(lines)


def _signed(amount: float) -> str:
    return f"{'+' if amount >= 0 else '-'}{format_gib(int(abs(amount)))}"


def component(device: DevicePlan, name: str) -> Quantity | None:
    """Return a device's components of that name together, None where it has none."""
    found = [part.bytes for part in device.components if part.name == name]
    return total(found) if found else None


def _row(name: str, planned: Quantity | None, reading: Reading | None, **more: object) -> Comparison | None:
    if reading is None:
        return None
    row = of_quantity(name, planned, reading.num_bytes, rounding=reading.rounding_bytes, where=reading.device)
    return replace(row, **more)  # type: ignore[arg-type]


def _shared(plan: Plan, readings: Readings) -> list[Comparison]:
    """Compare what lies on one card: the fullest rank stands for all."""
    if not plan.devices:
        return []
    device = plan.devices[0]
    rows: list[Comparison | None] = []
    for said, name in COMPONENT_OF.items():
        planned = component(device, name)
        if name == "cuda_graphs" and planned is None:
            continue
        if name == "weights" and planned is not None:
            draft = component(device, "draft_model")
            if plan.engine_name == "vllm" and draft is not None:
                # vLLM loads what drafts in the same measured step (v1/worker/gpu_model_runner.py).
                planned += draft
            planned = as_loaded(planned)
        rows.append(_row(name, planned, readings.largest(said)))
    return [row for row in rows if row is not None]


def _vllm(plan: Plan, readings: Readings, replan: Replan) -> list[Comparison]:
    rows: list[Comparison | None] = []
    device = plan.devices[0] if plan.devices else None
    available = readings.smallest("kv_cache_available")
    if device is not None:
        rows.append(_row("budget", exact(device.budget_bytes), readings.largest("requested")))
        others = total(part.bytes for part in device.components if part.name != "kv_cache")
        room = Quantity(
            max(0, device.budget_bytes - others.high),
            max(0, device.budget_bytes - others.expected),
            max(0, device.budget_bytes - others.low),
            others.basis,
        )
        rows.append(_row("kv_cache_available", room, available))
        rows.append(
            _row("kv_cache_needed", component(device, "kv_cache"), readings.largest("kv_cache_needed"))
        )
    found = [row for row in rows if row is not None]
    if available is not None:
        found += _pool_counts(readings, available, replan)
    return found


def _pool_counts(readings: Readings, available: Reading, replan: Replan) -> list[Comparison]:
    """Compare tokens and concurrency for the memory that the log itself says was available."""
    bounds = [
        replan({"kv_cache_memory_bytes": max(1, available.num_bytes + change)})
        for change in (-available.rounding_bytes, 0, available.rounding_bytes)
    ]
    rows: list[Comparison] = []
    why = "for the memory that the log says was available"
    tokens = [plan.kv_cache_tokens for plan in bounds]
    low, middle, high = tokens
    if low is not None and middle is not None and high is not None:
        said = readings.counts.get("kv_cache_tokens")
        if said is not None:
            rows.append(
                Comparison("kv_cache_tokens", "", "tokens", low, middle, high, "exact", said, 0, why=why)
            )
    most = [plan.max_concurrency for plan in bounds]
    if None not in most and "max_concurrency" in readings.counts:
        first, second, third = (value or 0.0 for value in most)
        rows.append(
            Comparison(
                "max_concurrency", "", "requests", first, second, third, "exact",
                readings.counts["max_concurrency"], 0.005, why=why,
            )
        )  # fmt: skip
    blocks = [plan.cache.num_blocks for plan in bounds]
    if None not in blocks and "num_blocks" in readings.counts:
        least, usual, largest = (float(value or 0) for value in blocks)
        rows.append(
            Comparison(
                "num_blocks",
                "",
                "blocks",
                least,
                usual,
                largest,
                "exact",
                readings.counts["num_blocks"],
                why=why,
            )
        )
    return rows


def _sglang(plan: Plan, readings: Readings) -> list[Comparison]:
    """Compare SGLang's cells: pool bytes a token are exact whatever the pool's size."""
    keys, values = readings.largest("kv_cache_k"), readings.largest("kv_cache_v")
    pool = readings.largest("kv_cache")
    tokens = readings.counts.get("kv_cache_tokens")
    rows: list[Comparison] = []
    if keys is not None and values is not None:
        pool = Reading(
            "kv_cache",
            keys.num_bytes + values.num_bytes,
            keys.rounding_bytes + values.rounding_bytes,
            keys.device,
        )
    if pool is not None and tokens and "swa_tokens" not in readings.counts and plan.cache.bytes_per_token:
        ranks = max(1, plan.parallel.tensor)
        each = exact(int(plan.cache.bytes_per_token * tokens))
        shared = Quantity(each.low // ranks, each.expected // ranks, each.high, "exact")
        rows.append(
            of_quantity(
                "kv_cache", shared, pool.num_bytes, rounding=pool.rounding_bytes, where=pool.device,
                why="bytes of the printed tokens; whole or divided over the ranks",
            )
        )  # fmt: skip
    planned = plan.kv_cache_tokens
    if planned is not None and tokens:
        rows.append(
            Comparison(
                "kv_cache_tokens", "", "tokens", planned, planned, planned, "calibrated", tokens, 0,
                decides=False, why="from the planned budget",
            )
        )  # fmt: skip
    return rows


def _llama_cpp(plan: Plan, readings: Readings) -> tuple[Comparison, ...]:
    rows: list[Comparison | None] = []
    names = [reading.device for reading in readings.of("weights") if is_gpu(reading.device)]
    for index, name in enumerate(sorted(set(names))):
        device = plan.devices[index] if index < len(plan.devices) else None
        for said in ("weights", "kv_cache_buffer", "recurrent_state_buffer", "activations"):
            reading = next((one for one in readings.of(said) if one.device == name), None)
            part = said.removesuffix("_buffer")
            planned = component(device, part) if device else None
            if part == "weights" and _is_converted(plan):
                rows.append(_row(part, None, reading, why=FILE_TYPE_UNKNOWN))
                continue
            rows.append(_row(part, planned, reading))
    rows += _whole_cache(plan, readings)
    if not names:
        host = {part.name: part.bytes for part in plan.host}
        # The memory table's row of the host repeats what the loader's buffers say more finely.
        buffers = [reading for reading in readings.of("weights") if not is_gpu(reading.device)]
        weights = [reading for reading in buffers if reading.device != "Host"] or buffers
        if weights:
            held = Reading(
                "weights",
                sum(reading.num_bytes for reading in weights),
                sum(reading.rounding_bytes for reading in weights),
                "CPU",
            )
            if _is_converted(plan):
                rows.append(_row("weights", None, held, why=FILE_TYPE_UNKNOWN))
            else:
                rows.append(_row("weights", host.get("weights"), held))
        compute = next((one for one in readings.of("activations") if one.device.startswith("CPU")), None)
        rows.append(_row("activations", host.get("activations"), compute))
    return tuple(row for row in rows if row is not None)


def _is_converted(plan: Plan) -> bool:
    """Tell whether nobody says which GGUF mix was loaded, so that the planned weights are a stand-in."""
    return any(notice.code == "weights-converted" for notice in plan.warnings)


def _whole_cache(plan: Plan, readings: Readings) -> list[Comparison | None]:
    states = plan.cache.state_bytes_per_sequence * plan.num_sequences
    whole = plan.cache.total
    attention = Quantity(
        whole.low - states, whole.expected - states, whole.high - states, whole.basis, whole.why
    )
    said = readings.of("kv_cache")
    rows: list[Comparison | None] = []
    if said:
        held = Reading(
            "kv_cache",
            sum(reading.num_bytes for reading in said),
            sum(reading.rounding_bytes for reading in said),
        )
        rows.append(_row("kv_cache", attention, held, where="all devices"))
    recurrent = readings.largest("recurrent_state")
    if recurrent is not None:
        rows.append(_row("recurrent_state", exact(states), recurrent))
    return rows
