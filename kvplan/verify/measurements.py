"""What a log or a running server tells for later plans: an overhead, or the pool that it holds."""

from kvplan.calibration import CACHE_COMPONENTS, SCOPE_OPTIONS, CacheMeasurement, Measurement
from kvplan.engines.base import Plan
from kvplan.verify.log_comparison import Replan, component
from kvplan.verify.readings import Readings
from kvplan.verify.server_comparison import block_bytes

# What ``--overhead`` stands for under vLLM: all that is measured beside weights and cache.
OVERHEAD = ("activations", "runtime", "cuda_graphs")
# Either of these makes the pool, whatever the budget leaves.
FIXED_POOL = ("kv_cache_memory_bytes", "num_gpu_blocks_override")
# A pool further from its tokens' bytes is another model's, or one whose layout is not the plan's.
MOST_PERCENT_OFF = 5


def scope_of(plan: Plan) -> tuple[tuple[str, object], ...]:
    """Return the settings that an overhead follows: it holds for the same ones only."""
    options = dict(plan.engine_options)
    return tuple((name, options[name]) for name in SCOPE_OPTIONS if name in options)


def of_log(plan: Plan, readings: Readings, *, when: str) -> Measurement | None:
    """Return the overhead that a log tells of, None where it does not.

    vLLM's is what its profile run found beside the weights, for that model and scheduler; llama.cpp's
    is what its memory table cannot account for, whatever the model.
    """
    if not plan.devices:
        return None
    device = plan.devices[0]
    if readings.engine == "vllm":
        parts = [readings.largest(name) for name in ("activations", "non_torch")]
        known = [part.num_bytes for part in parts if part is not None]
        if len(known) < len(parts):
            return None
        planned = [component(device, name) for name in OVERHEAD]
        if planned[2] is not None:
            graphs = readings.largest("cuda_graphs") or readings.largest("cuda_graphs_estimated")
            known.append(graphs.num_bytes if graphs is not None else planned[2].expected)
        before = sum(part.expected for part in planned if part is not None)
        return _vllms(plan, sum(known), before, when)
    rest = readings.largest("unaccounted")
    runtime = component(device, "runtime")
    if rest is None or runtime is None:
        return None
    return Measurement(
        device.device.name, plan.engine_name, readings.version, rest.num_bytes, runtime.expected, when=when
    )


def of_blocks(plan: Plan, readings: Readings, replan: Replan, *, when: str) -> Measurement | None:
    """Return what lies beside weights and blocks on a vLLM server, None for others.

    vLLM gives its blocks all that its budget leaves, so the budget less blocks and weights is the
    rest, to a block. Not where a flag fixes the pool.
    """
    blocks = readings.counts.get("num_blocks")
    if readings.engine != "vllm" or not blocks or not plan.devices:
        return None
    if any(plan.workload.option(name) or readings.settings.get(name) for name in FIXED_POOL):
        return None
    device = plan.devices[0]
    each = block_bytes(replan)
    others = (*OVERHEAD, *CACHE_COMPONENTS)
    held = sum(part.bytes.expected for part in device.components if part.name not in others)
    rest = device.budget_bytes - held - int(blocks) * each
    if not each or rest < 0:
        return None
    before = sum(part.bytes.expected for part in device.components if part.name in OVERHEAD)
    return _vllms(plan, rest, before, when)


def of_pool(plan: Plan, readings: Readings, *, when: str) -> CacheMeasurement | None:
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
        # What lies within the last printed digit is the same.
        measured_bytes=planned if off <= pool.rounding_bytes else pool.num_bytes,
        model=plan.model.name,
        when=when,
    )


def _vllms(plan: Plan, overhead_bytes: int, planned_bytes: int, when: str) -> Measurement:
    return Measurement(
        device=plan.devices[0].device.name,
        engine="vllm",
        version=plan.engine_version,
        overhead_bytes=overhead_bytes,
        planned_bytes=planned_bytes,
        model=plan.model.name,
        options=scope_of(plan),
        when=when,
    )
