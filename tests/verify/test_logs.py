"""Logs of real servers, read to the fields that people read off them, however they are wrapped."""

import json
import random
from contextlib import suppress

import pytest
from oracle_tables import oracle

from kvplan.errors import CannotTell
from kvplan.verify.log_text import lines_of
from kvplan.verify.logs import engine_of, read_log

ROWS = oracle("engine_logs.jsonl")
UNITS = {"vllm": 2**30, "sglang": 2**30, "llama.cpp": 2**20}
# The tables' columns and what the readers call them.
AMOUNTS = {
    "weights_gib": "weights", "available_kv_gib": "kv_cache_available", "activation_peak_gib": "activations",
    "non_torch_gib": "non_torch", "cudagraph_gib": "cuda_graphs",
    "cudagraph_estimated_gib": "cuda_graphs_estimated",
    "gpu_total_gib": "device_total", "init_free_gib": "free_at_start", "requested_gib": "requested",
    "total_non_kv_gib": "non_kv", "kv_needed_gib": "kv_cache_needed",
    "weights_mem_gb": "weights", "avail_mem_before_gb": "free_before_weights",
    "avail_mem_after_gb": "free_after_weights", "k_gb": "kv_cache_k", "v_gb": "kv_cache_v",
    "kv_gb": "kv_cache",
    "mamba_conv_gb": "state_conv", "mamba_ssm_gb": "state_ssm", "avail_after_pool_gb": "free_after_pool",
    "cuda_graph_gb": "cuda_graphs", "available_gpu_mem_gb": "free_at_end",
    "rs_mib": "recurrent_state", "output_mib": "output", "mmproj_mib": "multimodal", "mtp_mib": "draft_model",
}  # fmt: skip
BY_DEVICE = {
    "model_buffer_mib": "weights", "compute_mib": "activations", "kv_by_dev": "kv_cache_buffer",
    "total_mib": "device_total", "free_mib": "free_at_end", "context_mib": "context",
}  # fmt: skip
COUNTS = {
    "kv_tokens": "kv_cache_tokens", "max_concurrency": "max_concurrency", "gpu_blocks": "num_blocks",
    "estimated_max_len": "estimated_max_model_len", "max_model_len": "max_model_len",
    "full_tokens": "full_tokens",
    "swa_tokens": "swa_tokens", "mamba_slots": "state_slots", "max_total_num_tokens": "max_total_num_tokens",
    "max_running_requests": "max_running_requests", "context_length": "context_length",
    "chunked_prefill_size": "chunked_prefill_size", "mem_fraction_static": "mem_fraction_static",
    "gpu_memory_utilization": "gpu_memory_utilization", "n_ctx": "n_ctx", "n_ubatch": "n_ubatch",
    "n_parallel": "n_parallel", "n_layer": "n_layer", "n_vocab": "n_vocab", "n_embd_k_gqa": "n_embd_k_gqa",
}  # fmt: skip


def wrong_fields(row, readings):
    unit = UNITS[row["engine"]]
    wrong = {}
    for field, value in row["said"].items():
        if field in AMOUNTS:
            found = readings.of(AMOUNTS[field])
            if not any(abs(value * unit - one.num_bytes) <= one.rounding_bytes for one in found):
                wrong[field] = (value, found)
        elif field in BY_DEVICE:
            for device, number in value.items():
                found = [one for one in readings.of(BY_DEVICE[field]) if one.device in (device, "")]
                if not any(abs(number * unit - one.num_bytes) <= one.rounding_bytes for one in found):
                    wrong[f"{field} {device}"] = (number, found)
        elif field in COUNTS:
            read = readings.counts.get(COUNTS[field], readings.settings.get(COUNTS[field]))
            if read != value:
                wrong[field] = (value, read)
    return wrong


def test_the_sample_has_every_engine():
    assert {row["engine"] for row in ROWS} == {"vllm", "sglang", "llama.cpp"}
    assert sum(len(row["said"]) for row in ROWS) > 250


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['engine']}-{ROWS.index(row)}")
def test_real_logs_are_read_to_their_figures(row):
    assert wrong_fields(row, read_log(row["log"], row["engine"])) == {}


