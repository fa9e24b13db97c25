"""What ``kvplan verify`` found: planned against measured, line by line."""

from collections.abc import Mapping
from dataclasses import field
from typing import Literal

from kvplan.engines.base import Notice, Plan
from kvplan.frozen import dataclass
from kvplan.verify.comparison import Comparison, Outcome


@dataclass(frozen=True, slots=True)
class VerifyAnswer:
    """The answer of ``kvplan verify``.

    ``mode`` says against what; ``subject`` is the question in one line; ``explanation`` says what
    makes the difference; ``facts`` are what was read or measured beside the comparisons (device,
    version, seconds, bytes left), by stable names.
    """

    mode: Literal["allocation", "transformers", "log", "server"]
    subject: str
    outcome: Outcome
    exit_code: int
    rows: tuple[Comparison, ...]
    plan: Plan | None = None
    explanation: tuple[str, ...] = ()
    facts: Mapping[str, object] = field(default_factory=dict)
    warnings: tuple[Notice, ...] = ()
