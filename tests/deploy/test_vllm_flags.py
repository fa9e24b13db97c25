"""vLLM's command line: every spelling that its parser takes, and what each does to memory."""

import pytest

from kvplan.deploy.flags import read_flags
from kvplan.errors import InvalidValue


def options(line):
    return dict(read_flags("vllm", line.split()).options)


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("--max-model-len 32k", "max_model_len", 32_000),
        ("--max-model-len=32K", "max_model_len", 32_768),
        ("--max_model_len 25.6k", "max_model_len", 25_600),
        ("--max-model-len auto", "max_model_len", -1),
        ("--gpu_memory_utilization=0.85", "gpu_memory_utilization", 0.85),
        ("-tp 4", "tensor_parallel_size", 4),
        ("-q awq", "quantization", "awq"),
        ("--max-num-batched-token=2048", "max_num_batched_tokens", 2048),
        ("--no-enable-prefix-caching", "enable_prefix_caching", False),
        ("--enable-hybrid-kv-cache-manager", "disable_hybrid_kv_cache_manager", False),
        ("--no-enforce-eager", "enforce_eager", False),
        ("-O 3", "compilation_config", {"level": 3}),
        ("-O0", "uncompiled", True),
        ("--compilation_config.cudagraph_mode=NONE", "compilation_config", {"cudagraph_mode": "NONE"}),
        ("--kv-cache-memory 8G", "kv_cache_memory_bytes", 8 * 2**30),
        ("--num-gpu-blocks-override 100", "num_gpu_blocks_override", 100),
        ('--limit-mm-per-prompt {"image":0}', "limit_mm_per_prompt", {"image": 0}),
        ("--speculative-model [ngram]", "speculative_model", "[ngram]"),
    ],
)
def test_a_flag_in_every_spelling(line, name, value):
    assert options(line)[name] == value


def test_dotted_keys_make_one_object():
    line = "--speculative-config.method mtp --speculative-config.num_speculative_tokens 2"
    assert options(line) == {"speculative_config": {"method": "mtp", "num_speculative_tokens": 2}}


def test_unknown_flags_are_listed_and_unreadable_ones_refused():
    assert read_flags("vllm", ["--max-num-seqs", "8", "--warp-drive", "on"]).unknown == ("--warp-drive",)
    with pytest.raises(InvalidValue):
        read_flags("vllm", ["--max-num-seqs", "many"])


@pytest.mark.parametrize(
    ("flags", "smaller"),
    [
        (["--max-num-seqs", "64"], "activations"),
        (["--max-cudagraph-capture-size", "16"], "cuda_graphs"),
        (["--quantization", "fp8"], "weights"),
        (["--kv-cache-dtype", "fp8"], "kv_cache"),
    ],
)
def test_a_flag_changes_its_part(answer, flags, smaller):
    _, plain = answer("fit", "qwen3-8b", "--gpu", "h100", "--ctx", "8192")
    _, changed = answer("fit", "qwen3-8b", "--gpu", "h100", "--ctx", "8192", "--", *flags)

    def part(data):
        parts = data["devices"][0]["components"]
        return next(each["bytes"]["expected"] for each in parts if each["name"] == smaller)

    assert part(changed) < part(plain)


def test_what_is_not_planned_is_said(answer):
    _, data = answer("fit", "qwen3-8b", "--gpu", "h100", "--", "--enable-eplb")
    assert "flag-not-planned" in {warning["code"] for warning in data["warnings"]}
