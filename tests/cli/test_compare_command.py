"""kvplan compare: what is set side by side, and why it differs."""

import csv
from io import StringIO

import pytest

ENGINES = (
    "compare",
    "qwen3-next-80b",
    "--gpu",
    "h100",
    "--ctx",
    "32k",
    "--engine",
    "vllm",
    "--engine",
    "ideal",
)


def test_each_subject_is_what_fit_answers_alone(answer):
    _, data = answer("compare", "llama-3-8b", "gemma-3-4b", "--gpu", "24GB", "--gpu", "h100", "--ctx", "16k")
    assert [subject["labels"] for subject in data["subjects"]] == [
        {"model": "llama-3-8b", "gpu": "24GB"},
        {"model": "llama-3-8b", "gpu": "h100"},
        {"model": "gemma-3-4b", "gpu": "24GB"},
        {"model": "gemma-3-4b", "gpu": "h100"},
    ]
    for subject in data["subjects"]:
        _, alone = answer(*subject["command"].split()[1:])
        for key in ("verdict", "devices", "limits", "kv_cache"):
            assert subject[key] == alone[key]


def test_models_differ_by_parameters_and_layers(answer):
    _, data = answer("compare", "llama-3-70b", "gemma-3-27b", "--gpu", "h100", "--ctx", "8k")
    (difference,) = data["differences"]
    text = " ".join(difference["reasons"])
    assert "27.43 B parameters against 70.55 B" in text
    assert "52 sliding window layers up to their window" in text
    assert "327,680 B a token in 80 full attention layers" in text


def test_contexts_differ_by_the_cache_of_their_tokens(answer):
    _, data = answer("compare", "llama-3-8b", "--gpu", "80GB", "--ctx", "4k", "--ctx", "8k")
    assert data["differences"][0]["reasons"] == [
        "context: 4,096 more tokens a sequence are 0.50 GiB",
    ]


def test_cards_differ_by_budget_and_by_the_defaults_that_follow_them(answer):
    _, data = answer("compare", "llama-3-8b", "--gpu", "a100-80gb", "--gpu", "h100", "--ctx", "8k")
    text = " ".join(data["differences"][0]["reasons"])
    assert "budget: 72.85 GiB" in text
    assert "max_num_seqs 1,024 against 256" in text


def test_a_grid_is_explained_by_its_neighbours(answer):
    _, data = answer("compare", "llama-3-8b", "--gpu", "24GB", "--gpu", "80GB", "--ctx", "4k", "--ctx", "8k")
    pairs = [(each["first"], each["second"]) for each in data["differences"]]
    assert pairs == [(0, 1), (0, 2), (1, 3)]


def test_one_subject_that_cannot_be_planned_does_not_hide_the_rest(answer):
    words = ("compare", "qwen3-8b", "--gpu", "24GB", "--engine", "vllm", "--engine", "llama.cpp")
    code, data = answer(*words, "--kv", "q8_0")
    assert code == 0
    assert [subject["verdict"] for subject in data["subjects"]] == ["refused", "fits"]
    assert "no KV cache format" in data["subjects"][0]["error"]["message"]
    code, data = answer(*words[:6], "--kv", "q8_0")
    assert (code, data["error"]["code"]) == (2, "unknown-format")


@pytest.mark.parametrize("width", [60, 80, 160])
def test_any_width_shows_every_subject(kvplan, width):
    words = ("compare", "llama-3-70b", "qwen3-32b", "gemma-3-27b", "phi-4", "--gpu", "h100", "--ctx", "8k")
    code, out, err = kvplan(*words, "--format", "table", env={"COLUMNS": str(width)})
    assert (code, err) == (0, "")
    assert max(len(line) for line in out.splitlines()) <= min(width, 120)
    assert out.count("verdict") == (1 if width >= 80 else 2)
    assert all(name in out for name in words[1:5])
    assert "…" not in out


def test_csv_has_bytes_and_markdown_has_a_table(kvplan):
    rows = list(csv.DictReader(StringIO(kvplan(*ENGINES, "--format", "csv")[1])))
    assert [row["engine"] for row in rows] == ["vllm", "ideal"]
    assert all(int(row["kv_cache_bytes_per_token"]) == 24_576 for row in rows)
    out = kvplan(*ENGINES, "--format", "markdown")[1]
    assert "|  | vllm | ideal |" in out
    assert "| --- | --- | --- |" in out


def test_bad_questions_are_refused(kvplan):
    code, _, err = kvplan("compare", "llama-3-8b")
    assert code == 2
    assert "no --gpu" in err
    code, _, err = kvplan(*ENGINES, "--", "--max-num-seqs", "8")
    assert code == 2
    assert "more than one --engine" in err
    for words, text in (
        (("llama-3-8b", "lama-3-70b", "--gpu", "h100"), "did you mean: llama-3-70b"),
        (("llama-3-8b", "--gpu", "h100,h1000"), "'h1000' is not a GPU"),
        (("llama-3-8b", "--gpu", "h100", "--engine", "vllm,vlm"), "'vlm' is not an engine"),
        (("llama-3-8b", "--gpu", "h100", "--kv", "bf16,bf17"), "'bf17' is not a KV cache format"),
        (("llama-3-8b", "--gpu", "h100", "--ctx", "8k,32x"), "'32x' is not a context length"),
        (("llama-3-8b", "--gpu", "h100", "--batch", "1,0"), "'0' is not a number of sequences"),
    ):
        code, out, err = kvplan("compare", *words)
        assert (code, out) == (2, "")
        assert text in err
    many = [word for length in range(1, 26) for word in ("--ctx", f"{length}k")]
    code, _, err = kvplan("compare", "llama-3-8b", "--gpu", "h100", *many)
    assert code == 2
    assert "25 combinations" in err


def test_ascii_streams_get_ascii(kvplan):
    _, out, err = kvplan(*ENGINES, "--format", "table", env={"PYTHONIOENCODING": "ascii"})
    assert out.isascii()
    assert err == ""


def test_lists_with_commas_are_repeated_options(answer):
    _, listed = answer(
        "compare", "llama-3-8b", "--gpu", "24GB,h100", "--ctx", "8k,16k", "--engine", "vllm,ideal"
    )
    repeated = (
        "--gpu",
        "24GB",
        "--gpu",
        "h100",
        "--ctx",
        "8k",
        "--ctx",
        "16k",
        "--engine",
        "vllm",
        "--engine",
    )
    _, spelled = answer("compare", "llama-3-8b", *repeated, "ideal")
    assert len(listed["subjects"]) == 8
    assert listed == spelled
    code, data = answer("compare", "llama-3-8b", "--gpu", "24GB,,h100")
    assert (code, data["error"]["code"]) == (2, "invalid-value")
