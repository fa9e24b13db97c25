"""What was typed, put over what a policy says: flags win, mappings are joined."""

from dataclasses import replace
from typing import Any, TypeVar

from kvplan.deploy.settings import Budget, Settings
from kvplan.judge import Rules

T = TypeVar("T", Rules, Budget)


def typed_over(base: Settings, flags: Settings) -> Settings:
    """Return ``base`` with everything that ``flags`` set."""
    empty, rules, budget = Settings(), Rules(), Budget()
    changes: dict[str, Any] = {
        name: getattr(flags, name)
        for name in ("gpus", "engine", "reserve_bytes", "cpu_memory_bytes", "num_sequences", "offline")
        if getattr(flags, name) != getattr(empty, name)
    }
    changes["models"] = {**base.models, **flags.models}
    changes["gpu_names"] = {**base.gpu_names, **flags.gpu_names}
    changes["rules"] = _over(base.rules, flags.rules, rules)
    changes["budget"] = _over(base.budget, flags.budget, budget)
    return replace(base, **changes)


def _over(base: T, typed: T, empty: T) -> T:
    names = [name for name in typed.__dataclass_fields__ if getattr(typed, name) != getattr(empty, name)]
    return replace(base, **{name: getattr(typed, name) for name in names})
