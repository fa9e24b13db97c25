"""transformers' caches equal what was measured on real caches, in bytes."""

import ast
import re

import pytest
from oracle_tables import oracle

from kvplan.engines.transformers import TransformersEngine
from kvplan.sources.config_model import model_from_config
from kvplan.workload import Workload

TABLES = oracle("transformers_cache.jsonl")
WEIGHTS = {"float32": "fp32", "bfloat16": "bf16"}


def options_of(row):
    implementation = row["implementation"]
    if implementation == "StaticCache":
        return (("cache_implementation", "static"), ("cache_config", {"max_cache_len": row["max_cache_len"]}))
    if implementation.startswith("QuantizedCache"):
        backend, text = re.match(r"QuantizedCache\[(\w+),(.*)\]\(", implementation).groups()
        config = {"backend": backend, **ast.literal_eval(text)}
        config = {key: value for key, value in config.items() if not key.startswith("axis")}
        return (("cache_implementation", "quantized"), ("cache_config", config))
    return ()


@pytest.mark.parametrize("table", TABLES, ids=[f"{t['model_class']}-{i}" for i, t in enumerate(TABLES)])
def test_caches_equal_the_measured_bytes(table):
    model = model_from_config(table["config"], name=table["model_class"], source="test")
    for values in table["rows"]:
        row = dict(zip(table["columns"], values, strict=True))
        if row["implementation"].startswith("Quantized") and "decode" in row["implementation"]:
            continue  # how much of the text was the prompt decides there, and a plan does not know it
        workload = Workload(
            context_tokens=row["ctx"],
            num_sequences=row["batch"],
            weights_format=WEIGHTS[row["dtype"]],
            encoder_tokens=row["encoder_len"],
            engine_options=options_of(row),
        )
        cache = TransformersEngine().plan(model, workload, ()).cache
        assert cache.total.expected == row["cache_bytes"], row
        if "decode" not in row["implementation"]:
            assert cache.peak_bytes == max(row["storage_bytes"], row["cache_bytes"]), row
