"""A running server's figures against the plan's, and how full its cache is."""

from kvplan.calibration import CacheMeasurement, Measurement
from kvplan.engines.base import DevicePlan, Plan
from kvplan.quantity import exact, total
from kvplan.verify.comparison import Comparison, of_quantity
from kvplan.verify.log_comparison import Replan, compare, scope_of
from kvplan.verify.readings import Readings

PEBIBYTE = 2**50
# A pool further from its tokens' bytes is another model's, or one whose layout is not the plan's.
MOST_PERCENT_OFF = 5


def compare_server(plan: Plan, readings: Readings, replan: Replan) -> tuple[Comparison, ...]:
    """Return every figure that the server tells and the plan has."""
    if readings.engine == "vllm":
        return _vllm_blocks(plan, readings, replan)
    if readings.engine == "ollama":
        return _ollama(plan, readings)
    rows = compare(plan, readings, replan)
    if readings.engine == "llama.cpp":
        size = readings.largest("weights_file")
        if size is not None:
            rows += (of_quantity("weights", plan.weights, size.num_bytes, why="tensor bytes of the file"),)
        # The server tells its slots, not its buffers: what it holds is what the plan says they take.
        rows += (
            of_quantity("kv_cache", plan.cache.total, None, decides=False, why="not told by the server"),
        )
    return rows


def facts_of(plan: Plan, readings: Readings, replan: Replan) -> dict[str, object]:
    """Return how full the cache is now, in tokens and bytes where they follow."""
    facts: dict[str, object] = {
        "engine": readings.engine,
        "version": readings.version or None,
        "model": readings.model or None,
    }
    for name in ("requests_running", "requests_waiting", "n_parallel"):
        if name in readings.counts:
            facts[name] = int(readings.counts[name])
    used = readings.counts.get("cache_used_fraction")
    held_tokens, cells = readings.counts.get("cache_used_tokens"), dict(plan.engine_options).get("n_ctx")
    if used is None and held_tokens is not None and isinstance(cells, int) and cells:
        used = held_tokens / cells
    if used is None:
        return facts
    facts["cache_used_percent"] = round(100 * used, 2)
    held = _cache_bytes(plan, readings, replan)
    if held:
        facts["cache_bytes"] = held
        facts["cache_used_bytes"] = round(used * held)
    return facts


def overhead_measurement_of(
    plan: Plan, readings: Readings, replan: Replan, *, when: str
) -> Measurement | None:
    """Return what lies beside weights and blocks on a vLLM server, None for others.

    vLLM gives its blocks all that its budget leaves, so the budget less weights and blocks is the
    rest, to a block. Not where a flag fixes the pool.
    """
    blocks = readings.counts.get("num_blocks")
    fixed = ("kv_cache_memory_bytes", "num_gpu_blocks_override")
    if readings.engine != "vllm" or not blocks or not plan.devices:
        return None
    if any(plan.workload.option(name) or readings.settings.get(name) for name in fixed):
        return None
    device = plan.devices[0]
    each = _block_bytes(replan)
    held = (
        *_expected(device, "weights"),
        *_expected(device, "adapters"),
        *_expected(device, "other_processes"),
    )
    rest = device.budget_bytes - sum(held) - int(blocks) * each
    if not each or rest < 0:
        return None
    planned = sum(
        amount for name in ("activations", "runtime", "cuda_graphs") for amount in _expected(device, name)
    )
    return Measurement(
        device.device.name, "vllm", plan.engine_version, rest, planned, plan.model.name, scope_of(plan), when
    )


