"""``kvplan fit`` as a user meets it: verdicts, exit codes, suggestions, streams."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time

import pytest

GIB = 2**30
MAIN = ("fit", "llama-3-70b", "--gpu", "48GB", "--ctx", "32k")


def component(data, name):
    return next(part for part in data["devices"][0]["components"] if part["name"] == name)


def test_llama_3_70b_does_not_fit_48gb(answer):
    code, data = answer(*MAIN)
    assert code == data["exit_code"] == 1
    assert data["verdict"] == "does_not_fit"
    assert round(data["model"]["weights_bytes"] / GIB, 1) == 131.4
    assert data["devices"][0]["memory_bytes"] == 46_068 * 2**20
    assert any(w["code"] == "context-exceeds-model" for w in data["warnings"])
    assert 1 <= len(data["suggestions"]) <= 4


def test_llama_3_70b_q4_k_m_on_48gb(answer):
    code, data = answer(*MAIN, "--weights", "q4_k_m")
    assert code == 1
    assert data["engine"]["name"] == "llama.cpp"
    assert round(data["model"]["weights_bytes"] / GIB, 1) == 39.6
    assert component(data, "kv_cache")["bytes"]["expected"] == 10 * GIB
    changed = {key for item in data["suggestions"] for key in item["changes"]}
    assert {"kv", "weights", "ctx"} <= changed


@pytest.mark.parametrize("more", [(), ("--weights", "q4_k_m"), ("--engine", "vllm")])
def test_every_suggested_command_gives_its_verdict(answer, more):
    _, data = answer(*MAIN, *more)
    assert data["suggestions"]
    for item in data["suggestions"]:
        words = shlex.split(item["command"])
        assert words[0] == "kvplan"
        code, again = answer(*words[1:])
        assert (again["verdict"], again["devices"][0]["headroom_bytes"]) == (
            item["verdict"],
            item["headroom_bytes"],
        )
        assert code == 0


def test_limits_are_where_the_verdict_turns(answer):
    _, data = answer("fit", "llama-3.1-8b", "--gpu", "24GB", "--ctx", "8k")
    longest = data["limits"]["max_context_tokens"]
    assert answer("fit", "llama-3.1-8b", "--gpu", "24GB", "--ctx", str(longest))[0] == 0
    assert answer("fit", "llama-3.1-8b", "--gpu", "24GB", "--ctx", str(longest + 1))[0] == 1
    most = data["limits"]["max_sequences"]
    assert answer("fit", "llama-3.1-8b", "--gpu", "24GB", "--ctx", "8k", "--batch", str(most))[0] == 0
    assert answer("fit", "llama-3.1-8b", "--gpu", "24GB", "--ctx", "8k", "--batch", str(most + 1))[0] == 1


def test_strict_turns_tight_into_a_failure(answer):
    _, data = answer("fit", "llama-3.1-8b", "--gpu", "24GB", "--ctx", "8k")
    ctx = str(data["limits"]["max_context_tokens"])
    code, tight = answer("fit", "llama-3.1-8b", "--gpu", "24GB", "--ctx", ctx)
    assert (code, tight["verdict"]) == (0, "tight")
    assert answer("fit", "llama-3.1-8b", "--gpu", "24GB", "--ctx", ctx, "--strict")[0] == 1


def test_reserve_and_min_headroom_take_room(answer):
    _, free = answer("fit", "llama-3-8b", "--gpu", "24GB", "--engine", "ideal")
    _, reserved = answer("fit", "llama-3-8b", "--gpu", "24GB", "--engine", "ideal", "--reserve", "2GiB")
    assert free["devices"][0]["headroom_bytes"] - reserved["devices"][0]["headroom_bytes"] == 2 * GIB
    assert answer("fit", "llama-3-8b", "--gpu", "24GB", "--min-headroom", "20GiB")[0] == 1


def test_tensor_parallel_that_does_not_divide_is_refused(answer):
    code, data = answer("fit", "llama-3-8b", "--gpu", "h100", "--tp", "3")
    assert (code, data["verdict"]) == (1, "refused")
    assert "divisible" in data["refusals"][0]["message"]


def test_one_gpu_is_multiplied_by_tp(answer):
    _, data = answer("fit", "llama-3-70b", "--gpu", "h100", "--tp", "4")
    assert len(data["devices"]) == 4
    assert data["parallel"] == {"tensor": 4, "pipeline": 1, "data": 1, "expert": 1}


def test_mla_is_not_divided_over_tensor_ranks(answer):
    _, data = answer("fit", "deepseek-v3", "--gpu", "8xh200", "--ctx", "32k")
    per_rank = component(data, "kv_cache")["bytes"]["expected"]
    assert per_rank >= 32_768 * 70_272


def test_engine_flags_behind_two_dashes(answer):
    code, data = answer(
        "fit", "llama-3-8b", "--gpu", "h100", "--", "--max-num-seqs", "64", "--enforce-eager", "--new-flag"
    )
    assert code == 0
    assert data["engine"]["options"]["max_num_seqs"] == 64
    assert "cuda_graphs" not in [part["name"] for part in data["devices"][0]["components"]]
    assert any("--new-flag" in warning["message"] for warning in data["warnings"])


def test_max_model_len_is_the_context_in_vllms_units(answer):
    _, data = answer("fit", "llama-3.1-8b", "--gpu", "h100", "--", "--max-model-len", "32k")
    assert data["workload"]["context_tokens"] == 32_000
    _, data = answer("fit", "llama-3.1-8b", "--gpu", "h100", "--", "--max-model-len", "32K")
    assert data["workload"]["context_tokens"] == 32_768


def test_the_context_left_out_is_the_models(answer):
    _, data = answer("fit", "llama-3-8b", "--gpu", "h100")
    assert data["workload"]["context_tokens"] == 8192
    assert data["workload"]["context_source"] == "model"


def test_without_a_gpu(answer):
    code, data = answer("fit", "llama-3-8b", "--gpu", "none")
    assert (code, data["verdict"]) == (3, "unknown")
    assert answer("fit", "llama-3-8b", "--gpu", "none", "--allow-unknown")[0] == 0
    assert answer("fit", "llama-3-8b", "--gpu", "none", "--cpu-memory", "32GB", "--weights", "q4_k_m")[0] == 0
    assert answer("fit", "llama-3-8b", "--gpu", "none", "--cpu-memory", "4GB", "--weights", "q4_k_m")[0] == 1


def test_layers_left_in_system_memory_are_an_offload(answer):
    words = ("fit", "llama-3-70b", "--gpu", "24GB", "--ctx", "4k", "--weights", "q4_k_m")
    assert answer(*words)[1]["verdict"] == "does_not_fit"
    code, data = answer(*words, "--", "-ngl", "30")
    assert (code, data["verdict"]) == (1, "offload")
    assert answer(*words, "--allow-offload", "--", "-ngl", "30")[0] == 0


def test_a_closed_pipe_keeps_the_verdict_and_says_nothing():
    for words, expected in ((MAIN, 1), (("fit", "llama-3-8b", "--gpu", "h100"), 0), (("list", "models"), 0)):
        done = subprocess.run(
            [
                "bash",
                "-c",
                f"{sys.executable} -m kvplan {shlex.join(words)} | head -1 >/dev/null; "
                "echo ${PIPESTATUS[0]}",
            ],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.getcwd()},
        )
        assert done.stdout.strip() == str(expected)
        assert done.stderr == ""


def test_ctrl_c_ends_with_130(tmp_path):
    pipe = tmp_path / "model.json"
    os.mkfifo(pipe)
    # Shells start background jobs with SIGINT ignored, and children inherit that.
    program = (
        "import runpy, signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "runpy.run_module('kvplan', run_name='__main__')\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, "fit", "-", "--gpu", "h100"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    _, complaints = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"Traceback" not in complaints


def test_output_goes_to_a_file_and_exports_beside_it(kvplan, tmp_path):
    target, export = tmp_path / "plan.txt", tmp_path / "plan.json"
    code, out, _ = kvplan(*MAIN, "--format", "plain", "-o", str(target), "--export", f"json={export}")
    assert (code, out) == (1, "")
    assert target.read_text().startswith("DOES NOT FIT")
    assert json.loads(export.read_text())["verdict"] == "does_not_fit"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plan.json", "plan.txt"]


def test_quiet_prints_nothing(kvplan):
    assert kvplan(*MAIN, "--quiet") == (1, "", "")


def test_main_runs_in_process(capsys):
    from kvplan.cli import main

    assert main(["fit", "llama-3-8b", "--gpu", "h100"]) == 0
    assert "FITS" in capsys.readouterr().out
    assert main([]) in (0, 2)


def test_an_engine_s_own_file_of_settings_is_read(answer, tmp_path):
    path = tmp_path / "options.yaml"
    path.write_text(
        "kv_cache_config:\n  free_gpu_memory_fraction: 0.5\n  max_tokens: 10000\n", encoding="utf-8"
    )
    words = ("fit", "llama-3.1-8b", "--gpu", "h100", "--ctx", "8k", "--engine")
    _, said = answer(*words, "tensorrt-llm", "--", "--config", str(path))
    assert said["engine"]["options"]["free_gpu_memory_fraction"] == 0.5
    assert said["limits"]["kv_cache_tokens"] == 10_016
    path.write_text("gpu-memory-utilization: 0.5\n", encoding="utf-8")
    for name, option in (("vllm", "gpu_memory_utilization"), ("sglang", None)):
        code, said = answer(*words, name, "--", "--config", str(path))
        assert code == 0
        if option:
            assert said["engine"]["options"][option] == 0.5


def test_a_file_of_settings_that_is_not_there_is_an_error(kvplan):
    words = ("fit", "llama-3.1-8b", "--gpu", "h100", "--ctx", "8k", "--engine", "vllm")
    code, _, stderr = kvplan(*words, "--", "--config", "no-such.yaml")
    assert code == 2
    assert "no-such.yaml" in stderr
