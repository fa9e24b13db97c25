"""The answer of ``kvplan check``."""

from dataclasses import dataclass

from kvplan.deploy.rows import CheckResult


@dataclass(frozen=True, slots=True)
class CheckAnswer:
    """What was checked, and the exit code it ends in."""

    result: CheckResult
    exit_code: int
