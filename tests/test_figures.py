"""The figures that the field agrees on, under the textbook engine.

Sources: the models' published configs and the formulas of their papers; DeepSeek-V3's 70,272 bytes a
token is 61 layers x (512 + 64) x 2.
"""

import pytest

GIB = 2**30


def kv(answer, model, ctx, *more):
    _, data = answer("show", model, "--engine", "ideal", "--ctx", str(ctx), *more)
    return data["kv_cache"]


@pytest.mark.parametrize(
    ("model", "per_token"),
    [("llama-2-7b", 524_288), ("llama-2-70b", 327_680), ("deepseek-v3", 70_272), ("llama-3-70b", 327_680)],
)
def test_bytes_per_token(answer, model, per_token):
    assert kv(answer, model, 1000)["bytes_per_token"] == per_token


@pytest.mark.parametrize(
    ("model", "ctx", "num_bytes"),
    [
        ("llama-2-7b", 4096, 2 * GIB),
        ("llama-2-13b", 4096, 3_355_443_200),
        ("llama-2-13b", 32_768, 26_843_545_600),
        ("llama-3-8b", 4096, GIB // 2),
        ("llama-3-8b", 32_768, 4 * GIB),
        ("llama-3-70b", 32_768, 10_737_418_240),
        ("deepseek-v3", 1, 70_272),
        ("gemma-3-27b", 131_072, 11_173_625_856),
        ("gpt-oss-120b", 131_072, 4_836_556_800),
        ("mistral-7b-v0.1", 32_768, 536_870_912),
    ],
)
def test_bytes_per_sequence(answer, model, ctx, num_bytes):
    assert kv(answer, model, ctx)["bytes_per_sequence"] == num_bytes


def test_sequences_multiply(answer):
    assert kv(answer, "llama-2-7b", 4096, "--batch", "32")["total_bytes"] == 64 * GIB


def test_weights_of_llama_3_70b(answer):
    _, data = answer("show", "llama-3-70b", "--engine", "ideal")
    assert data["model"]["weights_bytes"] == 141_107_412_992


@pytest.mark.parametrize(
    ("model", "ctx", "flags", "gib"),
    [
        ("mistral-7b-v0.1", 32_768, ["--max-num-batched-tokens", "8192"], 2.502),
        ("gpt-oss-120b", 131_072, ["--max-num-batched-tokens", "8192"], 5.067),
        ("gemma-3-27b", 131_072, ["--max-num-batched-tokens", "2048"], 12.351),
    ],
)
def test_what_vllm_reserves_for_windows(answer, model, ctx, flags, gib):
    _, data = answer("show", model, "--engine", "vllm", "--ctx", str(ctx), "--", *flags)
    assert round(data["kv_cache"]["bytes_per_sequence"] / GIB, 3) == gib
