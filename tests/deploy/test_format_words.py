"""What a name says of its weights, held to names of releases as their makers spell them."""

import pytest

from kvplan.deploy.format_words import (
    WORDS,
    format_said,
    gguf_format,
    sounds_quantized,
    without_format,
    without_mix,
)
from kvplan.weight_formats import weight_format


@pytest.mark.parametrize(
    ("name", "said", "plain"),
    [
        ("Qwen3-14B-FP8", "fp8", "Qwen3-14B"),
        ("Llama-3.1-8B-Instruct-FP8-dynamic", "fp8", "Llama-3.1-8B-Instruct"),
        ("Qwen2.5-72B-Instruct-GPTQ-Int8", "gptq-int8", "Qwen2.5-72B-Instruct"),
        ("Qwen2.5-72B-Instruct-GPTQ-Int4", "gptq-int4", "Qwen2.5-72B-Instruct"),
        ("Meta-Llama-3-8B-Instruct-AWQ", "awq", "Meta-Llama-3-8B-Instruct"),
        ("Llama-3.3-70B-Instruct-NVFP4", "nvfp4", "Llama-3.3-70B-Instruct"),
        ("gemma-3-27b-it-quantized.w4a16", "w4a16", "gemma-3-27b-it-quantized"),
        ("llama-3-8b-bnb-4bit", "nf4", "llama-3-8b"),
        ("Mistral-7B-v0.3-4bit", "", "Mistral-7B-v0.3"),
        ("Qwen3-32B-exl3", "", "Qwen3-32B"),
    ],
)
def test_names_of_quantized_releases(name, said, plain):
    assert sounds_quantized(name)
    assert format_said(name) == said
    assert without_format(name) == plain


@pytest.mark.parametrize("name", ["Qwen3-14B", "Llama-3.1-8B-Instruct", "gpt-oss-20b", "Phi-4-mini-instruct"])
def test_other_names_say_nothing(name):
    assert not sounds_quantized(name)
    assert format_said(name) == ""
    assert without_format(name) == name


@pytest.mark.parametrize(
    ("file", "known", "plain"),
    [
        ("Qwen3-8B-Q4_K_M.gguf", "q4_k_m", "Qwen3-8B-"),
        ("models/Llama-3-8B-UD-IQ2_XXS.gguf", "iq2_xxs", "models/Llama-3-8B-"),
        ("gpt-oss-20b-BF16-00001-of-00003.gguf", "gguf-bf16", "gpt-oss-20b-"),
        ("Qwen3-8B-Q9_Z.gguf", None, "Qwen3-8B-"),
        ("Qwen3-8B.gguf", None, "Qwen3-8B"),
        ("Qwen3-8B-Q4_K_M", None, "Qwen3-8B-"),
    ],
)
def test_names_of_gguf_files(file, known, plain):
    found = gguf_format(file)
    assert (found[0] if found else None) == known
    assert without_mix(file) == plain


def test_every_format_that_a_word_means_is_one():
    for name in filter(None, WORDS.values()):
        assert weight_format(name).name == name
