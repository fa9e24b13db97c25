"""TensorRT-LLM beside the model: drafts, adapters, caps of the pool, what one start-up tells of weights."""

import pytest

from kvplan.deploy.adapters import with_adapters
from kvplan.deploy.drafting import draft_named, draft_options
from kvplan.deploy.flags import read_flags
from kvplan.deploy.flags.tensorrt_llm import FLAGS
from kvplan.engines import engine_named
from kvplan.engines.tensorrt_llm.unplanned import NOT_PLANNED
from kvplan.errors import CannotTell
from kvplan.frozen import replace
from kvplan.hardware.parse import parse_gpus
from kvplan.judge import judge
from kvplan.plan import plan
from kvplan.sources.catalog import find
from kvplan.units import GIB
from kvplan.workload import Workload

ROW_70B_OF_8 = 2 * 1 * 128 * 2 * 80


def planned(name, gpu="h100", options=(), draft=None, **asked):
    model = find(name)
    if draft is not None:
        model = replace(model, draft=find(draft))
    workload = Workload(engine_options=tuple(options), **asked)
    return plan(model, workload, parse_gpus((gpu,)), engine_named("tensorrt-llm"))


def part(result, name, device=0):
    return next((one.bytes for one in result.devices[device].components if one.name == name), None)


def test_a_token_of_the_prediction_layer_has_a_row_in_the_pool():
    config = ("speculative_config", {"decoding_type": "MTP", "num_nextn_predict_layers": 1})
    plain = planned("deepseek-v3", "8xh200", context_tokens=8192)
    drafted = planned("deepseek-v3", "8xh200", [config], context_tokens=8192)
    assert plain.cache.bytes_per_token == 61 * 576 * 2
    assert drafted.cache.bytes_per_token == 62 * 576 * 2
    # Two more tokens: those of the steps in flight. They take a block more of 32.
    assert part(drafted, "kv_cache").expected == 62 * 576 * 2 * (8192 + 32)
    assert part(drafted, "draft_model").basis == "exact"
    assert 1 * GIB < part(drafted, "draft_model").expected < 2 * GIB
    assert drafted.kv_cache_tokens < plain.kv_cache_tokens
    several = planned(
        "deepseek-v3",
        "8xh200",
        [(config[0], {**config[1], "num_nextn_predict_layers": 3})],
        context_tokens=8192,
    )
    kv = part(several, "kv_cache")
    # Three layers, or one that is replayed, by version.
    assert (kv.basis, kv.low, kv.expected) == ("assumed", 62 * 1152 * 8224, 64 * 1152 * 8224)


def test_prediction_layers_lie_on_the_last_pipeline_rank():
    config = ("speculative_config", {"decoding_type": "MTP"})
    result = planned(
        "deepseek-v3", "16xh200", [config], context_tokens=8192, tensor_parallel=8, pipeline_parallel=2
    )
    assert part(result, "draft_model", 0) is None
    assert part(result, "draft_model", 8).expected > 0


def test_a_draft_model_s_rows_and_weights_are_counted():
    options = draft_options("tensorrt-llm", "llama-3.2-1b", ())
    assert dict(options)["speculative_config"]["decoding_type"] == "Draft_Target"
    result = planned("llama-3.1-8b", options=options, draft="llama-3.2-1b", context_tokens=8192)
    assert result.cache.bytes_per_token == 32 * 4096 + 16 * 2 * 8 * 64 * 2
    # 1,235,814,400 parameters in 16 bits.
    assert part(result, "draft_model").expected == 2 * 1_235_814_400
    fp8 = planned(
        "llama-3.1-8b", options=options, draft="llama-3.2-1b", context_tokens=8192,
        kv_cache_dtype_k="fp8", kv_cache_dtype_v="fp8",
    )  # fmt: skip
    assert part(fp8, "kv_cache").basis == "assumed"
    assert part(fp8, "kv_cache").high > part(fp8, "kv_cache").expected


def test_a_draft_that_was_not_read_is_a_wide_interval():
    config = {"decoding_type": "Eagle3", "max_draft_len": 4, "speculative_model": "someone/head"}
    options = [("speculative_config", config)]
    assert draft_named(options) == "someone/head"
    result = planned("llama-3.1-8b", options=options, context_tokens=8192)
    assert [notice.code for notice in result.warnings] == ["draft-assumed"]
    assert part(result, "draft_model").high > 8 * part(result, "draft_model").expected // 2
    assert judge(result).status == "tight"


@pytest.mark.parametrize("kind", ["NGram", "Lookahead", "User_Provided"])
def test_drafting_without_a_model_takes_a_few_tokens_alone(kind):
    options = [("speculative_config", {"decoding_type": kind, "max_draft_len": 4})]
    result = planned("llama-3.1-8b", options=options, context_tokens=8192)
    assert part(result, "draft_model") is None
    assert part(result, "kv_cache").expected == (8192 + 32) * 131072


def test_adapters_take_slots_as_wide_as_the_widest_module():
    workload = with_adapters(Workload(context_tokens=8192), "tensorrt-llm", (16,) * 4)
    config = dict(workload.engine_options)["lora_config"]
    assert config == {"max_loras": 4, "max_lora_rank": 16}
    adapters = part(planned("llama-3.1-8b", options=workload.engine_options, context_tokens=8192), "adapters")
    # The narrowest of a rank are keys (4,096 + 1,024), the widest the MLP's (4,096 + 14,336): four pages.
    assert adapters.high == 16 * 4 * 32 * 2 * 7 * 4 * 5120
    # Queries, keys and values alone: two pages of the keys' width.
    assert adapters.low == 16 * 4 * 32 * 2 * 3 * 2 * 5120
    named = {**config, "lora_target_modules": ["attn_q", "attn_v"]}
    some = part(planned("llama-3.1-8b", options=[("lora_config", named)], context_tokens=8192), "adapters")
    assert some.low == some.high == adapters.low
    share = part(planned("llama-3.1-8b", options=[("enable_lora", True)], context_tokens=8192), "adapters")
    assert share.high == pytest.approx(0.02 * (79.2 - 15 - 2.5) * GIB, rel=0.01)


