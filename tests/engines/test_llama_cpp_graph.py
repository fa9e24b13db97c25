"""Graphs of architectures equal llama.cpp's: models that its own loader made, on the CPU and on cards."""

from dataclasses import replace

import pytest
from gguf_tables import model_of
from llama_cpp_runs import compared_with, settings_of
from oracle_tables import oracle

from kvplan.engines.llama_cpp.cache import cells_of, window_of
from kvplan.engines.llama_cpp.compute import compute_buffers
from kvplan.engines.llama_cpp.converted import as_converted
from kvplan.engines.llama_cpp.placement import place
from kvplan.model import cache_kinds
from kvplan.sources.config_model import model_from_config

TABLES = oracle("llama_cpp_graphs.jsonl")
CARD_TABLES = oracle("llama_cpp_card_graphs.jsonl")
# Without flash attention, and with as many query elements as hidden ones, which no real model has.
A_LITTLE_HIGH = ("qwen3next", "qwen35moe")
DEFAULTS = {
    "n_batch": 2048, "type_k": "f16", "type_v": "f16", "kv_unified": False, "swa_full": False,
    "n_gpu_layers": 0, "cpu_moe": 0, "kv_offload": 1, "op_offload": 1, "split_mode": "layer",
    "tensor_split": None,
}  # fmt: skip


NAMES = [f"{table['arch']}{'-moe' * ('exps' in str(table))}-{number}" for number, table in enumerate(TABLES)]
ON_CARDS = [(name, table) for name, table in zip(NAMES, TABLES, strict=True) if "card_runs" in table]


def planned(model, row):
    """Return (settings, buffers) of a run."""
    settings = replace(settings_of(DEFAULTS | row), num_outputs=row["num_outputs"])
    cells = cells_of(
        row["n_ctx"],
        row["n_parallel"],
        row["n_ubatch"],
        window_of(cache_kinds(model), model.model_type),
        kv_unified=False,
        swa_full=False,
    )
    shares = (1,) * row["num_cards"]
    stored = model.weights_format or "gguf-f32"
    return settings, compute_buffers(model, stored, settings, cells, shares)


@pytest.mark.parametrize("table", TABLES, ids=NAMES)
def test_graphs_are_llama_cpps_own(table):
    model = model_of(table)
    for n_ctx, n_ubatch, flash_attn, outputs, parallel, printed in table["runs"]:
        row = {
            "n_ctx": n_ctx, "n_ubatch": n_ubatch, "flash_attn": flash_attn, "num_outputs": outputs,
            "n_parallel": parallel, "num_cards": 0,
        }  # fmt: skip
        _, buffers = planned(model, row)
        if table["arch"] in A_LITTLE_HIGH and not flash_attn:
            assert printed <= buffers.host.expected <= 1.02 * printed, row
        else:
            assert buffers.host.expected == printed, row
        assert buffers.host.basis == "calibrated"


@pytest.mark.parametrize("table", [table for _, table in ON_CARDS], ids=[name for name, _ in ON_CARDS])
def test_graphs_on_cards_are_llama_cpps_own(table):
    model = model_of(table)
    for cards, layers, n_ctx, n_ubatch, flash_attn, outputs, parallel, *printed in table["card_runs"]:
        row = {
            "n_ctx": n_ctx, "n_ubatch": n_ubatch, "flash_attn": flash_attn, "num_outputs": outputs,
            "n_parallel": parallel, "n_gpu_layers": layers, "num_cards": cards,
        }  # fmt: skip
        settings, buffers = planned(model, row)
        placed = place(model, model.weights_format, settings, (1,) * cards, "cuda")
        compute, weights, caches = printed
        held = (*placed.devices, placed.host)
        assert [each.expected for each in (*buffers.cards, buffers.host)] == compute, row
        assert [each.weight_bytes for each in held] == weights, row
        assert [each.cache_bytes + each.state_bytes for each in held] == caches, row


def test_a_checkpoint_of_minicpm3_caches_whole_heads_as_its_file_does():
    table = next(table for table in TABLES if table["arch"] == "minicpm3")
    keys = {key.removeprefix("minicpm3."): value for key, value in table["metadata"].items()}
    config = {
        "model_type": "minicpm3",
        "hidden_size": keys["embedding_length"],
        "num_hidden_layers": keys["block_count"],
        "intermediate_size": keys["feed_forward_length"],
        "num_attention_heads": keys["attention.head_count"],
        "vocab_size": keys["vocab_size"],
        "max_position_embeddings": keys["context_length"],
        "kv_lora_rank": keys["attention.kv_lora_rank"],
        "q_lora_rank": keys["attention.q_lora_rank"],
        "qk_rope_head_dim": keys["rope.dimension_count"],
        "qk_nope_head_dim": keys["attention.key_length"] - keys["rope.dimension_count"],
        "v_head_dim": keys["attention.value_length"],
        "torch_dtype": "float16",
    }
    model = as_converted(model_from_config(config, name="minicpm3", source="test"))
    cards, layers, n_ctx, n_ubatch, flash_attn, outputs, parallel, *printed = table["card_runs"][0]
    row = {
        "n_ctx": n_ctx, "n_ubatch": n_ubatch, "flash_attn": flash_attn, "num_outputs": outputs,
        "n_parallel": parallel, "n_gpu_layers": layers, "num_cards": cards,
    }  # fmt: skip
    settings, buffers = planned(model, row)
    placed = place(model, "gguf-f32", settings, (1,) * cards, "cuda")
    compute, _, caches = printed
    assert [each.expected for each in (*buffers.cards, buffers.host)] == compute
    assert [each.cache_bytes for each in (*placed.devices, placed.host)] == caches


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
    assert placed.host.weight_bytes == sum(tensor.num_bytes for tensor in model.stored)
