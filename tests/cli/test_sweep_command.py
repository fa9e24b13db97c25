"""kvplan sweep: every point is what fit answers, axes are read and counted, tables read at a glance."""

import csv
import json
from io import StringIO

import pytest

from kvplan.errors import InvalidValue
from kvplan.sweep import count_values, values_of
from kvplan.units import parse_tokens

WORDS = (
    "sweep",
    "llama-3.1-8b",
    "--gpu",
    "rtx-4090,l40s",
    "--ctx",
    "8k..64k",
    "--batch",
    "1,8",
    "--kv",
    "auto,fp8",
)


def test_every_point_is_what_fit_answers(answer):
    _, data = answer(*WORDS)
    assert len(data["points"]) == 2 * 4 * 2 * 2
    for point in data["points"][::5]:
        at = point["at"]
        words = [word for name in ("gpu", "ctx", "batch", "kv") for word in (f"--{name}", at[name])]
        _, alone = answer("fit", "llama-3.1-8b", *words)
        device = alone["devices"][0]
        assert point["verdict"] == alone["verdict"]
        assert point["headroom_bytes"] == device["headroom_bytes"]
        assert point["budget_bytes"] == device["budget_bytes"]
        assert point["components"] == {
            part["name"]: part["bytes"]["expected"] for part in device["components"]
        }


@pytest.mark.parametrize("command", ["sweep", "compare"])
@pytest.mark.parametrize(
    "beside",
    [
        ("--draft", "llama-3.2-1b"),
        ("--lora", "4x64"),
        ("--weights", "q8_0", "--", "-md", "llama-3.2-1b"),
        ("--", "--tensor-parallel-size", "2"),
        ("--reserve", "2GiB", "--overhead", "1GiB"),
    ],
    ids=" ".join,
)
def test_what_is_said_beside_the_model_counts_as_in_fit(answer, command, beside):
    words = ("llama-3.1-8b", "--gpu", "48GB", "--ctx", "8k", *beside)
    device = answer("fit", *words)[1]["devices"][0]
    _, data = answer(command, *words)
    if command == "sweep":
        (point,) = data["points"]
        assert point["headroom_bytes"] == device["headroom_bytes"]
        assert point["components"] == {
            part["name"]: part["bytes"]["expected"] for part in device["components"]
        }
    else:
        assert data["subjects"][0]["devices"][0] == device


@pytest.mark.parametrize("command", ["fit", "show", "sweep", "compare", "capacity"])
def test_an_engine_flag_that_nobody_knows_is_said(kvplan, command):
    words = ("llama-3.1-8b", "--gpu", "48GB", "--ctx", "8k", "--", "--max-model-ln", "4")
    code, out, _ = kvplan(command, *words)
    assert code == 0
    assert "not read: --max-model-ln" in out


@pytest.mark.parametrize("command", ["sweep", "compare"])
def test_memory_of_the_machine_counts_as_in_fit(answer, command):
    words = ("qwen3-30b-a3b", "--gpu", "rtx-3060-12gb", "--weights", "q4_k_m", "--ctx", "8k")
    _, alone = answer("fit", *words, "--cpu-memory", "64GiB")
    assert alone["verdict"] == "offload"
    for more, verdict in (((), "does_not_fit"), (("--cpu-memory", "64GiB"), "offload")):
        _, data = answer(command, *words, *more)
        (found,) = data["points"] if command == "sweep" else data["subjects"]
        assert found["verdict"] == verdict


def test_parallel_ranks_engine_flags_and_engines(answer):
    _, data = answer(
        "sweep", "llama-3-70b", "--gpu", "a100-80gb", "--ctx", "4k,8k", "--tp", "4", "--", "--enforce-eager"
    )
    _, alone = answer(
        "fit", "llama-3-70b", "--gpu", "a100-80gb", "--ctx", "8k", "--tp", "4", "--", "--enforce-eager"
    )
    assert data["points"][1]["headroom_bytes"] == alone["devices"][0]["headroom_bytes"]
    _, data = answer(
        "sweep", "qwen3-8b", "--gpu", "24GB", "--ctx", "8k", "--engine", "vllm,llama.cpp", "--kv", "q8_0"
    )
    assert [point["verdict"] for point in data["points"]] == ["refused", "fits"]
    assert "no KV cache format" in data["points"][0]["problem"]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("4k..32k", ["4096", "8192", "16384", "32768"]),
        ("4k..20k", ["4096", "8192", "16384", "20480"]),
        ("8k..32k+8k", ["8192", "16384", "24576", "32768"]),
        ("1000..2500+1k", ["1000", "2024", "2500"]),
        ("4k,8k,4k..8k", ["4k", "8k", "4096", "8192"]),
        ("1.5k..6k", ["1536", "3072", "6144"]),
        ("7..7", ["7"]),
    ],
)
def test_axes_double_step_and_end_where_they_say(text, values):
    assert list(values_of((text,), parse_tokens)) == values
    assert count_values((text,), parse_tokens) == len(values)