def test_flags_cap_the_pool_and_blocks_are_rounded_up():
    result = planned("llama-3.1-8b", options=[("max_tokens", 10_000)], context_tokens=8192)
    assert result.kv_cache_tokens == 10_016
    assert (
        judge(planned("llama-3.1-8b", options=[("max_tokens", 8_000)], context_tokens=8192)).status
        == "does_not_fit"
    )
    capped = planned("llama-3.1-8b", options=[("max_gpu_total_bytes", 131072 * 40)], context_tokens=32)
    assert capped.kv_cache_tokens == 64


def test_states_are_set_aside_for_a_full_batch():
    """mamba_cache_manager.py: slots of max_batch_size sequences, whatever runs."""
    one = 36 * (8192 * 3 * 2 + 32 * 128 * 128 * 4)
    result = planned("qwen3-next-80b-a3b", "2xh200", [("max_batch_size", 64)], context_tokens=8192)
    assert part(result, "recurrent_state").expected == 64 * one // 2
    assert part(result, "recurrent_state").low <= one // 2
    assert part(result, "kv_cache").expected == 8192 * 12 * 2 * 1 * 256 * 2
    assert result.cache.state_bytes_per_sequence == one
    usual = planned("qwen3-next-80b-a3b", "2xh200", context_tokens=8192)
    assert part(usual, "recurrent_state").expected == 2048 * one // 2
    assert judge(usual).status == "does_not_fit"
    assert any("--max_batch_size" in notice.message for notice in usual.warnings)
    both = planned(
        "qwen3-next-80b-a3b", "2xh200", [("max_batch_size", 64)], context_tokens=8192, pipeline_parallel=2
    )
    # Each pipeline rank has half of the layers and slots for both batches in flight.
    states = [part(both, "recurrent_state", rank).expected for rank in (0, 1)]
    assert states == [2 * 64 * one // 2] * 2


def test_host_pools_are_system_memory():
    result = planned("llama-3.1-8b", "2xh100", [("host_cache_size", 10**9)], context_tokens=8192)
    assert [(one.name, one.bytes.expected) for one in result.host] == [("kv_cache", 2 * 10**9)]


def test_beams_and_shared_memory_are_intervals():
    one = planned("llama-3.1-8b", context_tokens=8192)
    beams = planned("llama-3.1-8b", options=[("max_beam_width", 4)], context_tokens=8192)
    kv, plain = part(beams, "kv_cache"), part(one, "kv_cache")
    assert (kv.low, kv.high, kv.basis) == (plain.expected, 4 * plain.expected, "assumed")
    spark = planned("gpt-oss-120b", "gb10", context_tokens=8192)
    assert "page-cache-counts" in [notice.code for notice in spark.warnings]
    assert part(spark, "runtime").high > part(spark, "weights").expected


def test_padded_experts_weigh_what_a_real_server_printed():
    """63.32 GiB for gpt-oss-120b on one card, TensorRT-LLM 1.1."""
    weights = part(planned("gpt-oss-120b", "h100", context_tokens=8192), "weights")
    assert round(weights.expected / GIB, 2) == 63.32
    assert weights.low < weights.expected < weights.high


def test_engines_built_ahead_of_time_are_not_planned():
    with pytest.raises(CannotTell, match="ahead of time"):
        planned("llama-3.1-8b", options=[("backend", "tensorrt")], context_tokens=8192)
    assert planned("llama-3.1-8b", options=[("backend", "pytorch")], context_tokens=8192).devices


def test_settings_that_are_not_planned_are_said():
    words = ["--max_attention_window", "1024", "8192", "--cuda_graph_config", '{"max_batch_size": 64}']
    left = ["--mamba_ssm_cache_dtype", "auto", "--moe_tensor_parallel_size", "-1"]
    options = read_flags("tensorrt-llm", [*words, *left, "--print_iter_log", "--stream_interval", "4"])
    assert options.unknown == ()
    result = planned("llama-3.1-8b", options=options.options, context_tokens=8192)
    assert [notice.message for notice in result.warnings if notice.code == "flag-not-planned"] == [
        "max_attention_window: windows of another size not counted",
        "cuda_graph_config: CUDA graphs of other sizes not counted",
    ]


@pytest.mark.parametrize(
    ("moe", "codes"),
    [({"backend": "CUTLASS"}, []), ({"load_balancer": {"num_slots": 288}}, ["flag-not-planned"])],
)
def test_redundant_experts_are_said_and_a_kernel_is_not(moe, codes):
    result = planned("deepseek-v3", "8xh200", [("moe_config", moe)], context_tokens=8192)
    assert [notice.code for notice in result.warnings] == codes


def test_every_unplanned_setting_has_a_flag():
    options = {name for _, name, _ in FLAGS}
    assert set(NOT_PLANNED) <= options


def test_keys_of_an_object_may_be_given_one_by_one():
    words = ["--speculative_config.decoding_type", "MTP", "--lora_config", '{"max_loras": 2}']
    flags = read_flags("tensorrt-llm", words)
    assert flags.get("speculative_config") == {"decoding_type": "MTP"}
    assert flags.get("lora_config") == {"max_loras": 2}
    assert flags.unknown == ()
