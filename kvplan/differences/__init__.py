"""Why two plans differ: between engines (``explain``), and between models, cards, loads and formats."""

from kvplan.differences.between_engines import explain

__all__ = ["explain"]
