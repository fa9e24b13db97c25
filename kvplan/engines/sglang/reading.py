"""How an option's value is read from the engine's own command line."""


def whole_or_none(value: object) -> int | None:
    """Return a whole number, None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def share_or(value: object, default: float) -> float:
    """Return a real number, ``default`` for anything else."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else default
