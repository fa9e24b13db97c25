"""Graphs of architectures equal llama.cpp's: models that its own loader made, on the CPU and on cards."""

from dataclasses import replace
from math import prod

import pytest
from llama_cpp_runs import compared_with, settings_of
from oracle_tables import oracle

from kvplan.dtypes import GGML_TYPES
from kvplan.engines.llama_cpp.cache import cells_of, window_of
from kvplan.engines.llama_cpp.compute import compute_buffers
from kvplan.engines.llama_cpp.placement import place
from kvplan.model import StoredTensor, cache_kinds
from kvplan.sources.gguf import Header
from kvplan.sources.gguf_model import model_from_gguf

TABLES = oracle("llama_cpp_graphs.jsonl")
CARD_TABLES = oracle("llama_cpp_card_graphs.jsonl")
# Without flash attention, and with as many query elements as hidden ones, which no real model has.
FILE_TYPES = {None: 0, "q8_0": 7, "q4_k_m": 15}
A_LITTLE_HIGH = ("qwen3next", "qwen35moe")
DEFAULTS = {
    "n_batch": 2048, "type_k": "f16", "type_v": "f16", "kv_unified": False, "swa_full": False,
    "n_gpu_layers": 0, "cpu_moe": 0, "kv_offload": 1, "op_offload": 1, "split_mode": "layer",
    "tensor_split": None,
}  # fmt: skip


def model_of(table):
    metadata = {
        key: tuple(value) if isinstance(value, list) else value for key, value in table["metadata"].items()
    }
    metadata |= {"general.architecture": table["arch"], "general.file_type": FILE_TYPES[table.get("mix")]}
    tensors = tuple(_tensors(table))
    return model_from_gguf(Header(metadata, {}, tensors, 0), name=table["arch"], source="test", origin="test")


def _tensors(table):
    """Tensors of a table: name, shape, and where they are not fp32 in all, type and layers."""
    for name, shape, *rest in table["tensors"]:
        dtype = rest[0] if rest else "f32"
        num_bytes = GGML_TYPES[dtype].row_bytes(shape[0]) * prod(shape[1:])
        for first, last in rest[1] if len(rest) > 1 else [(0, 0)]:
            for layer in range(first, last + 1):
                yield StoredTensor(name.replace("#", str(layer)), dtype, tuple(shape), num_bytes)


@pytest.mark.parametrize(
    "table",
    TABLES,
    ids=[f"{table['arch']}{'-moe' * ('exps' in str(table))}-{number}" for number, table in enumerate(TABLES)],
)
def test_graphs_are_llama_cpps_own(table):
    model = model_of(table)
    window = window_of(cache_kinds(model), table["arch"])
    for n_ctx, n_ubatch, flash_attn, outputs, parallel, printed in table["runs"]:
        row = DEFAULTS | {
            "n_ctx": n_ctx, "n_ubatch": n_ubatch, "flash_attn": flash_attn, "num_outputs": outputs,
            "n_parallel": parallel,
        }  # fmt: skip
        settings = replace(settings_of(row), num_outputs=outputs)
        cells = cells_of(n_ctx, parallel, n_ubatch, window, kv_unified=False, swa_full=False)
        buffers = compute_buffers(model, "gguf-f32", settings, cells, ())
        if table["arch"] in A_LITTLE_HIGH and not flash_attn:
            assert printed <= buffers.host.expected <= 1.02 * printed, row
        else:
            assert buffers.host.expected == printed, row
        assert buffers.host.basis == "calibrated"


@pytest.mark.parametrize(
    "table",
    CARD_TABLES,
    ids=[
        f"{table['arch']}-{table['metadata'][table['arch'] + '.block_count']}-{number}"
        for number, table in enumerate(CARD_TABLES)
    ],
)
def test_graphs_over_cards_are_llama_cpps_own(table):
    model = model_of(table)
    for buffer in compared_with(model, table):
        assert buffer.planned.basis == "calibrated"
        assert buffer.planned.expected == buffer.printed, buffer


def test_tensors_without_an_ending_are_placed():
    # Falcon-H1's loader asks for blk.0.ffn_norm.
    table = next(table for table in TABLES if table["arch"] == "falcon-h1")
    assert any(name == "blk.0.ffn_norm" for name, *_ in table["tensors"])
    model = model_of(table)
    row = DEFAULTS | {
        "n_ctx": 4096, "n_ubatch": 512, "flash_attn": True, "num_outputs": 1, "n_parallel": 1,
    }  # fmt: skip
    placed = place(model, "gguf-f32", settings_of(row), (), "cpu")
    assert placed.host.weight_bytes == sum(4 * prod(shape) for _, shape in table["tensors"])
