"""vLLM's groups, blocks and tokens equal those of its own planner."""

from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle_tables import oracle

from kvplan.engines.vllm import estimated_max_model_len, tokens_and_concurrency
from kvplan.engines.vllm_budget import behaviour
from kvplan.engines.vllm_groups import pool_layout
from kvplan.engines.vllm_pages import FP8_DS_MLA_BYTES, KV_DTYPES, LayerSpec

ROWS = oracle("vllm_planner.jsonl")
DTYPE_BYTES = {"bfloat16": 2, "float32": 4}


def spec_of(layer, row):
    dtype = layer.get("kv_cache_dtype", row["kv_cache_dtype"])
    dtype = "bfloat16" if dtype == "auto" else dtype
    kind = layer["type"]
    if kind == "indexer":
        return LayerSpec("mla", layer["head_size"])
    if kind == "mla":
        packed = layer.get("has_indexer") and dtype != "fp8_e4m3"
        row_bytes = FP8_DS_MLA_BYTES if packed else layer["head_size"] * KV_DTYPES[dtype].element_bits // 8
        return LayerSpec("mla", row_bytes)
    if kind == "mamba":
        shapes = zip(layer["shapes"], layer["dtypes"], strict=True)
        return LayerSpec("mamba", state_bytes=sum(prod(shape) * DTYPE_BYTES[d] for shape, d in shapes))
    head = layer["head_size"]
    keys = KV_DTYPES[dtype].head_bytes(head, is_key=True) + KV_DTYPES[dtype].head_bytes(head, is_key=False)
    window = layer.get("sliding_window") or layer.get("chunk") or 0
    return LayerSpec(kind, layer["num_kv_heads"] * keys, window=window)


def layout_of(row):
    hybrid = any(layer["type"] == "mamba" for layer in row["layers"])
    return pool_layout(
        [(spec_of(layer, row), layer["count"]) for layer in row["layers"]],
        block_size=16 if hybrid else row["block_size"],
        mamba_mode=row["mamba_cache_mode"],
        max_model_len=row["max_model_len"],
        dcp=row["dcp"],
    )


@pytest.mark.parametrize("row", ROWS, ids=[f"{row['id']}-{row['model']}" for row in ROWS])
def test_the_planner_equals_vllm(row):
    expected, layout = row["result"], layout_of(row)
    in_flight = row["max_num_batched_tokens"] * (2 if row["async_scheduling"] else 1)
    blocks = layout.blocks_per_request(row["max_model_len"], in_flight)
    num_blocks = row["available_bytes"] // layout.bytes_per_block
    tokens, concurrency = tokens_and_concurrency(
        layout, num_blocks, row["max_model_len"], in_flight, 0, behaviour((0, 33))
    )
    assert layout.bytes_per_block == expected["pool_bytes_per_block"]
    assert num_blocks == expected["num_blocks"]
    assert blocks == expected["blocks_per_request"]
    assert blocks * layout.bytes_per_block == expected["max_memory_usage_bytes"]
    assert tokens == expected["kv_tokens"]
    assert round(concurrency, 4) == expected["max_concurrency"]
    needed = blocks * layout.bytes_per_block
    assert (needed <= row["available_bytes"] - layout.bytes_per_block) is expected["fits"]
    assert (
        estimated_max_model_len(
            layout, row["available_bytes"], row["max_model_len"], in_flight, null_block=True
        )
        == expected["estimated_max_len"]
    )


@given(st.integers(0, 2**40), st.integers(0, 2**30))
def test_more_memory_never_gives_fewer_blocks(available, more):
    layout = pool_layout([(LayerSpec("full", 4096), 32)], block_size=16)
    assert available // layout.bytes_per_block <= (available + more) // layout.bytes_per_block


@given(st.integers(1, 200_000), st.integers(1, 5_000), st.integers(1, 8192), st.integers(0, 16_384))
def test_more_context_never_needs_fewer_blocks(tokens, more, window, in_flight):
    layout = pool_layout(
        [
            (LayerSpec("sliding", 4096, window=window), 20),
            (LayerSpec("full", 4096), 10),
            (LayerSpec("mamba", state_bytes=10**6), 7),
        ],
        block_size=16,
    )
    assert layout.blocks_per_request(tokens, in_flight) <= layout.blocks_per_request(tokens + more, in_flight)
