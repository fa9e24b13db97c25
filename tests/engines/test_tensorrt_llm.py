"""TensorRT-LLM: rows by its own arithmetic, the budget as a share of what is left, honest intervals."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvplan.deploy.flags import read_flags
from kvplan.deploy.flags.tensorrt_llm import FLAGS, YAML_OPTIONS
from kvplan.device import Device
from kvplan.engines import engine_named
from kvplan.engines.tensorrt_llm.rows import row_bytes
from kvplan.errors import InvalidValue, UnknownFormat
from kvplan.hardware.parse import parse_gpus
from kvplan.judge import judge
from kvplan.layers import FullAttention, LatentAttention
from kvplan.plan import plan
from kvplan.sources.catalog import find
from kvplan.units import GIB
from kvplan.workload import Workload


def planned(name, gpu="h100", **asked):
    return plan(find(name), Workload(**asked), parse_gpus((gpu,)), engine_named("tensorrt-llm"))


def kv_of(result):
    return next(part.bytes for part in result.devices[0].components if part.name == "kv_cache")


@pytest.mark.parametrize(
    ("cache", "dtype", "ranks", "expected"),
    [
        (FullAttention(32, 8, 128, 128), "bfloat16", 1, 4096),
        (FullAttention(32, 8, 128, 128), "fp8", 1, 2048),
        (FullAttention(32, 8, 128, 128), "nvfp4", 1, 1152),
        (FullAttention(32, 8, 128, 128), "bfloat16", 16, 512),
        (FullAttention(40, 10, 128, 128), "bfloat16", 4, 1536),
        (LatentAttention(128, 512, 64, 128, 128), "bfloat16", 8, 1152),
        (LatentAttention(128, 512, 64, 128, 128, 128), "fp8", 8, 708),
    ],
)
def test_rows(cache, dtype, ranks, expected):
    assert row_bytes(cache, dtype, ranks) == expected


def test_the_pool_is_a_share_of_what_weights_and_activations_leave():
    device = Device("card", 80 * GIB, 80 * GIB, 80 * GIB, "exact", "nvidia", "hopper")
    model, engine = find("llama-3.1-8b"), engine_named("tensorrt-llm")
    tokens = {}
    for fraction in (0.45, 0.9):
        options = (("free_gpu_memory_fraction", fraction),)
        workload = Workload(context_tokens=8192, overhead_bytes=GIB, engine_options=options)
        result = plan(model, workload, (device,), engine)
        parts = {part.name: part.bytes.expected for part in result.devices[0].components}
        left = 80 * GIB - parts["weights"] - parts["activations"] - GIB
        tokens[fraction] = result.kv_cache_tokens
        assert abs(result.kv_cache_tokens * 131072 - int(fraction * left)) <= 32 * 131072 + 1
    assert tokens[0.9] == pytest.approx(2 * tokens[0.45], abs=64)


@given(
    context=st.integers(1, 131072),
    batch=st.integers(1, 64),
    name=st.sampled_from(["llama-3.1-8b", "gpt-oss-20b", "deepseek-v3.2", "qwen3-next-80b-a3b"]),
)
def test_bounds_hold_the_expected_amount(context, batch, name):
    kv = kv_of(planned(name, "8xh200", context_tokens=context, num_sequences=batch))
    assert 0 <= kv.low <= kv.expected <= kv.high


def test_windows_are_an_interval_and_at_best_tight():
    result = planned("gpt-oss-20b", context_tokens=32768)
    kv = kv_of(result)
    assert kv.low < kv.high
    assert judge(result).status == "tight"
    assert any(notice.code == "layer-not-modelled" for notice in result.warnings)
    assert kv_of(planned("llama-3.1-8b", context_tokens=32768)).basis == "exact"


def test_limits_and_formats():
    result = planned("llama-3.1-8b", context_tokens=128, num_sequences=4096)
    assert result.num_sequences == 2048
    assert [notice.code for notice in result.warnings] == ["batch-capped"]
    half = planned("llama-3.1-8b", context_tokens=8192, kv_cache_dtype_k="fp8", kv_cache_dtype_v="fp8")
    assert 2 * kv_of(half).expected == kv_of(planned("llama-3.1-8b", context_tokens=8192)).expected
    with pytest.raises(UnknownFormat, match="no KV cache format 'int8'"):
        planned("llama-3.1-8b", kv_cache_dtype_k="int8", kv_cache_dtype_v="int8")
    with pytest.raises(UnknownFormat, match="does not load"):
        planned("llama-3.1-8b", weights_format="q4_k_m")
    with pytest.raises(InvalidValue, match="not a share"):
        planned("llama-3.1-8b", engine_options=(("free_gpu_memory_fraction", 1.0),))
    with pytest.raises(InvalidValue, match="not modelled"):
        engine_named("tensorrt-llm@0.9")
    older = plan(
        find("llama-3.1-8b"), Workload(context_tokens=8192), parse_gpus(("h100",)), engine_named("trtllm@1.1")
    )
    assert [notice.code for notice in older.warnings] == ["version-assumed"]


def test_attention_data_parallelism_keeps_whole_heads_and_divides_requests():
    shared = planned("llama-3.3-70b", "4xh200", context_tokens=8192, num_sequences=8)
    options = (("enable_attention_dp", True),)
    own = planned("llama-3.3-70b", "4xh200", context_tokens=8192, num_sequences=8, engine_options=options)
    assert kv_of(own).expected == kv_of(shared).expected
    assert own.devices[0].components[0].bytes.expected > shared.devices[0].components[0].bytes.expected


def test_the_options_file_sets_what_the_flags_set():
    words = ["--max_seq_len", "8192", "--kv_cache_free_gpu_memory_fraction=0.8", "--unheard_of", "1"]
    flags = read_flags("tensorrt-llm", words)
    assert flags.get("max_seq_len") == 8192
    assert flags.get("free_gpu_memory_fraction") == 0.8
    assert flags.unknown == ("--unheard_of",)
    options = {name for _, name, _ in FLAGS}
    assert {"free_gpu_memory_fraction", "kv_cache_dtype", "max_seq_len", "tp_size"} <= set(
        YAML_OPTIONS.values()
    )
    assert set(YAML_OPTIONS.values()) - options <= {"enable_block_reuse"}


def test_more_memory_never_fits_less():
    for name in ("llama-3.1-8b", "gpt-oss-20b"):
        limits = []
        for gib in (24, 48, 80, 141):
            device = Device("card", gib * GIB, gib * GIB, gib * GIB, "exact", "nvidia", "hopper")
            result = plan(find(name), Workload(context_tokens=8192), (device,), engine_named("trtllm"))
            device_plan = replace(result.devices[0])
            limits.append(device_plan.headroom_bytes)
        assert limits == sorted(limits)