WRAPPINGS = {
    "docker": lambda line: json.dumps(
        {"log": line + "\n", "stream": "stderr", "time": "2026-01-02T03:04:05Z"}
    ),
    "cri": lambda line: f"2026-01-02T03:04:05.678901234Z stderr F {line}",
    "structured": lambda line: json.dumps({"level": "info", "ts": 1.5, "message": line}),
    "coloured": lambda line: f"\x1b[32mINFO\x1b[0m 01-02 03:04:05 \x1b[36m[gpu_worker.py:641]\x1b[0m {line}",
    "compose": lambda line: f"vllm-1  | {line}",
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("row", ROWS[::4], ids=lambda row: f"{row['engine']}-{ROWS.index(row)}")
def test_wrapped_logs_say_the_same(row, wrapping):
    text = "\n".join(WRAPPINGS[wrapping](line) for line in row["log"].split("\n"))
    assert wrong_fields(row, read_log(text, row["engine"])) == {}


def test_a_line_that_a_container_runtime_split_is_joined():
    text = (
        "2026-01-02T03:04:05Z stderr P Available KV cache mem\n2026-01-02T03:04:05Z stderr F ory: 43.61 GiB\n"
    )
    assert [line.text for line in lines_of(text)] == ["Available KV cache memory: 43.61 GiB"]


def test_ranks_that_interleave_are_kept_apart():
    text = "\n".join(
        f"(Worker_TP{rank} pid={100 + rank}) INFO 01-02 [gpu_worker.py:1] {line}"
        for line in ("Model loading took {w} GiB memory", "Available KV cache memory: {k} GiB")
        for rank in range(4)
    )
    text = (
        text.replace("{w}", "33.88", 1)
        .replace("{w}", "34.00")
        .replace("{k}", "37.28", 1)
        .replace("{k}", "36.50")
    )
    readings = read_log(text)
    assert [reading.device for reading in readings.of("weights")] == ["TP0", "TP1", "TP2", "TP3"]
    assert readings.largest("weights").num_bytes == 34 * 2**30
    assert readings.smallest("kv_cache_available").num_bytes == round(36.5 * 2**30)


@pytest.mark.parametrize("row", ROWS[::6], ids=lambda row: f"{row['engine']}-{ROWS.index(row)}")
def test_truncated_logs_never_invent(row):
    """Whatever is cut off, what is still read is what the whole log says (or a shorter number)."""
    whole = read_log(row["log"], row["engine"])
    lines = row["log"].split("\n")
    for cut in range(1, len(lines)):
        try:
            part = read_log("\n".join(lines[:cut]), row["engine"])
        except CannotTell:
            continue
        assert {reading.name for reading in part.amounts} <= {reading.name for reading in whole.amounts}


def test_engines_are_told_apart():
    for row in ROWS:
        lines = tuple(lines_of(row["log"]))
        if row["engine"] != "llama.cpp" or "buffer size" in row["log"]:
            assert engine_of(lines) in (row["engine"], ""), row["log"][:200]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "GET /index.html 200\nstarted nginx\n",
        "\x00\xff\x00 binary \ufffd" * 100,
        "{" * 5000 + "}" * 5000,
        "Loading TGI model: text-generation-launcher\nwarmup done",
    ],
)
def test_a_log_of_no_known_engine_says_so(text):
    with pytest.raises(CannotTell, match="no known engine"):
        read_log(text)


def test_a_log_without_memory_lines_says_so():
    with pytest.raises(CannotTell, match="nothing about memory"):
        read_log("INFO vllm engine started\nINFO 127.0.0.1 POST /v1/completions 200 OK")


def test_advice_is_not_taken_for_options():
    text = (
        "Model loading took 1.00 GiB memory\n"
        "Replace gpu_memory_utilization config with `--kv-cache-memory=44981556224` (41.89 GiB) to fit\n"
        "Try increasing --gpu-memory-utilization 0.99 or decreasing --max-model-len 1024\n"
    )
    readings = read_log(text, "vllm")
    assert "kv_cache_memory_bytes" not in readings.settings
    assert "gpu_memory_utilization" not in readings.settings | readings.counts


def test_the_command_line_in_a_log_is_read():
    text = (
        "+ exec vllm serve Qwen/Qwen3-32B --max-model-len 32k --tensor-parallel-size=2 --enforce-eager\n"
        "Model loading took 30.59 GiB memory\n"
    )
    readings = read_log(text)
    assert readings.model == "Qwen/Qwen3-32B"
    assert readings.settings["max_model_len"] == 32000
    assert readings.settings["tensor_parallel_size"] == 2
    assert readings.settings["enforce_eager"] is True


LINES = oracle("log_lines.jsonl")
LINE_UNITS = {"GiB": 2**30, "MiB": 2**20}


@pytest.mark.parametrize(
    "row", LINES, ids=lambda row: f"{row['engine']} {row['versions']}-{LINES.index(row)}"
)
def test_every_version_s_lines_are_read(row):
    readings = read_log("\n".join(row["lines"]), row["engine"])
    for key, (value, unit) in row["amounts"].items():
        name, _, device = key.partition("@")
        found = [one for one in readings.of(name) if not device or one.device == device]
        assert found, key
        assert all(abs(one.num_bytes - value * LINE_UNITS[unit]) <= one.rounding_bytes for one in found), key
    said = dict(readings.counts) | dict(readings.settings)
    assert {name: said.get(name) for name in row["counts"]} == row["counts"]
    assert {name: readings.settings.get(name) for name in row["settings"]} == row["settings"]
    assert bool(readings.refusal) is row.get("refusal", False)
    assert readings.out_of_memory or not row.get("oom")


@pytest.mark.parametrize(
    "row", LINES, ids=lambda row: f"{row['engine']} {row['versions']}-{LINES.index(row)}"
)
def test_a_line_names_nothing_that_it_does_not_say(row):
    """Amounts that the table does not list would be misread text."""
    listed = {key.partition("@")[0] for key in row["amounts"]}
    extra = {one.name for one in read_log("\n".join(row["lines"]), row["engine"]).amounts} - listed
    assert extra <= {"projected", "unaccounted", "device_used", "kv_cache_buffer"}


def test_what_llama_cpp_prints_stands_before_ollama_s_rounded_figures():
    text = (
        'source=device.go:240 msg="model weights" device=CUDA0 size="3.8 GiB"\n'
        "load_tensors:        CUDA0 model buffer size =  3847.55 MiB\n"
        'source=device.go:240 msg="model weights" device=CUDA0 size="3.8 GiB"\n'
    )
    (weights,) = read_log(text).of("weights")
    assert abs(weights.num_bytes - 3847.55 * 2**20) <= weights.rounding_bytes


@pytest.mark.parametrize("row", LINES[::3], ids=lambda row: f"{row['engine']}-{LINES.index(row)}")
def test_damaged_lines_raise_nothing_but_that_they_cannot_be_told(row):
    text = "\n".join(row["lines"])
    chance = random.Random(LINES.index(row))
    for _ in range(25):
        letters = list(text[: chance.randint(1, len(text))])
        for _ in range(3):
            letters[chance.randrange(len(letters))] = chance.choice('0.9,-e{}()"\n =x')
        with suppress(CannotTell):
            read_log("".join(letters), row["engine"])
