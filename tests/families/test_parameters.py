"""Parameter counts and caches from the config alone equal those of the real classes."""

import pytest
from oracle_tables import oracle

from kvplan.engines import engine_named
from kvplan.model import num_active_parameters, num_parameters
from kvplan.plan import plan
from kvplan.sources.config_model import model_from_config
from kvplan.workload import Workload

ROWS = oracle("parameters.jsonl")


@pytest.mark.parametrize("row", ROWS, ids=[row["model"] for row in ROWS])
def test_parameters_equal_the_instantiated_class(row):
    structure = model_from_config(row["config"], name=row["model"], source="test").structure
    assert num_parameters(structure) == row["total"]
    assert num_active_parameters(structure) == row["active"]


@pytest.mark.parametrize("row", [row for row in ROWS if row["cache_bf16"]], ids=lambda row: row["model"])
def test_cache_equals_the_closed_form_of_the_classes(row):
    model = model_from_config(row["config"], name=row["model"], source="test")
    engine = engine_named("transformers")
    for ctx, expected in row["cache_bf16"].items():
        asked = Workload(context_tokens=int(ctx), context_source="flag", weights_format="bf16")
        assert plan(model, asked, (), engine).cache.bytes_per_sequence == expected, ctx
