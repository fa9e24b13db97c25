"""The reasons for a difference name the cause and the bytes that the plans themselves hold."""

import re
from itertools import combinations

import pytest

from kvplan.differences import explain
from kvplan.differences.reason import size
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
    used = b.cache.state_bytes_per_sequence // 4
    assert size(states[0].bytes.expected - used) in slots


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


QUESTIONS = [
    ("qwen3-next-80b-a3b", "2xh200", 32768, 4),
    ("gpt-oss-120b", "h200", 32768, 8),
    ("gemma-3-27b", "h200", 32768, 2),
    ("llama-3.3-70b", "4xh100", 16384, 8),
    ("deepseek-v3", "8xh200", 16384, 8),
    ("llama-3.1-8b", "h100", 8192, 8),
]
SERVERS = ("vllm", "sglang", "tensorrt-llm", "lmdeploy", "tgi", "llama.cpp", "transformers")
# Component of a GPU -> how the sentences that explain its difference begin, or what they hold.
CAUSES = {
    "weights": ("weights",),
    "kv_cache": (
        "layers, one sequence", "cache format", "beyond the layers", "copies of the cache", "state of one",
        "cache on one GPU", "never handed out", "for a moment", "state slots",
    ),
    "beside": ("inside the budget", "left free"),
    "budget": ("budget on one GPU",),
}  # fmt: skip


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question[0])
def test_no_difference_of_a_gpu_goes_without_a_reason(question):
    name, gpu, context, batch = question
    plans = {
        engine: planned(name, gpu, engine, context_tokens=context, num_sequences=batch) for engine in SERVERS
    }
    silent = []
    for first, second in combinations(SERVERS, 2):
        sentences = explain(plans[first], plans[second])
        parts = [parts_of(plans[engine]) for engine in (first, second)]
        for part, causes in CAUSES.items():
            apart = abs(parts[0][part] - parts[1][part]) > 64 * MIB
            if apart and not any(cause in sentence for cause in causes for sentence in sentences):
                silent.append((first, second, part, size(parts[0][part]), size(parts[1][part])))
    assert silent == []


def parts_of(plan):
    """Return what each device class of bytes is on the fullest GPU."""
    parts = dict.fromkeys(CAUSES, 0)
    device = max(plan.devices, key=lambda each: each.required.expected)
    for part in device.components:
        # Some engines keep states in the cache's own pages.
        name = "kv_cache" if part.name == "recurrent_state" else part.name
        parts[name if name in parts else "beside"] += part.bytes.expected
    return parts | {"budget": plan.devices[0].budget_bytes}


def test_what_an_engine_leaves_free_is_not_taken_for_its_runtime():
    sentences, _, b = reasons("llama-3.1-8b", "h100", "vllm", "tensorrt-llm", context_tokens=8192)
    held = {part.name: part.bytes.expected for part in b.devices[0].components}
    taken = held["weights"] + held["activations"] + 5 * GIB // 2
    free = int((b.devices[0].budget_bytes - taken) * (1 - 0.9))
    left = next(sentence for sentence in sentences if sentence.startswith("left free"))
    assert left.startswith(f"left free on one GPU: none under vLLM, {size(free)} (the cache gets 0.9 of")
    assert (
        f"{size(held['activations'] + 5 * GIB // 2)} (activations, runtime) under TensorRT-LLM"
        in " ".join(sentences)
    )
    budget = next(sentence for sentence in sentences if sentence.startswith("budget"))
    assert budget.endswith("(all that is free) under TensorRT-LLM")


def test_windows_are_said_to_be_kept_in_full_where_they_are():
    sentences, _, _ = reasons("gemma-3-27b", "h200", "llama.cpp", "tgi", context_tokens=32768)
    windows = next(sentence for sentence in sentences if "sliding window layers" in sentence)
    assert "(the window and one micro-batch) under llama.cpp" in windows
    assert windows.endswith("(kept in full) under TGI")


def test_tgi_s_budget_is_told_by_its_version():
    for version, base in (("2.4", "all that is free"), ("3.3", "0.9 of the card's total")):
        sentences, _, _ = reasons(
            "llama-3.1-8b", "h100", "vllm", f"tgi@{version}", context_tokens=4096, num_sequences=16
        )
        assert any(base in sentence for sentence in sentences if sentence.startswith("budget"))


def test_sizes_are_short():
    assert size(3 * GIB) == "3.00 GiB"
    assert size(2 * MIB) == "2.0 MiB"
    assert size(0) == "none"


def test_a_load_inside_tgi_s_warm_up_is_not_held_against_its_share():
    sentences, _, b = reasons("gpt-oss-120b", "h100", "vllm", "tgi", context_tokens=4096)
    assert b.devices[0].budget_bytes == b.devices[0].device.usable_bytes
    budget = next(sentence for sentence in sentences if sentence.startswith("budget"))
    assert budget.endswith("(all that is free) under TGI")
