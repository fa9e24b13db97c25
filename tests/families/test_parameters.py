"""Parameter counts and caches from the config alone equal those of the real classes."""

import pytest
from oracle_tables import oracle

from kvplan.config import Config
from kvplan.dtypes import KV_FORMATS
from kvplan.families import structure_of
from kvplan.layers import SlidingWindow
from kvplan.model import num_active_parameters, num_parameters
from kvplan.sources.config_model import model_from_config
from kvplan.textbook import cache_bytes

ROWS = oracle("parameters.jsonl")


@pytest.mark.parametrize("row", ROWS, ids=[row["model"] for row in ROWS])
def test_parameters_equal_the_instantiated_class(row):
    structure = structure_of(Config(row["config"], origin=row["model"]), row["config"]["model_type"])
    assert num_parameters(structure) == row["total"]
    assert num_active_parameters(structure) == row["active"]


@pytest.mark.parametrize("row", ROWS, ids=[row["model"] for row in ROWS])
def test_cache_equals_the_measured_rule(row):
    if row["cache_bf16"] is None:
        assert row["total"] > 0
        return
    model = model_from_config(row["config"], name=row["model"], source="test")
    wide = KV_FORMATS["bf16"]
    for ctx, expected in row["cache_bf16"].items():
        tokens, amount = int(ctx), 0
        for group in model.layers:
            for cache in group.layer.caches:
                # transformers keeps one token less than the window.
                held = min(tokens, cache.sliding_window - 1) if isinstance(cache, SlidingWindow) else tokens
                amount += cache_bytes(cache, held, wide, wide) * group.count
        assert amount == expected, f"{row['model']} at {ctx}"
