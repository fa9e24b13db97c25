"""The roofline against published runs, and what must hold of any rate."""

from dataclasses import replace
from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle_tables import oracle

from kvplan import Workload, engine_named, open_model, parse_gpus
from kvplan.plan import plan
from kvplan.speed import decode_rate, prefill_rate
from kvplan.speed.reads import expert_share

ROWS = oracle("decode_rates.jsonl")


def planned(model, gpus, context_tokens, weights, engine="llama.cpp", **workload):
    asked = Workload(context_tokens=context_tokens, context_source="flag", weights_format=weights, **workload)
    return plan(open_model(model), asked, parse_gpus(gpus), engine_named(engine))


@pytest.mark.parametrize(
    "row", ROWS, ids=[f"{row['count']}x{row['gpu']}-{row['model']}-{row['weights']}" for row in ROWS]
)
def test_published_runs_lie_in_the_interval(row):
    for length, measured in row["decode"].items():
        result = planned(row["model"], [f"{row['count']}x{row['gpu']}"], int(length), row["weights"])
        # An average over the tokens generated: half of them are held on average.
        rate = decode_rate(result, context_tokens=int(length) // 2)
        assert rate.low <= measured <= rate.high, (length, measured, rate)
        assert rate.basis == "calibrated"


def test_published_runs_are_expected_within_a_factor_on_average():
    errors = []
    for row in ROWS:
        for length, measured in row["decode"].items():
            result = planned(row["model"], [f"{row['count']}x{row['gpu']}"], int(length), row["weights"])
            errors.append(abs(log(decode_rate(result, context_tokens=int(length) // 2).expected / measured)))
    assert sorted(errors)[len(errors) // 2] < log(1.15)
    assert max(errors) < log(1.8)


@pytest.mark.parametrize("row", [row for row in ROWS if row["count"] == 1], ids=lambda row: row["gpu"])
def test_published_prompts_lie_in_the_interval(row):
    for length, measured in row["prefill"].items():
        result = planned(row["model"], [row["gpu"]], int(length), row["weights"])
        rate = prefill_rate(result)
        if rate is not None:
            assert rate.low <= measured <= rate.high, (length, measured, rate)


def test_half_the_layers_in_system_memory_cost_most_of_the_speed():
    whole = planned("llama-3-8b", ["rtx-4090"], 8192, "q4_k_m")
    half = planned("llama-3-8b", ["rtx-4090"], 8192, "q4_k_m", engine_options=(("n_gpu_layers", "16"),))
    fast, slow = decode_rate(whole), decode_rate(half)
    assert slow.high < fast.low
    assert slow.basis == "assumed"
    assert "system memory" in slow.why


def test_a_device_of_unknown_bandwidth_has_no_rate():
    assert decode_rate(planned("llama-3-8b", ["24GiB"], 8192, "q4_k_m")) is None
    assert prefill_rate(planned("llama-3-8b", ["24GiB"], 8192, "q4_k_m")) is None


def test_tensor_parallel_ranks_work_at_once_and_layers_in_turn():
    one = decode_rate(planned("llama-3-8b", ["h100"], 8192, "bf16", "vllm"))
    two = decode_rate(planned("llama-3-8b", ["2xh100"], 8192, "bf16", "vllm"))
    in_turn = decode_rate(planned("llama-3-8b", ["2xrtx-4090"], 8192, "q4_k_m"))
    alone = decode_rate(planned("llama-3-8b", ["rtx-4090"], 8192, "q4_k_m"))
    assert 1.2 * one.expected < two.expected < 2 * one.expected
    assert in_turn.expected == pytest.approx(alone.expected, rel=0.05)


def test_a_mixture_reads_what_its_router_picks():
    model = open_model("qwen3-30b-a3b")
    assert expert_share(model, 1) == pytest.approx(8 / 128)
    assert expert_share(model, 16) == pytest.approx(1 - (120 / 128) ** 16)
    mixture = decode_rate(planned("qwen3-30b-a3b", ["rtx-4090"], 8192, "q4_k_m"))
    dense = decode_rate(planned("qwen3-32b", ["rtx-4090"], 8192, "q4_k_m"))
    assert mixture.expected > 3 * dense.expected


@given(st.integers(1, 64), st.integers(0, 32_768))
def test_more_sequences_more_tokens_in_all_fewer_for_each(sequences, context):
    result = planned("llama-3-8b", ["a100-sxm4-80gb"], 32_768, "q4_k_m")
    one = decode_rate(result, context_tokens=context, num_sequences=sequences)
    more = decode_rate(result, context_tokens=context, num_sequences=sequences + 1)
    assert more.expected >= one.expected * 0.999999
    assert more.expected / (sequences + 1) <= one.expected / sequences * 1.000001
    assert one.low <= one.expected <= one.high
    longer = decode_rate(result, context_tokens=context + 256, num_sequences=sequences)
    assert longer.expected <= one.expected * 1.000001


def test_very_many_sequences_are_bound_by_compute():
    result = planned("llama-3-8b", ["h100"], 1024, "bf16", "vllm")
    many, more = (decode_rate(result, num_sequences=count).expected for count in (4096, 8192))
    assert more == pytest.approx(many, rel=0.05)


def test_the_cpu_alone_decodes_at_the_speed_of_its_memory():
    result = planned("llama-3-8b", ["none"], 8192, "q4_k_m", cpu_memory_bytes=64 * 2**30)
    rate = decode_rate(result)
    assert 3 < rate.low < rate.expected < rate.high < 25
    assert rate.basis == "assumed"
    without = replace(result, host=(), devices=())
    assert decode_rate(without) is None


def test_an_encoder_decodes_nothing():
    assert decode_rate(planned("bge-m3", ["24GB"], 512, None, "vllm")) is None
