"""Where llama.cpp puts weights and caches: equal to its own breakdown, device by device, in bytes."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle_tables import oracle

from kvplan import Workload, engine_named, open_model, parse_gpus
from kvplan.engines.llama_cpp.placement import place
from kvplan.engines.llama_cpp.settings import ALL_LAYERS, settings_of
from kvplan.plan import plan
from kvplan.sources.config_model import model_from_config

CONFIGS = {row["model"]: row["config"] for row in oracle("gguf_mixes.jsonl")}
TABLES = oracle("llama_cpp_placement.jsonl")


def settings(row):
    options = {
        "parallel": row["n_parallel"],
        "n_ubatch": row["n_ubatch"],
        "flash_attn": row["flash_attn"],
        "kv_unified": bool(row["kv_unified"]),
        "swa_full": bool(row["swa_full"]),
        "n_gpu_layers": str(row["n_gpu_layers"]),
        "cpu_moe": bool(row["cpu_moe"]),
        "no_kv_offload": not row["kv_offload"],
        "split_mode": row["split_mode"],
        "ctx_size": row["n_ctx"],
    }
    workload = Workload(engine_options=tuple(options.items()))
    return settings_of(workload, row["n_ctx"], row["type_k"], row["type_v"])


@pytest.mark.parametrize("table", TABLES, ids=[table["model"] for table in TABLES])
def test_buffers_equal_the_engine_by_device(table):
    model = model_from_config(CONFIGS[table["model"]], name=table["model"], source="test")
    assert len(table["rows"]) >= 4
    for values in table["rows"]:
        row = dict(zip(table["columns"], values, strict=True))
        count = row["num_gpus"]
        shares = (1,) * count
        if row["tensor_split"]:
            shares = tuple(int(part) for part in row["tensor_split"].split(","))
        if row["split_mode"] == "none" and count:
            shares = (1, *(0,) * (count - 1))
        placed = place(model, row["mix"], settings(row), shares, "cuda")
        weights = [held.weight_bytes for held in placed.devices]
        caches = [held.cache_bytes + held.state_bytes for held in placed.devices]
        host = placed.host
        assert [*weights, host.weight_bytes] == row["weights"], row
        assert [*caches, host.cache_bytes + host.state_bytes] == row["cache"], row


def planned(model, gpus, *, ctx=8192, weights="q4_k_m", engine="llama.cpp", **options):
    asked = Workload(
        context_tokens=ctx,
        context_source="flag",
        weights_format=weights,
        engine_options=tuple(options.items()),
    )
    return plan(open_model(model), asked, parse_gpus(gpus), engine_named(engine))


def weights_on(result, index=0):
    parts = result.devices[index].components
    return sum(part.bytes.expected for part in parts if part.name == "weights")


def test_unequal_cards_share_layers_by_their_free_memory():
    result = planned("llama-3-8b", ["rtx-3090", "rtx-3060-12gb"])
    assert 1.7 < weights_on(result, 0) / weights_on(result, 1) < 2.2
    turned = planned("llama-3-8b", ["rtx-3060-12gb", "rtx-3090"])
    assert weights_on(turned, 0) < weights_on(turned, 1)


def test_override_tensor_moves_what_its_pattern_names():
    whole = planned("qwen3-30b-a3b", ["rtx-4090"])
    by_name = planned("qwen3-30b-a3b", ["rtx-4090"], override_tensor=r"\.ffn_.*_exps\.=CPU")
    by_flag = planned("qwen3-30b-a3b", ["rtx-4090"], cpu_moe=True)
    assert weights_on(by_name) == weights_on(by_flag) < weights_on(whole) // 10
    assert by_name.offloaded
    assert not whole.offloaded
    some = planned("qwen3-30b-a3b", ["rtx-4090"], override_tensor=r"blk\.(1|2)\.ffn_up_exps=CPU")
    assert weights_on(by_flag) < weights_on(some) < weights_on(whole)
    second = planned("llama-3-8b", ["2xrtx-4090"], override_tensor=r"blk\.0\.ffn_down=CUDA1")
    plain = planned("llama-3-8b", ["2xrtx-4090"])
    assert weights_on(plain, 0) - weights_on(second, 0) == weights_on(second, 1) - weights_on(plain, 1) > 0
    assert not second.offloaded


def test_split_mode_none_uses_the_main_gpu_alone():
    result = planned("llama-3-8b", ["2xrtx-4090"], split_mode="none", main_gpu=1)
    assert weights_on(result, 0) == 0
    assert weights_on(result, 1) == weights_on(planned("llama-3-8b", ["rtx-4090"]))


@given(st.integers(0, 33), st.integers(0, 40), st.integers(1, 4))
def test_nothing_is_lost_between_device_and_memory(n_gpu_layers, n_cpu_moe, num_gpus):
    model = open_model("qwen3-30b-a3b")
    base = settings_of(Workload(), 8192, "f16", "f16")
    asked = replace(base, n_gpu_layers=n_gpu_layers, n_cpu_moe=n_cpu_moe)
    whole = place(model, "q4_k_m", replace(base, n_gpu_layers=ALL_LAYERS), (1,) * num_gpus, "cpu")
    placed = place(model, "q4_k_m", asked, (1,) * num_gpus, "cpu")

    def total(one):
        return sum(held.weight_bytes + held.cache_bytes for held in (*one.devices, one.host))

    assert total(placed) == total(whole)
    assert placed.host.num_layers + sum(held.num_layers for held in placed.devices) == 48
