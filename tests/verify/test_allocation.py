"""Real tensors on the CPU: storage to the byte, resident memory by the plan, nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

import pytest
from cache_kinds import FORMATS, KINDS, model_of, planned
from jsonschema import Draft202012Validator

from kvplan.cli import main
from kvplan.errors import CannotTell, InvalidValue
from kvplan.verify.allocation import allocate, prepare
from kvplan.verify.cache_layout import layout_of

pytestmark = pytest.mark.usefixtures("torch")
MIB = 2**20
SCHEMA = json.loads(files("kvplan.report").joinpath("schema-kvplan-1.json").read_text(encoding="utf-8"))


def resident_bytes():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


@pytest.mark.parametrize("kv", ["bf16", "fp16", "fp8", "int8", "int4"])
def test_storage_equals_the_plan_for_every_kind_of_layer(kv):
    for kind, cache in KINDS.items():
        result = planned(model_of(cache), "ideal", kv, tokens=300)
        whole, part, device = prepare(result, "cpu", None)
        found = allocate(result, whole, part, device, lambda _: None)
        assert found.facts["storage_bytes"] == result.cache.total.expected, kind
        assert {row.status for row in found.rows} == {"agrees"}
        assert all(row.expected == row.measured for row in found.rows)


@pytest.mark.parametrize(
    ("engine", "kinds"),
    [
        ("vllm", ("full", "sliding", "latent", "mamba2", "gated delta")),
        ("sglang", ("full", "sliding", "latent", "sparse latent", "mamba2", "gated delta")),
        ("tensorrt-llm", ("full", "latent", "sparse latent")),
        ("llama.cpp", ("full", "sliding", "latent", "mamba2", "gated delta")),
        ("transformers", ("full", "sliding", "sparse latent", "compressed", "mamba2", "gated delta")),
    ],
)
def test_storage_equals_the_plan_in_an_engines_layout(engine, kinds):
    checked = 0
    for kind in kinds:
        for kv in FORMATS[engine][::2]:
            if kind == "latent" and kv in ("int8", "int4", "nvfp4") and engine == "vllm":
                continue
            if kind == "sparse latent" and engine == "sglang" and kv != "auto":
                continue
            result = planned(model_of(KINDS[kind]), engine, kv, tokens=300)
            whole, part, device = prepare(result, "cpu", None)
            found = allocate(result, whole, part, device, lambda _: None)
            assert {row.status for row in found.rows} == {"agrees"}, (kind, kv)
            assert found.rows[-1].measured == result.cache.total.expected, (kind, kv)
            checked += 1
    assert checked >= len(kinds)


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
@pytest.mark.parametrize(("engine", "tokens"), [("ideal", 131072), ("vllm", 32768), ("sglang", 8192)])
def test_resident_memory_grows_by_the_plan(engine, tokens, torch):
    torch.ones(1).sum()
    result = planned(model_of(KINDS["sliding"], 30), engine, "auto", tokens=tokens, sequences=4)
    assert result.cache.total.expected > 256 * MIB
    grown = []
    before = resident_bytes()
    whole, part, device = prepare(result, "cpu", None)
    found = allocate(result, whole, part, device, lambda _: grown.append(resident_bytes()))
    planned_bytes = result.cache.total.expected
    assert abs(grown[-1] - before - planned_bytes) <= planned_bytes * 0.02
    assert abs(found.facts["device_lost_bytes"] - planned_bytes) <= planned_bytes * 0.02
    assert found.facts["allocator_bytes"] >= planned_bytes
    assert resident_bytes() - before < 8 * MIB
    assert found.facts["left_after_bytes"] < 8 * MIB


def bytes_left_after(failure, result):
    before = resident_bytes()
    whole, part, device = prepare(result, "cpu", None)
    with pytest.raises(failure if failure is KeyboardInterrupt else CannotTell):
        allocate(result, whole, part, device, _failing(failure, part.num_bytes // 2))
    return resident_bytes() - before


def _failing(failure, at_bytes):
    def progress(done):
        if done >= at_bytes:
            assert resident_bytes() > at_bytes
            raise failure("not enough memory: you tried to allocate 1 byte")

    return progress


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
@pytest.mark.parametrize("failure", [KeyboardInterrupt, MemoryError, RuntimeError])
def test_a_failure_half_way_leaves_nothing(failure, torch):
    torch.ones(1).sum()
    result = planned(model_of(KINDS["full"], 30), "ideal", "fp16", tokens=8192, sequences=2)
    assert result.cache.total.expected > 128 * MIB
    assert bytes_left_after(failure, result) < 8 * MIB


def test_a_bug_is_not_taken_for_memory(torch):
    result = planned(model_of(KINDS["full"]), "ideal", "fp16")
    whole, part, device = prepare(result, "cpu", None)

    def progress(_):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        allocate(result, whole, part, device, progress)


@pytest.mark.skipif(sys.platform != "linux", reason="address space limits are Linux's")
def test_a_real_out_of_memory_is_an_answer(tmp_path):
    # The limit leaves room for torch itself and a part of the cache.
    program = (
        "import resource, sys, torch\n"
        "torch.ones(1).sum()\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * 4096\n"
        f"resource.setrlimit(resource.RLIMIT_AS, (used + {400 * MIB},) * 2)\n"
        "from kvplan.cli import main\n"
        "sys.exit(main(['verify', 'llama-3-8b', '--ctx', '8k', '--device', 'cpu', '--engine', 'vllm']))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 3, done.stderr
    assert "memory ran out after" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_ctrl_c_ends_with_130():
    # Shells start background jobs with SIGINT ignored, and children inherit that.
    program = (
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from kvplan.cli import main\n"
        "sys.exit(main(['verify', 'llama-3-8b', '--ctx', '32k', '--device', 'cpu', '--engine', 'vllm']))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    status = Path(f"/proc/{process.pid}/status")
    try:
        for _ in range(1200):
            time.sleep(0.05)
            if process.poll() is not None or _resident_of(status) > 1200 * MIB:
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, err
    assert out == b""
    assert b"Traceback" not in err


def _resident_of(status):
    try:
        lines = status.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS")), 0)


def test_what_does_not_fit_is_refused_and_can_be_scaled_down(answer):
    words = ("verify", "llama-3-70b", "--ctx", "128k", "--batch", "64", "--device", "cpu", "--engine", "vllm")
    code, said = answer(*words)
    assert (code, said["error"]["code"]) == (3, "cannot-tell")
    assert "--max-memory" in said["error"]["hint"]
    small = (
        "verify",
        "llama-3-70b",
        "--ctx",
        "2k",
        "--device",
        "cpu",
        "--engine",
        "vllm",
        "--max-memory",
        "64MiB",
    )
    code, said = answer(*small)
    assert (code, said["verdict"]) == (0, "agrees")
    assert said["measured"]["layers_left_out"] == 72
    assert said["measured"]["storage_bytes"] == 64 * MIB
    assert [warning["code"] for warning in said["warnings"]] == ["scaled-down"]


def test_what_is_left_out_beside_the_layers_is_said(answer):
    words = ("verify", "gpt-oss-20b", "--ctx", "256", "--engine", "sglang", "--device", "cpu")
    code, said = answer(*words, "--max-memory", "13.5MiB")
    assert (code, said["measured"]["layers_left_out"]) == (0, 0)
    (warning,) = (one for one in said["warnings"] if one["code"] == "beside-left-out")
    assert "padding pages" in warning["message"]


def test_the_whole_answer_agrees(answer):
    code, said = answer("verify", "gemma-3-4b", "--ctx", "4k", "--device", "cpu", "--engine", "transformers")
    assert (code, said["verdict"], said["mode"]) == (0, "agrees", "allocation")
    whole = said["comparisons"][-1]
    assert whole["name"] == "whole_cache"
    assert whole["planned"]["expected"] == whole["measured"] == said["measured"]["storage_bytes"]
    assert {row["name"] for row in said["comparisons"]} == {"sliding_window", "full_attention", "whole_cache"}


def test_what_was_allocated_is_saved_and_used_by_later_plans(answer, monkeypatch, tmp_path):
    store = tmp_path / "calibration.json"
    monkeypatch.setenv("KVPLAN_CALIBRATION", str(store))
    words = ("verify", "llama-3-8b", "--ctx", "64", "--device", "cpu", "--engine", "llama.cpp")
    code, said = answer(*words, "--save")
    assert (code, said["measured"]["saved_in"]) == (0, str(store))
    (kept,) = json.loads(store.read_text())["caches"]
    assert (kept["device"], kept["engine"], kept["model"]) == ("cpu", "llama.cpp", "llama-3-8b")
    assert kept["planned_bytes"] == said["measured"]["storage_bytes"]
    assert kept["measured_bytes"] == said["measured"]["allocator_bytes"] >= kept["planned_bytes"]
    assert kept["driver"] == said["measured"]["driver"]
    fit = ("fit", "llama-3-8b", "--gpu", "none", "--ctx", "64", "--cpu-memory", "64GiB")
    _, later = answer(*fit, "--engine", "llama.cpp")
    assert "cache-calibrated-on-this-machine" in {warning["code"] for warning in later["warnings"]}
    _, other = answer(*fit, "--engine", "ideal")
    assert "cache-calibrated-on-this-machine" not in {warning["code"] for warning in other["warnings"]}
    # A second run is held against the rules, not against the first.
    code, again = answer(*words)
    assert (code, again["comparisons"][-1]["planned"]) == (0, said["comparisons"][-1]["planned"])


def test_another_device_than_the_one_named_is_not_saved(answer, monkeypatch, tmp_path):
    store = tmp_path / "calibration.json"
    monkeypatch.setenv("KVPLAN_CALIBRATION", str(store))
    words = ("verify", "llama-3-8b", "--ctx", "64", "--device", "cpu", "--engine", "vllm", "--gpu", "h100")
    code, said = answer(*words, "--save")
    assert (code, said["error"]["code"]) == (2, "invalid-value")
    assert not store.exists()


def test_a_wrong_layout_is_found(monkeypatch, torch):
    """A plan whose bytes do not follow from the layers differs, whatever it says of itself."""
    from dataclasses import replace

    from kvplan.quantity import exact
    from kvplan.verify.comparison import outcome

    right = planned(model_of(KINDS["full"]), "ideal", "fp16")
    off_by_a_byte = replace(right, cache=replace(right.cache, total=exact(right.cache.total.expected + 1)))
    whole, part, device = prepare(off_by_a_byte, "cpu", None)
    found = allocate(off_by_a_byte, whole, part, device, lambda _: None)
    assert outcome(found.rows) == "differs"
    assert layout_of(right).num_bytes == right.cache.total.expected


def test_devices_that_are_not_there(torch):
    result = planned(model_of(KINDS["full"]), "ideal", "fp16")
    with pytest.raises(InvalidValue, match="'tpu' is not a device"):
        prepare(result, "tpu", None)
    if not torch.cuda.is_available():
        with pytest.raises(CannotTell, match="no cuda device"):
            prepare(result, "cuda", None)


@pytest.mark.parametrize(
    "words",
    [("llama-3-8b", "--engine", "vllm"), ("gpt-oss-20b", "--engine", "sglang", "--gpu", "h100"),
     ("deepseek-v4-flash", "--engine", "sglang"), ("llama-3-8b", "--engine", "tensorrt-llm")],
)  # fmt: skip
def test_the_json_is_the_schemas(words, answer):
    code, said = answer("verify", *words, "--ctx", "64", "--device", "cpu")
    Draft202012Validator(SCHEMA).validate(said)
    assert (code, said["verdict"], said["mode"]) == (0, "agrees", "allocation")


@pytest.mark.parametrize(("width", "is_table"), [(40, False), (60, True), (80, True), (160, True)])
def test_figures_are_whole_at_every_width(width, is_table, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    words = ["verify", "gpt-oss-20b", "--ctx", "256", "--engine", "sglang", "--device", "cpu"]
    assert main([*words, "--format", "table"]) == 0
    out = capsys.readouterr().out
    for figure in ("6,291,456 B", "7,864,320 B", "14,155,776 B"):
        assert out.count(figure) == 2
    assert (max(map(len, out.splitlines())) <= width) == is_table


@pytest.mark.skipif(sys.platform == "win32", reason="terminals are POSIX's")
@pytest.mark.parametrize(("more", "has_bar"), [((), True), (("--quiet",), False)])
def test_a_terminal_gets_a_progress_bar(more, has_bar):
    import pty

    ours, theirs = pty.openpty()
    words = ["verify", "llama-3-8b", "--ctx", "64", "--device", "cpu", "--engine", "ideal", *more]
    process = subprocess.Popen(
        [sys.executable, "-m", "kvplan", *words],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "NO_COLOR": "1", "TERM": "xterm", "COLUMNS": "80"},
    )
    os.close(theirs)
    drawn = b""
    with suppress(OSError):
        while part := os.read(ours, 65536):
            drawn += part
    out, _ = process.communicate(timeout=60)
    os.close(ours)
    assert process.returncode == 0
    assert (b"allocating on cpu" in drawn) == has_bar
    # No colour, and nothing of the bar where the report goes.
    assert b"\x1b[3" not in drawn
    assert b"allocating" not in out


def test_plain_and_table_say_the_same(capsys):
    words = ["verify", "llama-3-8b", "--ctx", "64", "--device", "cpu", "--engine", "ideal"]
    assert main([*words, "--format", "plain"]) == 0
    plain = capsys.readouterr().out
    assert plain.startswith("agrees: llama-3-8b, bf16 cache of 64 tokens, textbook, allocated on cpu\n")
    assert "whole cache: planned 8,388,608 B; allocated 8,388,608 B; agrees\n" in plain
    assert main([*words, "--format", "table"]) == 0
    table = capsys.readouterr().out
    assert "8,388,608 B" in table
