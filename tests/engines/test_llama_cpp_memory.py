"""llama.cpp's caches and weights equal its own breakdown in bytes."""

import pytest
from oracle_tables import oracle

from kvplan.engines.llama_cpp.cache import cells_of, layer_cache, split_layers, window_of
from kvplan.gguf.mix import mix_bytes
from kvplan.gguf.names import llama_cpp_arch
from kvplan.layers import ChunkedAttention, SlidingWindow
from kvplan.model import cache_kinds, expand_layers
from kvplan.sources.config_model import model_from_config

TABLES = oracle("llama_cpp_memory.jsonl")
IDS = [table["model"] for table in TABLES]


def rows_of(table):
    return [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]


def cells(model, arch, row):
    return cells_of(
        row["n_ctx"],
        row["n_parallel"],
        row["n_ubatch"],
        window_of(cache_kinds(model), arch),
        kv_unified=bool(row["kv_unified"]),
        swa_full=bool(row["swa_full"]),
    )


@pytest.mark.parametrize("table", TABLES, ids=IDS)
def test_caches_equal_the_engine_in_bytes(table):
    model = model_from_config(table["config"], name=table["model"], source="test")
    arch = table["arch"]
    honours = window_of(cache_kinds(model), arch) > 0
    for row in rows_of(table):
        cuda = bool(row["kv_offload"]) and row["n_gpu_layers"] >= 999
        full = windowed = states = 0
        for layer in expand_layers(model):
            for cache in layer.caches:
                part = layer_cache(
                    cache,
                    cells(model, arch, row),
                    row["type_k"],
                    row["type_v"],
                    honours_window=honours,
                    cuda=cuda,
                )
                amount = part.key_bytes + part.value_bytes
                if honours and isinstance(cache, SlidingWindow | ChunkedAttention):
                    windowed += amount
                else:
                    full += amount
                states += part.state_bytes
        assert (full, windowed, states) == (row["kv_bytes"], row["swa_bytes"], row["state_bytes"]), row


@pytest.mark.parametrize("table", TABLES, ids=IDS)
def test_weights_on_one_card_equal_the_engine(table):
    model = model_from_config(table["config"], name=table["model"], source="test")
    assert llama_cpp_arch(model) == table["arch"] or table["arch"] in ("qwen2", "llama")
    compared = 0
    for row in rows_of(table):
        one_gpu = row["device"].startswith("1x")
        if not one_gpu or row["n_gpu_layers"] < 999 or row["cpu_moe"]:
            continue
        file = mix_bytes(model, row["mix"].lower())
        output = file.output_bytes or file.embedding_bytes
        on_device = sum(file.layer_bytes) + output + file.output_norm_bytes
        # Tensors are aligned to 128 bytes in a buffer; nothing else may differ.
        assert abs(row["weight_bytes"] - on_device) <= 128 * 2000, row
        compared += 1
    assert compared


def test_layers_split_by_free_memory_as_on_two_equal_cards():
    # Llama-3-8B on two RTX 3090: 17 layers on the first card, 15 and the output on the second.
    places = split_layers(32, (24, 24))
    assert places.count(0) == 17
    assert places[-1] == 1
    assert list(places) == sorted(places)
