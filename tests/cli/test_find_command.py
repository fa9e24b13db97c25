"""kvplan find: what fits, in which order, and that every row is true."""

import csv
from io import StringIO

import pytest

from kvplan.quality import weight_loss

SMALL = ("find", "gemma", "--gpu", "24GB", "--ctx", "16k")


def test_every_row_is_what_its_command_answers(answer):
    _, data = answer(*SMALL)
    assert data["found"]
    for row in data["found"]:
        _, alone = answer(*row["command"].split()[1:])
        assert alone["verdict"] == row["verdict"]
        assert alone["devices"][0]["headroom_bytes"] == row["headroom_bytes"]
        assert alone["limits"]["max_context_tokens"] == row["max_context_tokens"]


def test_best_is_first(answer):
    _, data = answer("find", "--gpu", "24GB", "--ctx", "32k", "--top", "200")
    order = [
        (row["verdict"] != "fits", row["quality"]["tier"] == "large", -row["num_parameters"])
        for row in data["found"]
    ]
    assert order == sorted(order)
    assert len({row["model"] for row in data["found"]}) == len(data["found"])
    assert all(row["max_context_tokens"] >= 32_768 for row in data["found"])


def test_every_format_keeps_the_best_a_model(answer):
    _, best = answer(*SMALL)
    _, every = answer(*SMALL, "--every-format", "--top", "500")
    assert every["num_fitting"] > best["num_fitting"]
    for row in best["found"]:
        alike = [other for other in every["found"] if other["model"] == row["model"]]
        # What fits comes before what is tight, whatever its format.
        best_verdict = "fits" if any(other["verdict"] == "fits" for other in alike) else "tight"
        assert row["verdict"] == best_verdict
        formats = [other["weights_format"] for other in alike if other["verdict"] == best_verdict]
        ranks = [weight_loss(name).rank for name in formats]
        assert weight_loss(row["weights_format"]).rank == min(ranks)


def test_a_rate_leaves_out_what_is_slower(answer):
    _, everything = answer(*SMALL, "--top", "500", "--every-format")
    _, fast = answer(*SMALL, "--top", "500", "--every-format", "--min-tokens-per-second", "40")
    assert 0 < fast["num_fitting"] < everything["num_fitting"]
    assert fast["num_fitting"] + fast["num_too_slow"] == everything["num_fitting"]
    assert all(row["tokens_per_second"]["expected"] >= 40 for row in fast["found"])


def test_an_unknown_bandwidth_is_not_a_fast_one(answer):
    code, data = answer(*SMALL[:2], "--gpu", "24GiB", "--ctx", "8k", "--min-tokens-per-second", "1")
    assert (code, data["found"]) == (1, [])
    assert data["num_unknown_speed"] == data["num_too_slow"] > 0


def test_filters_by_family_format_and_engine(answer):
    _, data = answer("find", "--gpu", "80GB", "--family", "qwen3", "--weights", "awq", "--engine", "vllm")
    assert data["found"]
    assert all(row["weights_format"] == "awq" and "qwen3" in row["model"] for row in data["found"])
    code, data = answer("find", "--gpu", "80GB", "--family", "qwen33")
    assert (code, data["error"]["code"]) == (2, "invalid-value")
    code, data = answer("find", "--gpu", "80GB", "--weights", "nope")
    assert (code, data["error"]["code"]) == (2, "unknown-format")


def test_a_quantized_release_is_not_listed_twice(answer):
    _, data = answer("find", "qwen3-30b-a3b", "--gpu", "24GB", "--ctx", "8k", "--every-format")
    assert all(row["weights_format"].startswith("fp8") for row in data["found"] if "fp8" in row["model"])


def test_nothing_fits_is_exit_code_one(kvplan):
    code, out, err = kvplan("find", "llama-3.1-405b", "--gpu", "24GB", "--format", "table")
    assert (code, err) == (1, "")
    assert out.startswith("0 of ")
    assert "nothing fits" in out


@pytest.mark.parametrize("width", [60, 80, 160])
def test_any_width_keeps_to_the_screen(kvplan, width):
    _, out, _ = kvplan(*SMALL, "--format", "table", env={"COLUMNS": str(width)})
    assert all(len(line) <= width for line in out.splitlines() if "kvplan fit" not in line)
    assert out.count("\nmodel ") == 1
    assert "as rtx-" in out or "read as" in out


def test_csv_is_for_scripts(kvplan):
    rows = list(csv.DictReader(StringIO(kvplan(*SMALL, "--format", "csv")[1])))
    assert all(int(row["headroom_bytes"]) > 0 and float(row["tokens_per_second"]) > 0 for row in rows)


def test_all_gpus_show_the_best_on_each_smallest_first(answer):
    code, data = answer("find", "llama-3-70b", "--gpu", "all", "--ctx", "8k", "--top", "500")
    assert code == 0
    assert 0 < data["num_fitting"] == len(data["found"]) < data["num_gpus"]
    assert len({row["gpu"] for row in data["found"]}) == len(data["found"])
    for row in (data["found"][0], data["found"][-1], *(r for r in data["found"] if r["gpu"] == "l40s")):
        _, alone = answer("find", "llama-3-70b", "--gpu", row["gpu"], "--ctx", "8k")
        assert {"gpu": row["gpu"], **alone["found"][0]} == row
    _, hungry = answer("find", "llama-3-70b", "--gpu", "all", "--top", "500", "--min-tokens-per-second", "20")
    assert 0 < hungry["num_fitting"] < data["num_fitting"]
    assert all(row["tokens_per_second"]["expected"] >= 20 for row in hungry["found"])


def test_all_gpus_take_the_whole_catalogue_as_published(kvplan, answer):
    _, out, _ = kvplan("find", "--gpu", "all", "--top", "3", "--format", "plain")
    assert "models as they are published" in out
    code, data = answer("find", "--gpu", "all", "--every-format")
    assert (code, data["error"]["code"]) == (2, "option-clash")


@pytest.mark.parametrize(
    "words",
    [
        ("qwen3-30b-a3b", "--gpu", "rtx-3060-12gb", "--weights", "q4_k_m", "--cpu-memory", "64GiB"),
        ("llama-3.1-8b", "--gpu", "8GB", "--weights", "q8_0", "--cpu-memory", "32GiB"),
    ],
    ids=["experts", "layers"],
)
def test_what_spills_is_found_where_that_is_allowed(answer, words):
    code, without = answer("find", *words, "--ctx", "8k")
    assert (code, without["found"]) == (1, [])
    code, data = answer("find", *words, "--ctx", "8k", "--allow-offload")
    assert code == 0
    assert {row["verdict"] for row in data["found"]} == {"offload"}
    row = data["found"][0]
    status, alone = answer(*row["command"].split()[1:])
    assert (status, alone["verdict"]) == (0, "offload")
    assert alone["devices"][0]["headroom_bytes"] == row["headroom_bytes"]


def test_the_cpu_alone_is_searched_as_fit_plans_it(answer, kvplan):
    code, data = answer("find", "llama-3.1-8b", "--gpu", "none", "--cpu-memory", "64GiB", "--ctx", "8k")
    assert code == 0
    row = next(row for row in data["found"] if row["model"] == "llama-3.1-8b")
    status, alone = answer(*row["command"].split()[1:])
    assert (status, alone["verdict"]) == (0, row["verdict"])
    assert kvplan("find", "llama-3.1-8b", "--gpu", "none", "--cpu-memory", "64GiB")[0] == 0
    code, _, err = kvplan("find", "llama-3.1-8b", "--gpu", "none")
    assert code == 3
    assert "--cpu-memory" in err
