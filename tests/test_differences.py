"""The reasons for a difference name the cause and the bytes that the plans themselves hold."""

import re

import pytest

from kvplan.differences import explain, size
from kvplan.engines import engine_named
from kvplan.hardware.parse import parse_gpus
from kvplan.plan import plan
from kvplan.sources.catalog import find
from kvplan.units import GIB, MIB
from kvplan.workload import Workload


def planned(name, gpu, engine, **asked):
    return plan(find(name), Workload(**asked), parse_gpus((gpu,)), engine_named(engine))


def reasons(name, gpu, first, second, **asked):
    a, b = (planned(name, gpu, engine, **asked) for engine in (first, second))
    return explain(a, b), a, b


def test_a_plan_does_not_differ_from_itself():
    for engine in ("vllm", "sglang", "llama.cpp", "ideal"):
        one = planned("llama-3.1-8b", "h100", engine, context_tokens=8192)
        assert explain(one, one) == ()


def test_the_base_of_the_budget_is_named_with_both_shares():
    sentences, a, b = reasons("llama-3.1-8b", "h100", "vllm", "sglang", context_tokens=8192)
    budget = next(sentence for sentence in sentences if sentence.startswith("budget"))
    assert size(a.devices[0].budget_bytes) in budget
    assert size(b.devices[0].budget_bytes) in budget
    assert "0.92 of the card's total" in budget
    assert "0.83 of what is free before the weights" in budget


def test_windows_are_explained_by_the_ratio_of_the_pools():
    sentences, a, b = reasons("gpt-oss-20b", "h100", "vllm", "sglang", context_tokens=32768)
    windows = next(sentence for sentence in sentences if "sliding window layers" in sentence)
    kept = {plan.engine_name: group_bytes(plan, "sliding_window") for plan in (a, b)}
    assert size(kept["vllm"]) in windows
    assert size(kept["sglang"]) in windows
    assert "0.8 window tokens for each full one" in windows


def group_bytes(plan, kind):
    return sum(group.bytes_per_sequence for group in plan.cache.groups if group.kind == kind)


def test_state_slots_are_counted():
    sentences, _, b = reasons("qwen3-next-80b-a3b", "4xh100", "vllm", "sglang", context_tokens=32768)
    assert any("5 slots a request" in sentence for sentence in sentences)
    slots = next(sentence for sentence in sentences if sentence.startswith("state slots set aside"))
    states = [part for part in b.devices[0].components if part.name == "recurrent_state"]
    assert size(states[0].bytes.expected) in slots


def test_formats_of_weights_and_cache_are_named():
    a = planned("llama-3.1-8b", "h100", "sglang", context_tokens=8192)
    b = planned(
        "llama-3.1-8b",
        "h100",
        "sglang",
        context_tokens=8192,
        weights_format="fp8",
        kv_cache_dtype_k="fp8_e4m3",
        kv_cache_dtype_v="fp8_e4m3",
    )
    sentences = explain(a, b)
    assert any(s.startswith("weights: ") and "as bf16" in s and "as fp8" in s for s in sentences)
    assert any(s.startswith("cache format: ") and "131,072 B" in s and "65,536 B" in s for s in sentences)
    assert all("under the first" in s and "under the second" in s for s in sentences)


def test_a_latent_cache_on_eight_ranks_is_held_eight_times():
    sentences, _, _ = reasons("deepseek-v3", "8xh200", "sglang", "llama.cpp", context_tokens=32768)
    assert "copies of the cache over all ranks: 8.0 under SGLang, 1.0 under llama.cpp" in sentences


@pytest.mark.parametrize("model", ["llama-3.1-8b", "gpt-oss-20b", "gemma-3-27b", "deepseek-v4-flash"])
def test_the_two_orders_say_the_same(model):
    forward, _, _ = reasons(model, "8xh200", "vllm", "sglang", context_tokens=16384, num_sequences=4)
    backward, _, _ = reasons(model, "8xh200", "sglang", "vllm", context_tokens=16384, num_sequences=4)
    amounts = [sorted(re.findall(r"[\d.]+ [GM]iB", " ".join(each))) for each in (forward, backward)]
    assert len(forward) == len(backward)
    assert amounts[0] == amounts[1]


def test_sizes_are_short():
    assert size(3 * GIB) == "3.00 GiB"
    assert size(2 * MIB) == "2.0 MiB"
    assert size(0) == "none"
