"""A running server's figures against the plan's, and how full its cache is."""

from kvplan.engines.base import Plan
from kvplan.quantity import exact, total
from kvplan.verify.comparison import Comparison, of_quantity
from kvplan.verify.log_comparison import Replan, compare
from kvplan.verify.readings import Readings

PEBIBYTE = 2**50


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


def block_bytes(replan: Replan) -> int:
    """Return one vLLM block's bytes, 0 where the model has none."""
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
    return int(blocks) * block_bytes(replan) or None


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
            each = block_bytes(replan)
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
