"""A plan under SGLang: budget and slack, limits on requests, its flags, its words, what it refuses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvplan.deploy.flags import read_flags
from kvplan.device import Device
from kvplan.engines import engine_named
from kvplan.errors import CannotTell, InvalidValue, OptionClash, UnknownFormat
from kvplan.hardware.parse import parse_gpus
from kvplan.judge import judge
from kvplan.plan import plan
from kvplan.solve import max_context
from kvplan.sources.catalog import find
from kvplan.units import GIB, MIB
from kvplan.workload import Workload


def planned(name, gpu="h100", words="", **asked):
    options = read_flags("sglang", words.split()).options
    lifted = {
        "tp_size": "tensor_parallel",
        "pp_size": "pipeline_parallel",
        "context_length": "context_tokens",
    }
    asked |= {lifted[key]: value for key, value in options if key in lifted}
    workload = Workload(engine_options=options, **asked)
    return plan(find(name), workload, parse_gpus((gpu,)), engine_named("sglang"))


def part(result, name, index=0):
    return next((p.bytes for p in result.devices[index].components if p.name == name), None)


def check(result, name):
    return next(check for check in result.devices[0].checks if check.name == name)


def test_the_budget_is_the_default_share_of_what_is_free():
    result = planned("llama-3.1-8b", context_tokens=8192)
    device = result.devices[0]
    assert dict(result.engine_options)["mem_fraction_static"] == 0.83
    assert device.budget_bytes == int(0.83 * device.device.usable_bytes)
    assert part(result, "kv_cache").expected == 8192 * 131072
    # The pool the server announces is what weights and runtime leave of the share.
    left = device.budget_bytes - part(result, "weights").expected - part(result, "runtime").expected
    assert result.kv_cache_tokens == pytest.approx(left // 131072, abs=2)


def test_the_position_table_of_ten_million_tokens_exceeds_the_slack():
    result = planned("llama-4-scout-17b-16e", "8xh200")
    assert result.context_tokens == 10_485_760
    outside = check(result, "outside_pool")
    assert outside.required.expected > 80 * GIB
    assert judge(result).status == "does_not_fit"
    assert judge(planned("llama-4-scout-17b-16e", "8xh200", context_tokens=131072)).status == "fits"


def test_a_request_needs_five_state_slots_and_the_slots_limit_the_requests():
    result = planned("qwen3.5-27b", context_tokens=4096, num_sequences=50)
    assert result.num_sequences == result.sequence_limit < 50
    notice = next(notice for notice in result.warnings if notice.code == "batch-capped")
    assert "5 a request" in notice.message
    one = planned("qwen3.5-27b", words="--disable-radix-cache --max-running-requests 50", context_tokens=4096)
    assert one.sequence_limit == 50
    assert one.cache.state_bytes_per_sequence * 5 == result.cache.state_bytes_per_sequence


def test_windows_come_with_the_full_tokens_by_ratio_or_by_request():
    ratio = planned("gpt-oss-20b", context_tokens=32768)
    small = planned("gpt-oss-20b", words="--swa-full-tokens-ratio 0.1", context_tokens=32768)
    full = planned("gpt-oss-20b", words="--disable-hybrid-swa-memory", context_tokens=32768)
    sizes = [part(result, "kv_cache").expected for result in (small, ratio, full)]
    assert sizes == sorted(sizes)
    assert sizes[2] == 24 * 2048 * 32768
    assert sizes[1] == pytest.approx(12 * 2048 * 32768 * 1.8, abs=1)
    # A short context needs more full tokens than it has, for the windows' sake.
    short = planned("gpt-oss-20b", words="--swa-full-tokens-ratio 0.01", context_tokens=512)
    assert part(short, "kv_cache").expected > 512 * 12 * 2048 * 10


@pytest.mark.parametrize("name", ["gemma-3-27b", "gemma-2-9b", "phi-3-mini-4k"])
def test_windows_without_a_pool_are_kept_in_full(name):
    result = planned(name, context_tokens=4096)
    every = sum(group.bytes_per_token for group in result.cache.groups)
    assert result.cache.bytes_per_token == every
    assert part(result, "kv_cache").expected == every * 4096


def test_latent_caches_are_on_every_rank_and_data_parallel_attention_divides_the_requests():
    whole = planned("deepseek-v3", "8xh200", context_tokens=32768, num_sequences=8)
    assert part(whole, "kv_cache").expected == 8 * 32768 * 70272
    split = planned(
        "deepseek-v3", "8xh200", "--dp-size 8 --enable-dp-attention", context_tokens=32768, num_sequences=8
    )
    assert part(split, "kv_cache").expected == 32768 * 70272
    assert part(split, "weights").expected > part(whole, "weights").expected
    assert split.sequence_limit % 8 == 0


def test_replicas_take_their_own_gpus():
    result = planned("llama-3.1-8b", "4xh100", "--tp 2 --dp 2", context_tokens=8192, num_sequences=6)
    assert len(result.devices) == 4
    assert part(result, "kv_cache").expected == 3 * 8192 * 131072 // 2
    with pytest.raises(OptionClash, match="do not divide"):
        planned("llama-3.1-8b", "3xh100", "--dp 2", context_tokens=8192)


def test_speculation_loads_the_prediction_layers_and_limits_the_requests():
    words = "--speculative-algorithm EAGLE --speculative-num-steps 3 --speculative-eagle-topk 1"
    plain = planned("deepseek-v3", "8xh200", context_tokens=8192)
    result = planned("deepseek-v3", "8xh200", words, context_tokens=8192)
    assert part(plain, "draft_model") is None
    assert part(result, "draft_model").expected > GIB
    assert result.sequence_limit == 48
    own = planned(
        "llama-3.1-8b", words=f"{words} --speculative-draft-model-path some/head", context_tokens=8192
    )
    assert part(own, "draft_model").basis == "assumed"
    assert "draft-not-planned" in [notice.code for notice in own.warnings]


def test_graphs_are_configured_by_switches_or_by_json():
    def share(words):
        return dict(planned("llama-3.1-8b", "rtx-4090", words, context_tokens=4096).engine_options)[
            "mem_fraction_static"
        ]

    assert share("--disable-cuda-graph") > share("")
    assert share(
        '--cuda-graph-config {"decode":{"backend":"disabled"},"prefill":{"backend":"disabled"}}'
    ) == (share("--disable-cuda-graph"))
    assert share("--cuda-graph-max-bs-decode 8") == share('--cuda-graph-config {"decode":{"max_bs":8}}')


def test_system_memory_holds_what_is_offloaded():
    result = planned(
        "llama-3.1-8b",
        "2xrtx-4090",
        "--cpu-offload-gb 2 --enable-hierarchical-cache --hicache-size 10",
        context_tokens=4096,
        cpu_memory_bytes=64 * GIB,
    )
    plain = planned("llama-3.1-8b", "2xrtx-4090", context_tokens=4096)
    assert part(plain, "weights").expected - part(result, "weights").expected == 2 * GIB
    assert {p.name: p.bytes.expected for p in result.host} == {"weights": 4 * GIB, "kv_cache": 20 * 10**9}
    assert judge(result).status == "offload"


def test_adapters_take_slots_before_the_pools():
    result = planned("llama-3.1-8b", words="--enable-lora --max-lora-rank 16", context_tokens=4096)
    plain = planned("llama-3.1-8b", context_tokens=4096)
    slots = part(result, "adapters")
    assert slots.low <= slots.expected <= slots.high
    assert result.kv_cache_tokens < plain.kv_cache_tokens


def test_images_lower_the_share_and_text_only_serving_does_not():
    images = dict(planned("qwen3-vl-8b", context_tokens=4096).engine_options)
    text = dict(planned("qwen3-vl-8b", words="--language-model-only", context_tokens=4096).engine_options)
    assert images["mem_fraction_static"] < text["mem_fraction_static"] == 0.83
    assert part(planned("qwen3-vl-8b", context_tokens=4096), "multimodal").expected == 1024 * MIB


@pytest.mark.parametrize(
    ("gpu", "kv", "text"),
    [("h100", "nvfp4", "requires Blackwell SM100 or SM120"), ("h100", "mxfp8", "requires an SM100+")],
)
def test_formats_that_the_card_lacks_are_refused_in_its_words(gpu, kv, text):
    result = planned("llama-3.1-8b", gpu, context_tokens=4096, kv_cache_dtype_k=kv, kv_cache_dtype_v=kv)
    verdict = judge(result)
    assert verdict.status == "refused"
    assert text in verdict.why
    assert result.refusals[0].fix


def test_heads_that_do_not_divide_are_refused_with_what_works():
    result = planned("qwen2.5-0.5b", "4xh100", "--tp 4", context_tokens=4096)
    assert [refusal.fix for refusal in result.refusals] == ["--tp 2"]
    assert planned("qwen2.5-0.5b", "4xh100", context_tokens=4096).parallel.pipeline == 4


def test_formats_and_versions_it_does_not_know():
    with pytest.raises(UnknownFormat, match="does not load"):
        planned("llama-3.1-8b", weights_format="exl3-4.0")
    with pytest.raises(InvalidValue, match="not a version"):
        engine_named("sglang@newest")
    older = plan(
        find("llama-3.1-8b"),
        Workload(context_tokens=4096),
        parse_gpus(("h100",)),
        engine_named("sglang@0.4.6"),
    )
    assert "version-not-known" in [notice.code for notice in older.warnings]
    unknown = planned("pythia-1.4b", context_tokens=2048)
    assert "class-not-known" in {notice.code for notice in unknown.warnings}


def test_a_server_that_cannot_start_says_so_in_its_words():
    result = planned("llama-3.1-70b", "h100", context_tokens=4096)
    assert judge(result).status == "does_not_fit"
    assert result.startup_lines[0].startswith("Loaded weights leave no GPU memory for the KV cache under")


@given(
    name=st.sampled_from(["llama-3.1-8b", "gpt-oss-20b", "qwen3.5-9b", "gemma-3-27b", "deepseek-v2-lite"]),
    batch=st.integers(1, 4),
)
def test_the_longest_context_is_the_last_that_fits(name, batch):
    model, engine, devices = find(name), engine_named("sglang"), parse_gpus(("rtx-6000-ada",))

    def status(tokens):
        workload = Workload(context_tokens=tokens, num_sequences=batch)
        return judge(plan(model, workload, devices, engine)).status

    most = max_context(model, Workload(num_sequences=batch), devices, engine)
    if not most:
        assert status(1) == "does_not_fit"
        return
    assert status(most) in ("fits", "tight")
    if most < model.context_limit_tokens:
        assert status(most + 1) == "does_not_fit"


@given(tokens=st.integers(1, 131072), gib=st.sampled_from([24, 48, 80, 141]))
def test_more_memory_never_fits_less(tokens, gib):
    rank = {"does_not_fit": 0, "tight": 1, "fits": 2}
    outcomes = []
    for memory in (gib, gib + 8):
        device = Device("card", memory * GIB, memory * GIB, memory * GIB, "exact", "nvidia", "ada", "8.9")
        workload = Workload(context_tokens=tokens, engine_options=(("mem_fraction_static", 0.8),))
        outcomes.append(
            rank[judge(plan(find("llama-3.1-8b"), workload, (device,), engine_named("sglang"))).status]
        )
    assert outcomes[0] <= outcomes[1]


@pytest.mark.parametrize(
    ("words", "kernels"),
    [
        ("", "trtllm_mha"),
        ("--speculative-algorithm EAGLE3", "flashinfer"),
        (
            "--speculative-algorithm EAGLE3 --speculative-num-steps 3 --speculative-eagle-topk 1"
            " --speculative-num-draft-tokens 4",
            "trtllm_mha",
        ),
    ],
)
def test_branches_that_are_not_said_keep_the_general_kernels_on_blackwell(words, kernels):
    """Sizing code of 0.5.23 run for Llama-3.1-70B on a B200: pages of 64 go with TRT-LLM's kernels."""
    options = dict(planned("llama-3.1-70b", "8xb200", f"--tp 8 {words}", context_tokens=4096).engine_options)
    assert options["attention_backend"] == kernels
    assert options["page_size"] == (64 if kernels == "trtllm_mha" else 1)


def test_counts_take_sglangs_suffixes():
    options = read_flags("sglang", ["--context-length", "32Ki", "--max-total-tokens", "25.6k"]).options
    assert dict(options) == {"context_length": 32768, "max_total_tokens": 25600}
    with pytest.raises(InvalidValue):
        read_flags("sglang", ["--context-length", "32K"])


@pytest.mark.parametrize("kv", ["nvfp4", "fp4", "fp4_mx_block16"])
def test_a_sparse_pool_in_four_bits_is_not_guessed(kv):
    with pytest.raises(CannotTell, match="not planned under SGLang"):
        planned("minimax-m3", "b200", kv_cache_dtype_k=kv, kv_cache_dtype_v=kv)


def test_an_fp32_checkpoint_is_served_in_sixteen_bits():
    """model_config.py _get_and_verify_dtype; OLMo-2-1124-7B has 7,298,617,344 parameters."""
    assert part(planned("olmo-2-1124-7b"), "weights").expected == 2 * 7_298_617_344
    assert part(planned("olmo-2-1124-7b", words="--dtype float32"), "weights").expected == 4 * 7_298_617_344
