"""Graphs of architectures equal llama.cpp's: small models that its own loader made, on the CPU."""

from dataclasses import replace
from math import prod

import pytest
from llama_cpp_runs import settings_of
from oracle_tables import oracle

from kvplan.engines.llama_cpp_cache import cells_of, window_of
from kvplan.engines.llama_cpp_compute import compute_buffers
from kvplan.model import StoredTensor, cache_kinds
from kvplan.sources.gguf import Header
from kvplan.sources.gguf_model import model_from_gguf

TABLES = oracle("llama_cpp_graphs.jsonl")
# Without flash attention, and with as many query elements as hidden ones, which no real model has.
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
    metadata |= {"general.architecture": table["arch"], "general.file_type": 0}
    tensors = tuple(
        StoredTensor(name, "f32", tuple(shape), 4 * prod(shape)) for name, shape in table["tensors"]
    )
    return model_from_gguf(Header(metadata, {}, tensors, 0), name=table["arch"], source="test", origin="test")


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
