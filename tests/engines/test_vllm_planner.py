"""vLLM's groups, blocks, tokens and refusals equal those of its own planner, from the config on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle_tables import oracle
from vllm_cases import differences

from kvplan.engines.vllm.groups import PoolRules, pool_layout
from kvplan.engines.vllm.kv_dtypes import KV_DTYPES, TURBOQUANT, head_row_bytes
from kvplan.engines.vllm.pages import LayerSpec
from kvplan.engines.vllm.pool import estimated_max_model_len

ROWS = oracle("vllm_planner.jsonl")
MIXED = [
    (LayerSpec("sliding", 4096, window=1024), 20),
    (LayerSpec("full", 4096), 10),
    (LayerSpec("mamba", state_bytes=10**6), 7),
]


@pytest.mark.parametrize("row", ROWS, ids=[f"{row['id']}-{row['model']}" for row in ROWS])
def test_the_plan_equals_vllms_planner(row):
    assert differences(row, row["config"]) == []


@given(st.integers(0, 2**40), st.integers(0, 2**30))
def test_more_memory_never_gives_fewer_blocks(available, more):
    layout = pool_layout([MIXED], PoolRules())
    assert layout.num_blocks([available]) <= layout.num_blocks([available + more])


@given(st.integers(1, 200_000), st.integers(1, 5_000), st.integers(1, 8192), st.integers(0, 16_384))
def test_more_context_never_needs_fewer_blocks(tokens, more, window, in_flight):
    layers = [(LayerSpec("sliding", 4096, window=window), 20), *MIXED[1:]]
    layout = pool_layout([layers], PoolRules())
    assert layout.blocks_per_request(tokens, in_flight) <= layout.blocks_per_request(tokens + more, in_flight)


@given(st.integers(1, 2**33), st.integers(1, 300_000), st.integers(0, 16_384))
def test_the_estimated_length_fits_and_one_more_token_does_not(room, limit, in_flight):
    layout = pool_layout([MIXED], PoolRules())
    found = estimated_max_model_len(layout, [room], limit, layout.demand(in_flight))

    def fits(tokens):
        return layout.blocks_per_request(tokens, in_flight) * layout.bytes_per_block <= room

    assert found == 0 or fits(found)
    assert found == limit or not fits(found + 1)


@given(
    st.integers(1, 6),
    st.lists(st.tuples(st.sampled_from(MIXED), st.integers(1, 9)), min_size=1, max_size=12),
)
def test_stages_hold_every_layer_once(num_stages, layers):
    counted = [(spec, count) for (spec, _), count in layers]
    stages = [counted[index::num_stages] for index in range(num_stages)]
    layout = pool_layout(stages, PoolRules())
    held = sum(group.num_layers for group in layout.groups)
    assert held == sum(count for _, count in counted)
    for group in layout.groups:
        assert sum(group.stage_bytes) == group.num_layers * group.page_size_bytes or len(layout.groups) == 1


@given(st.sampled_from(("fp8", "fp8_e4m3", "fp8_e5m2", "nvfp4", *TURBOQUANT)), st.integers(1, 16))
def test_a_narrow_cache_is_never_larger(dtype, heads):
    assert head_row_bytes(heads, 128, 128, dtype) < head_row_bytes(heads, 128, 128, "bfloat16")


def test_every_dtype_names_itself():
    assert all(name == dtype.name for name, dtype in KV_DTYPES.items())
