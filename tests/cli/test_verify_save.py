"""``--save``: what a server showed here is used by later plans here, said, shown and removable."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from engine_server import serving

from kvplan.calibration import CacheMeasurement, Measurement
from kvplan.hardware.detect import catalogue_name
from kvplan.verify.calibration import save as save_measurement
from kvplan.verify.calibration import saved

LLAMA_CPP = """\
llama_context: n_seq_max     = 1
llama_context: n_ctx         = 8192
load_tensors: offloaded 33/33 layers to GPU
load_tensors:        CUDA0 model buffer size =  4403.49 MiB
llama_kv_cache: size = 1024.00 MiB (  8192 cells,  32 layers,  1/1 seqs)
llama_memory_breakdown_print: |   - CUDA0 (RTX 4090)   | 24077 = 17000 + (5987 = 4403 + 1024 + 560) + 1090 |
"""
VLLM = """\
INFO non-default args: {'model': 'llama-3-8b', 'max_model_len': 8192, 'gpu_memory_utilization': 0.9}
INFO vLLM API server version 0.19.0
INFO Model loading took 14.96 GiB memory and 3.1 seconds
INFO Memory profiling takes 5 seconds. Total non KV cache memory: 18.0GiB; \
torch peak memory increase: 2.50GiB; \
non-torch forward increase memory: 0.40GiB; weights memory: 14.96GiB.
INFO Available KV cache memory: 53.00 GiB
"""
FIT = (
    "fit",
    "llama-3-8b",
    "--ctx",
    "8k",
    "--gpu",
    "rtx-4090",
    "--engine",
    "llama.cpp",
    "--weights",
    "q4_k_m",
)


@pytest.fixture
def store(tmp_path, monkeypatch):
    file = tmp_path / "state" / "calibration.json"
    monkeypatch.setenv("KVPLAN_CALIBRATION", str(file))
    return file


def save(answer, tmp_path, text, *words):
    log = tmp_path / "server.log"
    log.write_text(text, encoding="utf-8")
    return answer("verify", "llama-3-8b", "--log", str(log), *words, "--save")


def runtime_of(said):
    return next(part for part in said["devices"][0]["components"] if part["name"] == "runtime")


def codes(said):
    return [warning["code"] for warning in said["warnings"]]


def test_llama_cpps_rest_serves_every_model_on_that_card(answer, store, tmp_path):
    _, before = answer(*FIT)
    _, said = save(answer, tmp_path, LLAMA_CPP, "--gpu", "rtx-4090")
    assert said["measured"]["saved_in"] == str(store)
    _, after = answer(*FIT)
    assert runtime_of(after)["bytes"]["expected"] == 1090 * 2**20 != runtime_of(before)["bytes"]["expected"]
    assert runtime_of(after)["bytes"]["low"] < 1090 * 2**20 < runtime_of(after)["bytes"]["high"]
    assert (runtime_of(after)["basis"], runtime_of(after)["note"]) == (
        "calibrated",
        "calibrated on this machine",
    )
    assert "calibrated-on-this-machine" in codes(after)
    assert "calibrated-on-this-machine" not in codes(before)
    other = (
        "fit",
        "mistral-7b-v0.3",
        "--ctx",
        "8k",
        "--gpu",
        "rtx-4090",
        "--engine",
        "llama.cpp",
        "--weights",
        "q8_0",
    )
    assert runtime_of(answer(*other)[1])["bytes"]["expected"] == 1090 * 2**20


def test_another_card_or_an_explicit_overhead_is_left_alone(answer, store, tmp_path):
    save(answer, tmp_path, LLAMA_CPP, "--gpu", "rtx-4090")
    elsewhere = [word if word != "rtx-4090" else "rtx-3090" for word in FIT]
    assert "calibrated-on-this-machine" not in codes(answer(*elsewhere)[1])
    _, said = answer(*FIT, "--overhead", "2GiB")
    assert runtime_of(said)["bytes"]["expected"] == 2 * 2**30
    assert "calibrated-on-this-machine" not in codes(said)


def test_vllms_overhead_holds_for_its_model_and_release(answer, store, tmp_path):
    save(answer, tmp_path, VLLM, "--gpu", "h100")
    kept = json.loads(store.read_text())["measurements"][0]
    # 2.50 + 0.40 GiB; graphs came on top of the share before 0.21.
    assert kept["overhead_bytes"] == round(2.5 * 2**30) + round(0.4 * 2**30)
    fit = ("fit", "llama-3-8b", "--ctx", "8k", "--gpu", "h100", "--engine", "vllm@0.19")
    _, said = answer(*fit, "--", "--gpu-memory-utilization", "0.9")
    assert "calibrated-on-this-machine" in codes(said)
    for other in (
        ("fit", "qwen3-8b", "--ctx", "8k", "--gpu", "h100", "--engine", "vllm@0.19"),
        ("fit", "llama-3-8b", "--ctx", "8k", "--gpu", "h100", "--engine", "vllm@0.33"),
        (*fit, "--", "--max-num-seqs", "17"),
    ):
        assert "calibrated-on-this-machine" not in codes(answer(*other)[1])


def test_a_log_is_held_against_the_shipped_rules(answer, store, tmp_path):
    _, first = save(answer, tmp_path, VLLM, "--gpu", "h100")
    _, second = save(answer, tmp_path, VLLM, "--gpu", "h100")
    assert first["comparisons"] == second["comparisons"]
    assert len(json.loads(store.read_text())["measurements"]) == 2


def test_doctor_shows_it_and_forget_removes_it(kvplan, store, answer, tmp_path):
    save(answer, tmp_path, LLAMA_CPP, "--gpu", "rtx-4090")
    where = {"KVPLAN_CALIBRATION": str(store)}
    _, out, _ = kvplan("doctor", env=where)
    assert "rtx-4090" in out
    code, out, _ = kvplan("verify", "--forget", env=where)
    assert (code, out) == (0, f"removed {store}\n")
    assert not store.exists()
    code, out, _ = kvplan("verify", "--forget", env=where)
    assert (code, out) == (0, f"nothing is kept in {store}\n")


def test_saving_a_log_needs_a_name(kvplan, store, tmp_path):
    log = tmp_path / "server.log"
    log.write_text(LLAMA_CPP, encoding="utf-8")
    code, _, err = kvplan(
        "verify", "llama-3-8b", "--log", str(log), "--save", env={"KVPLAN_CALIBRATION": str(store)}
    )
    assert (code, len(err.splitlines())) == (2, 3)
    assert not store.exists()


def test_saving_beside_transformers_caches_is_refused(kvplan, store):
    words = ("verify", "llama-3-8b", "--against", "transformers", "--save")
    code, _, err = kvplan(*words, env={"KVPLAN_CALIBRATION": str(store)})
    assert (code, len(err.splitlines())) == (2, 3)
    assert "--save and --against are both given" in err


BROKEN = ["", "{", "[]", '{"schema":"x"}', '{"schema":"kvplan-calibration/1"}',
          '{"schema":"kvplan-calibration/1","measurements":[{"overhead_bytes":-5}]}',
          '{"schema":"kvplan-calibration/1","measurements":[7]}',
          '{"schema":"kvplan-calibration/1","measurements":[],"caches":[{}]}',
          '{"schema":"kvplan-calibration/1","measurements":[],"caches":7}']  # fmt: skip


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_file_is_a_warning_of_every_plan(text, answer, store):
    fit = ("fit", "llama-3-8b", "--gpu", "h100", "--ctx", "8k")
    whole, before = answer(*fit)
    store.parent.mkdir()
    store.write_text(text)
    code, after = answer(*fit)
    assert code == whole == 0
    assert after["devices"] == before["devices"]
    found = next(one for one in after["warnings"] if one["code"] == "calibration-unreadable")
    assert "kvplan verify --forget" in found["message"]


def test_a_broken_file_is_an_error_of_saving_and_of_doctor(kvplan, store, tmp_path):
    store.parent.mkdir()
    store.write_text("not ours")
    where = {"KVPLAN_CALIBRATION": str(store)}
    log = tmp_path / "server.log"
    log.write_text(LLAMA_CPP, encoding="utf-8")
    words = ("verify", "llama-3-8b", "--log", str(log), "--gpu", "rtx-4090", "--save")
    code, out, err = kvplan(*words, env=where)
    assert (code, out, len(err.splitlines())) == (2, "", 3)
    assert "kvplan verify --forget" in err
    assert store.read_text() == "not ours"
    assert list(store.parent.iterdir()) == [store]
    _, out, _ = kvplan("doctor", env=where)
    assert "is no calibration of kvplan's" in out


def test_a_folder_in_its_place_is_said(answer, store):
    store.mkdir(parents=True)
    code, said = answer("fit", "llama-3-8b", "--gpu", "h100", "--ctx", "8k")
    assert code == 0
    assert "calibration-unreadable" in codes(said)


def test_many_writers_lose_nothing(store):
    """Eight processes add five measurements each to one file."""
    program = (
        "import sys\n"
        "from kvplan.calibration import Measurement\n"
        "from kvplan.verify.calibration import save\n"
        "for number in range(5):\n"
        "    save(Measurement('h100', 'vllm', '0.33', number, 0, model=sys.argv[1]))\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", program, str(number)]) for number in range(8)]
    assert [writer.wait(timeout=60) for writer in writers] == [0] * 8
    kept = saved().overheads
    assert {(one.model, one.overhead_bytes) for one in kept} == {
        (str(writer), number) for writer in range(8) for number in range(5)
    }
    assert list(store.parent.iterdir()) == [store]


def test_a_lock_that_a_dead_writer_left_is_taken_over(store):
    store.parent.mkdir()
    lock = store.parent / f".{store.name}.lock"
    lock.touch()
    os.utime(lock, (1, 1))
    save_measurement(Measurement("h100", "vllm", "0.33", 1, 0))
    assert len(saved().overheads) == 1
    assert not lock.exists()


CACHE = CacheMeasurement(
    "NVIDIA H100 80GB HBM3", "vllm", "0.33", 1000, 1010, 84_000_000_000, "h100-sxm", "llama-3-8b",
    "2026-11-27",
)  # fmt: skip


def test_a_cache_allocated_here_widens_the_cache_and_tells_the_cards_memory(answer, store):
    fit = ("fit", "llama-3-8b", "--gpu", "h100", "--ctx", "8k", "--engine", "vllm")
    _, before = answer(*fit)
    save_measurement(replace(CACHE, also=before["devices"][0]["name"]))
    code, after = answer(*fit)
    assert code == 0
    assert "cache-calibrated-on-this-machine" in codes(after)
    found = next(one for one in after["warnings"] if one["code"] == "cache-calibrated-on-this-machine")
    assert found["message"].startswith("cache calibrated on this machine: 1 measurement of 2026-11-27")
    assert "+1.00 %" in found["message"]
    assert after["devices"][0]["usable_bytes"] == 84_000_000_000 != before["devices"][0]["usable_bytes"]
    cache, planned = (
        next(part for part in said["devices"][0]["components"] if part["name"] == "kv_cache")
        for said in (after, before)
    )
    expected = planned["bytes"]["expected"]
    assert cache["bytes"] == {"low": expected, "expected": expected, "high": expected * 101 // 100}
    assert (cache["basis"], cache["note"]) == (
        "calibrated", "blocks of the asked load; calibrated on this machine",
    )  # fmt: skip
    # Another engine's layout was not measured, the card's memory was.
    _, other = answer(*fit[:-1], "sglang")
    assert "cache-calibrated-on-this-machine" not in codes(other)
    assert other["devices"][0]["usable_bytes"] == 84_000_000_000


def test_doctor_names_device_driver_engine_and_version(kvplan, store):
    save_measurement(replace(CACHE, driver="570.86, CUDA 12.8"))
    _, out, _ = kvplan("doctor", env={"KVPLAN_CALIBRATION": str(store)})
    text = " ".join(out.split())
    assert "vllm 0.33 on NVIDIA H100 80GB HBM3 (570.86, CUDA 12.8), llama-3-8b" in text


@pytest.mark.parametrize(
    ("name", "total_mib", "found"),
    [("NVIDIA GeForce RTX 4090", 24564, "rtx-4090"), ("NVIDIA H100 80GB HBM3", 81559, "h100-sxm"),
     ("NVIDIA H100 80GB HBM3", 9984, ""), ("Some Other Card", 24564, "")],
)  # fmt: skip
def test_a_drivers_name_is_the_catalogues_where_the_size_agrees(name, total_mib, found):
    assert catalogue_name(name, total_mib * 2**20) == found


def test_a_vllm_servers_blocks_tell_its_overhead(answer, store):
    metrics = (
        'vllm:cache_config_info{block_size="16",cache_dtype="auto",enable_prefix_caching="True",'
        'gpu_memory_utilization="0.9",num_gpu_blocks="27000"} 1.0\n'
    )
    models = {"data": [{"id": "llama-3-8b", "root": "llama-3-8b", "max_model_len": 8192}]}
    paths = {
        "/version": (200, json.dumps({"version": "0.19.0"})),
        "/v1/models": (200, json.dumps(models)),
        "/metrics": (200, metrics),
    }
    with serving(paths) as url:
        code, said = answer("verify", "--url", url, "--gpu", "h100", "--save")
    assert said["measured"]["saved_in"] == str(store)
    kept = saved().overheads[0]
    block = 32 * 16 * 8 * 128 * 2 * 2
    fit = ("fit", "llama-3-8b", "--ctx", "8k", "--gpu", "h100", "--engine", "vllm@0.19")
    after_code, after = answer(*fit, "--", "--gpu-memory-utilization", "0.9")
    device = after["devices"][0]
    weights = next(part["bytes"]["expected"] for part in device["components"] if part["name"] == "weights")
    assert kept.overhead_bytes == device["budget_bytes"] - weights - 27000 * block
    assert runtime_of(after)["bytes"]["expected"] == kept.overhead_bytes
    assert (code, after_code) == (1, 0)
    assert "saved-scope" in codes(said)


def test_an_sglang_servers_pool_is_kept_and_other_servers_tell_none(answer, store):
    tokens = 390_000
    held = 32 * 8 * 128 * 2 * 2 * (tokens + 1) / 2**30
    info = {
        "model_path": "llama-3-8b", "mem_fraction_static": 0.85, "tp_size": 1, "context_length": 8192,
        "version": "0.5.23", "max_total_num_tokens": tokens,
        "internal_states": [{"memory_usage": {"weight": 14.98, "kvcache": round(held, 2), "graph": 0.2}}],
    }  # fmt: skip
    with serving({"/server_info": (200, json.dumps(info))}) as url:
        answer("verify", "--url", url, "--gpu", "h100", "--save")
    kept = saved().caches[0]
    assert (kept.engine, kept.planned_bytes) == ("sglang", kept.measured_bytes)
    props = {
        "total_slots": 1,
        "default_generation_settings": {"n_ctx": 4096},
        "model_path": "/m/llama-3-8b.gguf",
    }
    with serving({"/props": (200, json.dumps(props))}) as url:
        code, said = answer("verify", "llama-3-8b", "--url", url, "--gpu", "h100", "--save")
    assert (code, said["error"]["code"]) == (3, "cannot-tell")
    assert "--log" in said["error"]["hint"]
    assert len(saved().caches) == 1


def test_check_and_sweep_use_it_as_fit_does(answer, store, tmp_path):
    save(answer, tmp_path, LLAMA_CPP, "--gpu", "rtx-4090")
    _, alone = answer(*FIT, "--batch", "1")
    script = tmp_path / "a.sh"
    script.write_text("llama-server -m /m.gguf -c 8192 -np 1\n")
    words = ("--gpu", "rtx-4090", "--model", "/m.gguf=llama-3-8b,weights=q4_k_m")
    _, checked = answer("check", str(script), *words)
    (row,) = checked["deployments"]
    assert runtime_of(row["plan"]) == runtime_of(alone)
    _, grid = answer(
        "sweep",
        "llama-3-8b",
        "--gpu",
        "rtx-4090",
        "--ctx",
        "8k",
        "--weights",
        "q4_k_m",
        "--engine",
        "llama.cpp",
    )
    assert grid["points"][0]["headroom_bytes"] == alone["devices"][0]["headroom_bytes"]


def test_what_was_measured_counts_in_find_and_in_suggestions_of_another_engine(answer, store):
    asked = ("llama-3-8b", "--gpu", "rtx-4090", "--ctx", "8k")
    before = answer("find", *asked, "--weights", "q8_0")[1]["found"][0]
    wide = {"engine": "llama.cpp", "version": "b10488", "when": "2026-01-01"}
    save_measurement(Measurement(device="rtx-4090", overhead_bytes=3 * 2**30, planned_bytes=2**29, **wide))
    found = answer("find", *asked, "--weights", "q8_0")[1]["found"][0]
    alone = answer(*found["command"].split()[1:])[1]
    assert found["headroom_bytes"] == alone["devices"][0]["headroom_bytes"] < before["headroom_bytes"]
    # bf16 under vLLM is too much at 16 sequences; a GGUF runs under llama.cpp, as it was measured.
    data = answer("fit", *asked, "--batch", "16")[1]
    changed = [item for item in data["suggestions"] if "weights" in item["changes"]]
    assert changed
    for item in changed:
        again = answer(*item["command"].split()[1:])[1]
        assert again["devices"][0]["headroom_bytes"] == item["headroom_bytes"]
