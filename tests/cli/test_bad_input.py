"""Wrong input gets three lines and its exit code, never a traceback."""

import json

import pytest

BAD = [
    (("fit", "lama-3-70b", "--gpu", "h100"), 2, "llama-3-70b"),
    (("fit", "llama-3-8b", "--gpu", "h1000"), 2, "h100"),
    (("fit", "llama-3-8b", "--gpu", "h100", "--weights", "q4_k_mm"), 2, "q4_k_m"),
    (("fit", "llama-3-8b", "--gpu", "h100", "--kv", "bf17"), 2, "bf16"),
    (("fit", "llama-3-8b", "--gpu", "h100", "--engine", "vlm"), 2, "vllm"),
    (("fit", "llama-3-8b", "--gpu", "48"), 2, "48GB"),
    (("fit", "llama-3-8b", "--gpu", "h100", "--ctx", "0"), 2, "lengths go from 1"),
    (("fit", "llama-3-8b", "--gpu", "h100", "--ctx=-1"), 2, "-1"),
    (("fit", "llama-3-8b", "--gpu", "h100", "--ctx", "32x"), 2, "32x"),
    (("fit", "llama-3-8b", "--gpu", "h100", "--ctx", "10^12"), 2, "10^12"),
    (("fit", "llama-3-8b", "--gpu", "h100", "--ctx", "1000000000000"), 2, "1000000000000"),
    (("fit", "llama-3-8b", "--gpu", "h100", "--batch", "0"), 2, "sequences"),
    (("fit", "llama-3-8b", "--gpu", "h100", "stray"), 2, "stray"),
    (("fit", "llama-3-8b", "--gpu", "h100", "--gpuu"), 2, "--gpuu"),
    (("fit", "llama-3-8b", "--gpu", "h100", "--kv", "q8_0", "--engine", "vllm"), 2, "q8_0"),
    (("fit", "llama-3-8b", "--gpu", "h100", "--kv", "fp8", "--engine", "llama.cpp"), 2, "fp8"),
    (("fit", "llama-3-8b", "--gpu", "2xh100", "--tp", "4"), 2, "--tp 4"),
    (("fit", "llama-3-8b", "--gpu", "4xh100", "--tp", "2", "--pp", "1"), 2, "4"),
    (("fit", "llama-3-8b"), 2, "--gpu"),
    (("fit", "llama-3-8b", "--gpu", "h100", "--kv", "fp8", "--kv-k", "bf16"), 2, "--kv"),
    (("fit", "llama-3-8b", "--gpu", "h100", "--format", "jsn"), 2, "json"),
    (("fit", "llama-3-8b", "--gpu", "h100", "-o", "/no/such/folder/x"), 2, "/no/such/folder/x"),
    (("fit", "llama-3-8b", "--gpu", "h100", "-o", "/"), 2, "/"),
    (("fit", "llama-3-8b", "--gpu", "h100", "--reserve", "2"), 2, "2GB"),
    (("fit", "llama-3-8b", "--gpu", "h100", "--engine", "vllm@new"), 2, "vllm@new"),
    (("fit", "no/such-model", "--gpu", "h100", "--offline"), 3, "no/such-model"),
    (("fit", "./no-such-folder", "--gpu", "h100"), 2, "no-such-folder"),
    (("fit", "llama-3-8b", "--gpu", "local"), 3, "nvidia"),
    (("fit", "llama-3-8b", "--gpu", "h100", "--ctx", "8k", "--", "--max-model-len", "4096"), 2, "--ctx"),
    (("fit", "llama-3-8b", "--gpu", "h100", "--", "--max-num-seqs", "many"), 2, "--max-num-seqs"),
    (("fit", "llama-3-8b", "--gpu", "h100", "--engine", "vllm@"), 2, "names no version"),
    (("fit", "llama-3-8b", "--gpu", "h100", "--engine", ""), 2, "known are vllm"),
    (("fit", "llama-3-8b", "--gpu", "none", "--gpu", "h100"), 2, "--gpu none"),
    (("fit", "llama-3-8b", "--gpu", "all"), 2, "kvplan find"),
    (("fit", "llama-3-8b", "--gpu", "m3-max"), 2, "m3-max-64gb"),
    (("fit", "llama-3-8b:q4_k_m", "--gpu", "h100"), 2, "--weights q4_k_m"),
    (("fit", "llama-3-8b", "--gpu", "h100", "-o", ""), 2, "names no file"),
    (("fit", "llama-3-8b", "--gpu", "h100", "--encoder-ctx", "x"), 2, "an encoder length"),
    (("fit", "llama-3-8b", "--gpu", "h100", "--reserve", "900GB"), 2, "79.65 GiB"),
    (("fit", "llama-3-8b", "--gpu", "h100", "--tp", "0"), 2, "it takes 1 or more"),
    (("fit", "llama-3-8b", "--gpu", "h100", "--export", "jsn=x"), 2, "json"),
    (("find", "zzz", "--gpu", "h100"), 2, "no model has 'zzz'"),
    (("find", "--gpu", "h100", "--top", "x"), 2, "it takes a whole number"),
    (("capacity", "llama-3-8b"), 2, "--sessions 100"),
    (("capacity", "llama-3-8b", "--sessions", "5", "--prices", "/no/such"), 2, "No such file"),
    (("list", "modles"), 2, "models"),
    (("list", "gpus", "h1000"), 2, "did you mean: h100"),
    (("list", "models", "qwen3", "zzz"), 2, "no model has 'zzz'"),
    (("list", "gpus", "h100", "amd"), 2, "no GPU has 'amd'"),
    (("list", "engines", "vlm"), 2, "did you mean: vllm"),
    (("list", "models", "--", "--flag"), 2, "engine flags"),
    (("fti",), 2, "fit"),
    (("show", "llama-3-8b", "--assume", "magic"), 2, "full-attention"),
]


@pytest.mark.parametrize(("words", "code", "token"), BAD, ids=[" ".join(words) for words, _, _ in BAD])
def test_three_lines_and_the_exit_code(kvplan, words, code, token):
    if words[-1] == "local":
        env = {"PATH": "/nonexistent"}
        got, out, err = kvplan(*words, env=env)
    else:
        got, out, err = kvplan(*words)
    assert got == code
    assert out == ""
    assert "Traceback" not in err
    lines = err.strip().splitlines()
    assert lines[0].startswith("error: ")
    assert 2 <= len(lines) <= 4
    assert token in err


@pytest.mark.parametrize(
    ("words", "code", "token"), BAD[:12], ids=[" ".join(words) for words, _, _ in BAD[:12]]
)
def test_errors_as_json(kvplan, words, code, token):
    got, out, err = kvplan(*words, "--json")
    data = json.loads(out)
    assert got == data["exit_code"] == code
    assert err == ""
    assert token in json.dumps(data["error"])


def test_help_everywhere(kvplan):
    for words in ((), ("fit",), ("show",), ("list",), ("schema",)):
        code, out, err = kvplan(*words, "--help")
        assert (code, err) == (0, "")
        assert "Usage" in out


def test_version(kvplan):
    from kvplan import __version__

    assert kvplan("--version") == (0, f"kvplan {__version__}\n", "")


def test_a_bug_is_one_line_and_exit_4(kvplan, tmp_path):
    broken = tmp_path / "sitecustomize.py"
    broken.write_text("import kvplan.judge\nkvplan.judge.judge = None\n")
    import os
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "kvplan", "fit", "llama-3-8b", "--gpu", "h100"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.getcwd()}"},
    )
    assert done.returncode == 4
    assert "KVPLAN_DEBUG" in done.stderr
    assert "Traceback" not in done.stderr