@pytest.mark.parametrize("text", ["8k..4k", "4k,,8k", "", "4k..", "..8k", "0..8", "nope", "4k..8k+0"])
def test_axes_that_cannot_be_read_are_refused(text):
    with pytest.raises(InvalidValue):
        values_of((text,), parse_tokens)


def test_too_many_points_are_refused_with_their_count(kvplan):
    code, _, err = kvplan("sweep", "llama-3-8b", "--gpu", "h100", "--ctx", "1..1000000000+1")
    assert code == 2
    assert "1,000,000,000 points" in err
    code, _, err = kvplan(
        "sweep", "llama-3-8b", "--gpu", "h100", "--ctx", "1..1000+1", "--batch", "1..1000+1"
    )
    assert code == 2
    assert "1,000,000 points" in err


def test_other_bad_questions(kvplan):
    for words, text in (
        (("sweep", "llama-3-8b", "--ctx", "4k,8k"), "no --gpu"),
        (
            ("sweep", "llama-3-8b", "--gpu", "h100,nope", "--ctx", "4k", "--batch", "0,1"),
            "number of sequences",
        ),
        (("sweep", "llama-3-8b", "--gpu", "nope", "--ctx", "4k,8k"), "not a GPU"),
        (("sweep", "llama-3-8b", "--gpu", "h100,nope", "--ctx", "4k,8k"), "'nope' is not a GPU"),
        (("sweep", "llama-3-8b", "--gpu", "h100", "--engine", "vllm,vlm"), "did you mean: vllm"),
        (("sweep", "llama-3-8b", "--gpu", "h100", "--weights", "bf16,q4_k_mm"), "q4_k_m"),
        (("sweep", "llama-3-8b", "--gpu", "h100", "--kv", "bf16,bf17"), "bf16"),
        ((*WORDS, "--engine", "vllm,ideal", "--", "--enforce-eager"), "more than one --engine"),
        (("sweep", "llama-3-8b", "--gpu", "h100", "--ctx", "4k", "--format", "svg"), "several contexts"),
    ):
        code, out, err = kvplan(*words)
        assert (code, out) == (2, "")
        assert text in err


@pytest.mark.parametrize("width", [60, 80, 160])
def test_any_width_keeps_to_the_screen(kvplan, width):
    _, out, _ = kvplan(*WORDS, "--format", "table", env={"COLUMNS": str(width)})
    assert all(len(line) <= min(width, 120) for line in out.splitlines())
    assert out.count("fits ") > 10
    assert "kv fp8, gpu l40s" in out


def test_wide_grids_continue_below_and_keep_their_rows_names(kvplan):
    words = ("sweep", "llama-3.1-8b", "--gpu", "l40s", "--ctx", "4k,8k", "--batch", "1..256")
    _, out, _ = kvplan(*words, "--format", "table", env={"COLUMNS": "60"})
    assert out.count("  4,096 ") + out.count("\n4,096 ") >= 2
    assert all(f"batch {number}" in out for number in (1, 2, 4, 8, 16, 32, 64, 128, 256))


def test_verdicts_are_words_also_without_colour(kvplan):
    _, out, _ = kvplan(*WORDS, "--format", "table", env={"PYTHONIOENCODING": "ascii", "NO_COLOR": "1"})
    assert out.isascii()
    assert "no -" in out
    _, out, _ = kvplan(*WORDS, "--format", "table", env={"FORCE_COLOR": "1"})
    assert "\x1b[1;32mfits\x1b[0m" in out
    assert "\x1b[1;31mno\x1b[0m" in out


def test_a_context_beyond_the_model_is_said(kvplan):
    _, out, _ = kvplan("sweep", "llama-3-8b", "--gpu", "l40s", "--ctx", "8k,32k")
    assert "beyond what llama-3-8b was trained for" in out


def test_csv_and_exports(kvplan, tmp_path):
    code, out, _ = kvplan(
        *WORDS,
        "--format",
        "csv",
        "--export",
        f"svg={tmp_path / 'a.svg'}",
        "--export",
        f"json={tmp_path / 'a.json'}",
    )
    rows = list(csv.DictReader(StringIO(out)))
    points = json.loads((tmp_path / "a.json").read_text())["points"]
    assert code == 0
    assert [int(row["headroom_bytes"]) for row in rows] == [point["headroom_bytes"] for point in points]
    assert {row["gpu"] for row in rows} == {"rtx-4090", "l40s"}
    assert (tmp_path / "a.svg").read_text().startswith("<svg")
