"""Memory lines of real servers: caches within 2 percent, and nothing that ran out of memory fits."""

import pytest
from oracle_tables import oracle

from kvplan import Workload, engine_named, open_model, parse_gpus, verdict_of
from kvplan.deploy.flags import read_flags
from kvplan.engines.llama_cpp.cache import cells_of, layer_cache
from kvplan.layers import FullAttention
from kvplan.plan import plan

MIB = 2**20
ROWS = oracle("llama_cpp_logs.jsonl")


def planned(model, weights, gpus, flags):
    options = dict(read_flags("llama.cpp", flags).options)
    workload = Workload(
        weights_format=weights,
        kv_cache_dtype_k=options.pop("cache_type_k", "auto"),
        kv_cache_dtype_v=options.pop("cache_type_v", "auto"),
        engine_options=tuple(options.items()),
    )
    return plan(open_model(model), workload, parse_gpus(gpus), engine_named("llama.cpp"))


@pytest.mark.parametrize("row", ROWS, ids=[f"{row['model']} {' '.join(row['flags'])}" for row in ROWS])
def test_caches_are_what_the_server_printed(row):
    result = planned(row["model"], row["weights"], row["gpus"], row["flags"])
    states = result.cache.state_bytes_per_sequence * dict(result.engine_options)["n_parallel"]
    assert states / MIB == pytest.approx(row["rs_mib"], rel=0.0002)
    if row["kv_mib"] is not None:
        assert (result.cache.total.expected - states) / MIB == pytest.approx(row["kv_mib"], rel=0.02)


# DeepSeek files converted before the latent cache keep full heads (llama.cpp issue 12728; an Ollama log).
@pytest.mark.parametrize(
    ("num_layers", "n_ctx", "type_k", "kv_mib"),
    [(60, 4096, "f16", 19_200.0), (60, 4096, "q8_0", 13_800.0), (61, 8192, "f16", 39_040.0)],
)
def test_old_files_of_latent_models_cache_full_heads(num_layers, n_ctx, type_k, kv_mib):
    cells = cells_of(n_ctx, 1, 512, 0, kv_unified=False, swa_full=False)
    each = layer_cache(
        FullAttention(128, 128, 192, 128), cells, type_k, "f16", honours_window=False, cuda=False
    )
    assert each.total_bytes * num_layers / MIB == pytest.approx(kv_mib, rel=0.0001)


OUT_OF_MEMORY = [
    # (model, weights of about the file's width, GPUs, flags): ik_llama.cpp issues 437, 500, 629, pull 235
    ("qwen3-235b-a22b", "q8_0", ["rtx-5090"], ["-c", "32768", "-np", "1"]),
    ("qwen3-235b-a22b", "iq3_s", ["2xrtx-3090"], ["-c", "32768", "-np", "1", "-ctk", "q8_0", "-ctv", "q8_0"]),
    ("deepseek-r1", "iq3_s", ["2xrtx-4090"], ["-c", "65536", "-np", "1", "-ctk", "q8_0", "-ctv", "q8_0"]),
    ("deepseek-r1", "iq3_s", ["2xrtx-4090"], ["-c", "61440", "-np", "1", "-ctk", "q8_0", "-ctv", "q8_0"]),
    ("deepseek-r1", "q2_k", ["15xrtx-3090"], ["-c", "32768", "-np", "1", "-fa", "off"]),
]


@pytest.mark.parametrize(("model", "weights", "gpus", "flags"), OUT_OF_MEMORY)
def test_what_ran_out_of_memory_does_not_fit(model, weights, gpus, flags):
    assert verdict_of(planned(model, weights, gpus, flags)).status in ("does_not_fit", "tight")