def cache_measurement_of(plan: Plan, readings: Readings, *, when: str) -> CacheMeasurement | None:
    """Return the pool that an SGLang server says it holds against its tokens' bytes, None for others."""
    pool, tokens = readings.largest("kv_cache"), readings.counts.get("kv_cache_tokens")
    if readings.engine != "sglang" or pool is None or not tokens or not plan.devices:
        return None
    # The pool has a page more than its tokens; latents are whole on every rank, heads are divided.
    whole = int(plan.cache.bytes_per_token * (tokens + (plan.cache.block_size or 0)))
    parts = (whole, whole // max(1, plan.parallel.tensor))
    planned = min(parts, key=lambda amount: abs(amount - pool.num_bytes))
    off = abs(pool.num_bytes - planned)
    if off * 100 > planned * MOST_PERCENT_OFF:
        return None
    return CacheMeasurement(
        device=plan.devices[0].device.name,
        engine="sglang",
        version=plan.engine_version,
        planned_bytes=planned,
        # Printed to a hundredth of a GiB: what lies within that is the same.
        measured_bytes=planned if off <= pool.rounding_bytes else pool.num_bytes,
        model=plan.model.name,
        when=when,
    )


def _expected(device: DevicePlan, name: str) -> tuple[int, ...]:
    return tuple(part.bytes.expected for part in device.components if part.name == name)


def _block_bytes(replan: Replan) -> int:
    # So many blocks fit in a pebibyte that the quotient is one block's bytes.
    in_all = replan({"kv_cache_memory_bytes": PEBIBYTE}).cache.num_blocks
    return round(PEBIBYTE / in_all) if in_all else 0


def _cache_bytes(plan: Plan, readings: Readings, replan: Replan) -> int | None:
    pool = readings.largest("kv_cache")
    if pool is not None:
        return pool.num_bytes
    if readings.engine == "llama.cpp":
        return plan.cache.total.expected
    blocks = readings.counts.get("num_blocks")
    if not blocks:
        return None
    return int(blocks) * _block_bytes(replan) or None


def _vllm_blocks(plan: Plan, readings: Readings, replan: Replan) -> tuple[Comparison, ...]:
    said = readings.counts.get("num_blocks")
    if said is None:
        return ()
    fixed = _fixed_blocks(plan, readings, replan)
    if fixed is not None:
        why = "a flag fixes the pool"
        return (Comparison("num_blocks", "", "blocks", fixed, fixed, fixed, "exact", said, why=why),)
    if not plan.devices:
        return (
            Comparison("num_blocks", "", "blocks", measured=said, decides=False, why="name the GPU: --gpu"),
        )
    device = plan.devices[0]
    others = total(part.bytes for part in device.components if part.name != "kv_cache")
    bounds: list[float] = []
    for amount in (others.high, others.expected, others.low):
        changed = replan({"kv_cache_memory_bytes": max(1, device.budget_bytes - amount)})
        bounds.append(float(changed.cache.num_blocks or 0))
    low, expected, high = bounds
    return (
        Comparison(
            "num_blocks", "", "blocks", low, expected, high, others.basis, said, 0,
            why="from the planned budget",
        ),
    )  # fmt: skip


def _fixed_blocks(plan: Plan, readings: Readings, replan: Replan) -> int | None:
    """Return the blocks that a flag fixes whatever the card's size, None where none does."""
    for name in ("num_gpu_blocks_override", "kv_cache_memory_bytes"):
        value = plan.workload.option(name) or readings.settings.get(name)
        if isinstance(value, int) and value > 0:
            if name == "num_gpu_blocks_override":
                return value
            each = _block_bytes(replan)
            return value // each if each else None
    return None


def _ollama(plan: Plan, readings: Readings) -> tuple[Comparison, ...]:
    rows: list[Comparison] = []
    whole = readings.largest("whole")
    everything = total(
        part.bytes
        for place in (*(device.components for device in plan.devices), plan.host)
        for part in place
        if part.name != "runtime"
    )
    if whole is not None:
        rows.append(of_quantity("everything", everything, whole.num_bytes, why="weights, cache and graph"))
    on_gpu = readings.largest("on_gpu")
    if on_gpu is not None and plan.devices:
        parts = total(
            part.bytes for device in plan.devices for part in device.components if part.name != "runtime"
        )
        rows.append(of_quantity("on_gpu", parts, on_gpu.num_bytes))
    elif on_gpu is not None:
        rows.append(of_quantity("on_gpu", exact(0) if not on_gpu.num_bytes else None, on_gpu.num_bytes))
    return tuple(rows)
