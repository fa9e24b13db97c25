"""Ollama's defaults, limits and words."""

import pytest

from kvplan import Workload, engine_named, open_model, parse_gpus, verdict_of
from kvplan.engines import ENGINES
from kvplan.offload import plan_or_offload
from kvplan.plan import plan

GIB = 2**30


def planned(model, gpus, ctx=0, weights="q4_k_m", batch=1, **options):
    workload = Workload(
        context_tokens=ctx,
        context_source="flag" if ctx else "model",
        num_sequences=batch,
        weights_format=weights,
        engine_options=tuple(options.items()),
    )
    return plan(open_model(model), workload, parse_gpus(gpus), engine_named("ollama"))


@pytest.mark.parametrize(
    ("gpus", "context"),
    [
        (["rtx-3060-12gb"], 4096),
        (["rtx-3090"], 32_768),
        (["l40s"], 32_768),
        (["rtx-a6000"], 131_072),
        (["2xrtx-3090"], 131_072),
        (["2xrtx-3060-12gb"], 32_768),
    ],
)
def test_the_context_follows_the_memory_of_all_gpus(gpus, context):
    # 47 GiB and more ask for 262,144, which this model's limit cuts to 131,072.
    result = planned("llama-3.1-8b", gpus)
    assert result.context_tokens == context
    assert result.workload.context_source == "engine"


def test_overhead_counts_against_the_tier():
    assert planned("llama-3.1-8b", ["rtx-3090"], gpu_overhead=GIB).context_tokens == 4096


def test_context_times_parallel_is_reserved():
    one = planned("llama-3.1-8b", ["a100-sxm4-80gb"], num_ctx=8192)
    four = planned("llama-3.1-8b", ["a100-sxm4-80gb"], num_ctx=8192, num_parallel=4)
    assert four.cache.total.expected == 4 * one.cache.total.expected
    assert dict(four.engine_options)["n_ctx"] == 32_768
    assert four.num_sequences == 4


def test_a_hybrid_is_served_one_at_a_time():
    result = planned("qwen3-next-80b-a3b", ["2xa100-sxm4-80gb"], num_ctx=8192, num_parallel=4)
    assert result.num_sequences == 1
    assert "batch-capped" in {warning.code for warning in result.warnings}


def test_a_context_beyond_the_model_is_cut():
    result = planned("llama-3-8b", ["rtx-4090"], ctx=32_768)
    assert result.context_tokens == 8192
    assert "context-cut" in {warning.code for warning in result.warnings}


def test_cache_type_and_flash_attention():
    half = planned("llama-3.1-8b", ["rtx-4090"], num_ctx=8192, kv_cache_type="q8_0")
    full = planned("llama-3.1-8b", ["rtx-4090"], num_ctx=8192)
    assert half.cache.total.expected == full.cache.total.expected * 17 // 32
    refused = planned("llama-3.1-8b", ["rtx-4090"], num_ctx=8192, kv_cache_type="q8_0", flash_attention="0")
    assert verdict_of(refused).status == "refused"


def test_num_batch_grows_where_memory_is_left():
    small = dict(planned("llama-3.1-8b", ["a100-sxm4-80gb"], num_ctx=4096).engine_options)
    middle = dict(planned("llama-3.1-8b", ["a100-sxm4-80gb"], num_ctx=16_384).engine_options)
    large = dict(planned("llama-3.1-8b", ["a100-sxm4-80gb"], num_ctx=65_536).engine_options)
    tight = dict(planned("qwen3-32b", ["rtx-4090"], num_ctx=32_768).engine_options)
    assert [one["n_ubatch"] for one in (small, middle, large, tight)] == [512, 1024, 2048, 512]


def test_it_keeps_a_gibibyte_and_the_overhead_free():
    plain = planned("llama-3.1-8b", ["rtx-4090"], num_ctx=8192)
    less = planned("llama-3.1-8b", ["rtx-4090"], num_ctx=8192, gpu_overhead=2 * GIB)
    assert plain.devices[0].budget_bytes - less.devices[0].budget_bytes == 2 * GIB
    assert plain.devices[0].device.usable_bytes - plain.devices[0].budget_bytes == GIB


def test_what_does_not_fit_is_spilled_without_being_asked():
    workload = Workload(context_tokens=8192, context_source="flag", weights_format="q4_k_m")
    result = plan_or_offload(
        open_model("llama-3-70b"), workload, parse_gpus(["rtx-4090"]), engine_named("ollama")
    )
    assert verdict_of(result).status == "offload"


def test_its_words_are_a_modelfile_and_variables():
    lines = planned(
        "llama-3.1-8b", ["rtx-4090"], num_ctx=8192, num_parallel=2, num_gpu=20, kv_cache_type="q8_0"
    ).command_lines
    assert lines[0].startswith("FROM ")
    assert "PARAMETER num_ctx 8192" in lines
    assert "PARAMETER num_gpu 20" in lines
    assert lines[-1] == (
        "OLLAMA_NUM_PARALLEL=2 OLLAMA_KV_CACHE_TYPE=q8_0 OLLAMA_FLASH_ATTENTION=1 ollama serve"
    )


def test_num_gpu_0_leaves_everything_in_system_memory():
    result = planned("llama-3.1-8b", ["rtx-4090"], num_ctx=8192, num_gpu=0)
    assert sum(p.bytes.expected for p in result.devices[0].components if p.name == "weights") == 0
    assert verdict_of(result).status == "offload"


def test_it_is_in_the_table():
    assert ENGINES["ollama"] == "ollama"
    assert engine_named("ollama@0.12").version == "0.12"
