"""Published models' shapes under settings drawn at random: every part equals llama.cpp's own breakdown."""

import pytest
from gguf_tables import model_of
from llama_cpp_runs import settings_of, shares_of
from oracle_tables import oracle

from kvplan.engines.llama_cpp.compute import compute_buffers
from kvplan.engines.llama_cpp.placement import place
from kvplan.engines.llama_cpp.use import cells_for

# Norms of whole rows of queries and keys that are copied to a card: 20 kB.
A_LITTLE_OFF = ("minimax-m2",)
TABLES = oracle("llama_cpp_trials.jsonl")


@pytest.mark.parametrize("table", TABLES, ids=[table["model"] for table in TABLES])
def test_every_part_is_llama_cpps_own(table):
    model = model_of(table)
    for values in table["rows"]:
        row = dict(zip(table["columns"], values, strict=True))
        settings, cards = settings_of(row), row["num_cards"]
        shares = shares_of(row, settings) if cards else ()
        placed = place(model, table["mix"], settings, shares, "cuda" if cards else "cpu")
        buffers = compute_buffers(model, table["mix"], settings, cells_for(model, settings), shares)
        held = (*placed.devices, placed.host)
        assert [each.weight_bytes for each in held] == row["weights"], row
        assert [each.cache_bytes + each.state_bytes for each in held] == row["caches"], row
        planned = [each.expected for each in (*buffers.cards, buffers.host)]
        printed = [*row["cards"], row["host"]]
        if row["n_gpu_layers"] < 999 and table["model"] in A_LITTLE_OFF:
            assert planned == pytest.approx(printed, rel=0.001), row
        else:
            assert planned == printed, row
