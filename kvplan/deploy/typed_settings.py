"""What was typed, put over what a policy says: flags win, mappings are joined."""

from collections.abc import Mapping
from dataclasses import field, replace
from typing import Any

from kvplan.deploy.settings import ModelChoice, Settings
from kvplan.frozen import dataclass


@dataclass(frozen=True, slots=True)
class Typed:
    """Fields of the settings, of their rules and of their budget; absent where nothing was typed."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    models: Mapping[str, ModelChoice] = field(default_factory=dict)
    rules: Mapping[str, bool] = field(default_factory=dict)
    budget: Mapping[str, Any] = field(default_factory=dict)

    def over(self, base: Settings) -> Settings:
        """Return ``base`` with everything that was typed."""
        return replace(
            base,
            models={**base.models, **self.models},
            rules=replace(base.rules, **self.rules),
            budget=replace(base.budget, **self.budget),
            **self.settings,
        )
