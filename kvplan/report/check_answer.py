"""The answer of ``kvplan check``."""

from kvplan.deploy.rows import CheckResult
from kvplan.frozen import dataclass


@dataclass(frozen=True, slots=True)
class CheckAnswer:
    """What was checked, and the exit code it ends in."""

    result: CheckResult
    exit_code: int
