"""``--save``: what a server showed here is used by later plans here, said, shown and removable."""

import json

import pytest

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


def test_saving_needs_a_log_and_a_name(kvplan, store, tmp_path):
    code, _, err = kvplan("verify", "llama-3-8b", "--save", env={"KVPLAN_CALIBRATION": str(store)})
    assert (code, len(err.splitlines())) == (2, 3)
    log = tmp_path / "server.log"
    log.write_text(LLAMA_CPP, encoding="utf-8")
    code, _, err = kvplan(
        "verify", "llama-3-8b", "--log", str(log), "--save", env={"KVPLAN_CALIBRATION": str(store)}
    )
    assert (code, len(err.splitlines())) == (2, 3)
    assert not store.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema":"x"}', '{"schema":"kvplan-calibration/1"}',
                                  '{"schema":"kvplan-calibration/1","measurements":[{"overhead_bytes":-5}]}',
                                  '{"schema":"kvplan-calibration/1","measurements":[7]}'])  # fmt: skip
def test_a_broken_file_is_an_error_that_names_the_way_out(text, kvplan, store):
    store.parent.mkdir()
    store.write_text(text)
    code, out, err = kvplan("fit", "llama-3-8b", "--gpu", "h100", env={"KVPLAN_CALIBRATION": str(store)})
    assert (code, out) == (2, "")
    assert "kvplan verify --forget" in err


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
