"""Why a plan fails or is in doubt, what would do, and which flags decided."""

from kvplan.deploy.planning import CONTEXT_OPTIONS
from kvplan.engines.base import Engine, Plan
from kvplan.judge import Verdict
from kvplan.solve import limits

# What decides a failed test: the options to point at, the first that was given.
DECISIVE: dict[str, tuple[str, ...]] = {
    "heads-not-divisible": ("tensor_parallel_size", "tp_size"),
    "vocabulary-not-divisible": ("tensor_parallel_size", "tp_size"),
    "too-few-layers": ("pipeline_parallel_size", "pp_size"),
    "context-exceeds-model": CONTEXT_OPTIONS,
    "free_at_start": ("gpu_memory_utilization", "mem_fraction_static"),
    "outside_pool": ("gpu_memory_utilization", "mem_fraction_static"),
    "host_memory": ("n_cpu_moe", "cpu_moe", "n_gpu_layers"),
}

# Notices of what was not read and stands as an interval.
OPEN_FACTS = ("draft-assumed",)


def decisive(result: Plan, verdict: Verdict, fix: str) -> tuple[str, ...]:
    """Return the options to point at, the first that was given counts."""
    if result.refusals:
        return DECISIVE.get(result.refusals[0].code, ())
    if verdict.check in DECISIVE:
        return DECISIVE[verdict.check]
    shorter = CONTEXT_OPTIONS if "tokens" in fix else ()
    return (
        *shorter,
        "tensor_parallel_size",
        "tp_size",
        "gpu_memory_utilization",
        "mem_fraction_static",
        "n_gpu_layers",
        "max_model_len",
    )


def explained(result: Plan, verdict: Verdict, engine: Engine) -> tuple[str, str]:
    """Return (why it fails or is in doubt, what would do); empty for what fits."""
    if result.refusals:
        return result.refusals[0].message, result.refusals[0].fix
    if verdict.status == "unknown":
        return verdict.why, "--gpu GPU or --cpu-memory SIZE"
    if verdict.status == "tight":
        return "fits as expected, but the uncertainty reaches over the limit", ""
    if verdict.status == "offload":
        return "weights or cache lie in system memory: it runs, slowly", ""
    if verdict.status == "fits":
        return "", ""
    devices = tuple(part.device for part in result.devices)
    found = limits(result, devices, engine)
    why = verdict.why or "weights, overhead and cache exceed the budget"
    if found.max_context_tokens:
        return why, f"{found.max_context_tokens} tokens fit"
    weights = sum(part.bytes.expected for part in result.devices[0].components if part.name == "weights")
    if result.devices and weights > result.devices[0].budget_bytes:
        why = "the weights alone exceed the budget"
    return why, ""


def unproven(result: Plan, verdict: Verdict) -> str | None:
    """Return the fact that a failure hangs on and that the file leaves open, None for a proven one.

    A draft that was not read is an interval: what fails only above its lower bound may run.
    """
    if verdict.status != "does_not_fit" or result.refusals:
        return None
    fails_anyway = any(
        check.required.low > check.limit_bytes for device in result.devices for check in device.checks
    )
    # What to type is another thing here than in fit.
    open_facts = [
        notice.message.partition("; --")[0] for notice in result.warnings if notice.code in OPEN_FACTS
    ]
    return None if fails_anyway or not open_facts else open_facts[0]
