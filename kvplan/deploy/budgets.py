"""Budgets: what a deployment must keep to beside fitting."""

from kvplan.deploy.settings import Budget
from kvplan.engines.base import Plan
from kvplan.judge import Verdict
from kvplan.units import format_gib, format_tokens


def broken_budgets(result: Plan, verdict: Verdict, budget: Budget) -> tuple[str, ...]:
    """Return the budgets that a plan breaks, each in words."""
    broken: list[str] = []
    if budget.min_headroom_bytes is not None and verdict.headroom_bytes < budget.min_headroom_bytes:
        broken.append(
            f"min_headroom {format_gib(budget.min_headroom_bytes)}: {format_gib(verdict.headroom_bytes)} left"
        )
    if budget.max_kv_bytes is not None and result.cache.total.expected > budget.max_kv_bytes:
        broken.append(
            f"max_kv_gib {budget.max_kv_bytes / 2**30:g}: "
            f"the cache takes {format_gib(result.cache.total.expected)}"
        )
    if budget.min_context_tokens is not None and result.context_tokens < budget.min_context_tokens:
        broken.append(
            f"min_context {format_tokens(budget.min_context_tokens)}: "
            f"{format_tokens(result.context_tokens)} configured"
        )
    if budget.min_concurrency is not None:
        concurrency = concurrency_of(result)
        if concurrency is not None and concurrency < budget.min_concurrency:
            broken.append(
                f"min_concurrency {budget.min_concurrency:g}: "
                f"{concurrency:.2f} requests of full length at once"
            )
    return tuple(broken)


def concurrency_of(result: Plan) -> float | None:
    """Return how many requests of full length run at once, None where the engine does not say."""
    if result.max_concurrency is not None:
        return float(result.max_concurrency)
    return float(result.num_sequences) if result.engine_name in ("llama.cpp", "ollama") else None
