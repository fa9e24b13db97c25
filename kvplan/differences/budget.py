"""Why the budgets of two plans differ: what each is a share of, what lies inside, what is left free."""

from collections.abc import Iterator

from kvplan.differences.reason import SMALLEST_BYTES, Names, Reason, largest, pair, size
from kvplan.engines.base import ComponentName, Plan
from kvplan.engines.releases import release_numbers

# What each engine's budget is, and the option that sets its share of it.
BUDGET_BASES: dict[str, tuple[str, str]] = {
    "vllm": ("gpu_memory_utilization", "of the card's total, graphs and activations inside"),
    "sglang": ("mem_fraction_static", "of what is free before the weights, graphs and activations beside"),
    "tgi": ("wiggle_room", "of the card's total, the warm-up's activations inside"),
    "ollama": ("", "all that is free, less its reserve"),
    "ideal": ("", "the whole card"),
}
ALL_FREE = "all that is free"
# Engines whose cache gets a share of what is free once the model is loaded: the option.
SHARES: dict[str, str] = {
    "tensorrt-llm": "free_gpu_memory_fraction",
    "lmdeploy": "cache_max_entry_count",
    "tgi": "wiggle_room",
}
# TGI's share was of what its warm-up left until 3.0, of the card's total since.
TGI_OF_TOTAL = (3, 0)
RESERVED: tuple[ComponentName, ...] = (
    "activations",
    "cuda_graphs",
    "runtime",
    "communication",
    "multimodal",
    "draft_model",
    "adapters",
)


def reserved(a: Plan, b: Plan, names: Names) -> Iterator[Reason]:
    """Compare what lies inside the budget beside weights and cache."""
    if not (a.devices and b.devices):
        return
    first, second = (sum(largest(plan, name) for name in RESERVED) - left_free(plan) for plan in (a, b))
    if abs(first - second) < SMALLEST_BYTES:
        return
    parts = [", ".join(_present(plan)) for plan in (a, b)]
    text = pair(
        "inside the budget beside weights and cache",
        names,
        size(first) + (f" ({parts[0]})" if parts[0] else ""),
        size(second) + (f" ({parts[1]})" if parts[1] else ""),
    )
    yield Reason(abs(first - second), text)


def unused(a: Plan, b: Plan, names: Names) -> Iterator[Reason]:
    """Compare the share of free memory that an engine takes for nothing."""
    free = left_free(a), left_free(b)
    if abs(free[0] - free[1]) < SMALLEST_BYTES:
        return
    notes = [f" ({_share(plan)})" if left_free(plan) else "" for plan in (a, b)]
    text = pair("left free on one GPU", names, f"{size(free[0])}{notes[0]}", f"{size(free[1])}{notes[1]}")
    yield Reason(abs(free[0] - free[1]), text)


def budget(a: Plan, b: Plan, names: Names) -> Iterator[Reason]:
    """Compare the budgets of one GPU, and what they are a share of."""
    if not (a.devices and b.devices):
        return
    budgets = a.devices[0].budget_bytes, b.devices[0].budget_bytes
    if abs(budgets[0] - budgets[1]) < SMALLEST_BYTES:
        return
    text = pair(
        "budget on one GPU", names, f"{size(budgets[0])} ({_base(a)})", f"{size(budgets[1])} ({_base(b)})"
    )
    yield Reason(abs(budgets[0] - budgets[1]), text)


def left_free(plan: Plan) -> int:
    """Return what the first device's engine leaves free of its budget by a share."""
    amounts = dict(plan.details).get("left_free")
    first = next(iter(amounts), 0) if isinstance(amounts, tuple) else 0
    return first if isinstance(first, int) else 0


def _present(plan: Plan) -> list[str]:
    return [name.replace("_", " ") for name in RESERVED if largest(plan, name)]


def _share(plan: Plan) -> str:
    value = dict(plan.engine_options).get(SHARES.get(plan.engine_name, ""))
    if not isinstance(value, int | float) or value >= 1:
        return "blocks beyond the load"
    return f"the cache gets {value:.3g} of what is free once the model is loaded"


def _base(plan: Plan) -> str:
    option, base = BUDGET_BASES.get(plan.engine_name, ("", ALL_FREE))
    device = plan.devices[0]
    if plan.engine_name == "tgi" and (
        release_numbers(plan.engine_version, 2) < TGI_OF_TOTAL
        or device.budget_bytes >= device.device.usable_bytes
    ):
        # A load that the warm-up's own blocks hold is not held against the share.
        option, base = "", ALL_FREE
    value = dict(plan.engine_options).get(option) if option else None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:.3g} {base}"
    return base
