"""vLLM's ranks, refusals, start-up lines and flags: what a server says and where its memory goes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvplan.engines import engine_named
from kvplan.engines.vllm.versions import behaviour
from kvplan.errors import OptionClash, UnknownFormat
from kvplan.hardware.parse import parse_gpus
from kvplan.judge import judge
from kvplan.plan import plan
from kvplan.sources import catalog
from kvplan.units import GIB
from kvplan.workload import Workload


def planned(name, gpus, tokens=8192, *, engine="vllm", options=None, **given_workload):
    workload = Workload(
        context_tokens=tokens,
        context_source="flag",
        engine_options=tuple((options or {}).items()),
        **given_workload,
    )
    return plan(catalog.find(name), workload, parse_gpus(gpus), engine_named(engine))


def amount(result, name, device=0):
    return next(part.bytes for part in result.devices[device].components if part.name == name)


def test_latents_are_whole_on_every_rank():
    # 61 layers x (512 + 64) x 2 bytes a token on each of eight ranks, in FlashAttention's blocks of 16.
    result = planned("deepseek-v3", ["8xh200"], 16_384)
    block = 61 * 576 * 2 * 16
    assert amount(result, "kv_cache").expected == (16_384 // 16 + 1) * block
    room = result.devices[0].budget_bytes - sum(
        part.bytes.expected for part in result.devices[0].components if part.name != "kv_cache"
    )
    assert result.kv_cache_tokens <= room // block * 16


def test_the_poorest_stage_decides():
    result = planned("llama-3.1-8b", ["h100", "a100-40gb"], 4096, pipeline_parallel=2)
    assert [device.rank for device in result.devices] == ["pp 0", "pp 1"]
    rooms = [
        device.budget_bytes
        - sum(part.bytes.expected for part in device.components if part.name != "kv_cache")
        for device in result.devices
    ]
    assert result.cache.num_blocks == min(rooms) // (16 * 16 * 4096)
    assert judge(result).device_index == 1


def test_the_last_stage_samples():
    result = planned("llama-3.1-8b", ["2xh100"], 4096, pipeline_parallel=2)
    assert amount(result, "activations", 0).expected < amount(result, "activations", 1).expected


@pytest.mark.parametrize(
    ("name", "ranks", "text"),
    [
        (
            "qwen2.5-7b",
            8,
            "Total number of attention heads (28) must be divisible by tensor parallel size (8).",
        ),
        ("qwen3-14b", 5, "151936 is not divisible by 5"),
    ],
)
def test_refusals_are_in_vllms_words(name, ranks, text):
    result = planned(name, [f"{ranks}xh100"], tensor_parallel=ranks)
    assert judge(result).status == "refused"
    assert result.refusals[0].message == text


def test_replicas_must_divide_the_gpus():
    with pytest.raises(OptionClash):
        planned("qwen3-8b", ["3xh100"], options={"data_parallel_size": 2})


def test_what_a_server_prints():
    fixed = {"kv_cache_memory_bytes": 20 * GIB}
    (line,) = planned("llama-3-8b", ["h100"], options=fixed).startup_lines[1:]
    assert line == (
        "GPU KV cache size: 163,840 tokens, Maximum concurrency for 8,192 tokens per request: 20.00x"
    )
    older = planned("llama-3-8b", ["h100"], engine="vllm@0.19", options=fixed).startup_lines
    assert older == (
        "Available KV cache memory: 20.0 GiB",
        "GPU KV cache size: 163,840 tokens",
        "Maximum concurrency for 8,192 tokens per request: 20.00x",
    )


def test_an_exact_fit_is_refused_and_the_way_out_works():
    # 1 GiB holds 8,192 tokens of Llama-3-8B exactly, but one block is never handed out.
    result = planned("llama-3-8b", ["h100"], options={"kv_cache_memory_bytes": GIB})
    assert result.startup_lines[-1].startswith(
        "To serve at least one request with the model's max seq len (8192), (1.0 GiB KV cache is needed, "
        "which is larger than the available KV cache memory (1.0 GiB). Based on the available memory, the "
        "estimated maximum model length is 8176."
    )
    assert result.command_lines[0].endswith("--max-model-len 8176")
    shorter = planned("llama-3-8b", ["h100"], 8176, options={"kv_cache_memory_bytes": GIB})
    assert dict(shorter.details)["error"] == ""
    older = planned("llama-3-8b", ["h100"], engine="vllm@0.19", options={"kv_cache_memory_bytes": GIB})
    assert dict(older.details)["error"] == ""


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"kv_cache_memory_bytes": GIB}, "does_not_fit"),
        ({"kv_cache_memory_bytes": GIB + 2**21}, "fits"),
        ({"kv_cache_memory_bytes": 62 * GIB}, "does_not_fit"),
        ({"num_gpu_blocks_override": 512}, "does_not_fit"),
        ({"num_gpu_blocks_override": 513}, "fits"),
    ],
)
def test_a_fixed_pool_must_hold_the_load_and_fit_the_card(options, status):
    assert judge(planned("llama-3-8b", ["h100"], options=options)).status == status


def test_minus_one_takes_the_longest_context():
    result = planned("llama-3.1-8b", ["rtx-4090"], 0, options={"max_model_len": -1})
    longest = result.context_tokens
    assert 0 < longest < 131_072
    assert "GPU KV cache size" in result.startup_lines[-1]
    longer = planned("llama-3.1-8b", ["rtx-4090"], longest + 1)
    assert "estimated maximum model length" in longer.startup_lines[-1]


def test_others_on_the_card_make_vllm_refuse():
    result = planned("qwen3-8b", ["h100"], reserve_bytes=10 * GIB)
    assert judge(result).check == "free_at_start"
    assert result.startup_lines[0].startswith("Free memory on device cuda:0")
    assert dict(result.details)["fix"].startswith("--gpu-memory-utilization 0.8")
    smaller = planned("qwen3-8b", ["h100"], reserve_bytes=10 * GIB, options={"gpu_memory_utilization": 0.8})
    assert judge(smaller).status == "fits"


def test_graphs_lie_beside_the_share_before_0_21():
    names = [part.name for part in planned("qwen3-8b", ["h100"], engine="vllm@0.19").devices[0].components]
    assert "cuda_graphs" not in names
    assert amount(planned("qwen3-8b", ["h100"]), "cuda_graphs").expected > GIB // 2
    eager = planned("qwen3-8b", ["h100"], options={"enforce_eager": True})
    assert "cuda_graphs" not in [part.name for part in eager.devices[0].components]


def test_drafting_with_mtp_loads_its_layers():
    plain = planned("qwen3.6-27b", ["h100"])
    drafting = planned(
        "qwen3.6-27b",
        ["h100"],
        options={"speculative_config": {"method": "mtp", "num_speculative_tokens": 2}},
    )
    more = amount(drafting, "weights").expected - amount(plain, "weights").expected
    assert 0.7 * GIB < more < GIB


def test_adapters_take_their_slots_and_offloading_moves_weights():
    options = {"enable_lora": True, "max_loras": 2, "max_lora_rank": 64}
    result = planned("llama-3-8b", ["h100"], options=options)
    # q, k, v, o, gate, up and down: 2 slots x rank 64 x (inputs + outputs) in 16 bits, 32 layers.
    pairs = 2 * (4096 + 4096) + 2 * (4096 + 1024) + 3 * (4096 + 14_336)
    assert amount(result, "adapters").expected == 2 * 64 * 2 * 32 * pairs
    moved = planned("llama-3-8b", ["h100"], options={"cpu_offload_gb": 4.0})
    plain = planned("llama-3-8b", ["h100"])
    assert amount(plain, "weights").expected - amount(moved, "weights").expected == 4 * GIB
    assert moved.host[0].bytes.expected == 4 * GIB
    assert judge(moved).status == "offload"


def test_towers_can_be_left_out():
    seeing = planned("gemma-3-27b", ["2xh100"])
    blind = planned("gemma-3-27b", ["2xh100"], options={"language_model_only": True})
    assert amount(blind, "weights").expected < amount(seeing, "weights").expected
    assert amount(blind, "activations").high < amount(seeing, "activations").high


@pytest.mark.parametrize(
    ("name", "kv", "card", "dtype"),
    [
        ("deepseek-v3.2", "auto", "8xh200", "bfloat16"),
        ("deepseek-v3.2", "fp8", "8xh200", "fp8_ds_mla"),
        ("deepseek-v3.2", "fp8", "8xb200", "fp8"),
        ("glm-5.2", "auto", "8xb200", "fp8_e4m3"),
    ],
)
def test_sparse_latents_follow_the_cards_kernels(name, kv, card, dtype):
    result = planned(name, [card], kv_cache_dtype_k=kv, kv_cache_dtype_v=kv)
    assert result.kv_dtype_k == dtype


def test_no_kernel_for_sparse_latents_on_ampere():
    assert judge(planned("deepseek-v3.2", ["8xa100-80gb"])).status == "refused"


@pytest.mark.parametrize(("name", "kv"), [("llama-3-8b", "fp8_ds_mla"), ("deepseek-v3", "nvfp4")])
def test_formats_that_an_attention_lacks_are_refused(name, kv):
    with pytest.raises(UnknownFormat) as raised:
        planned(name, ["8xh200"], kv_cache_dtype_k=kv, kv_cache_dtype_v=kv)
    assert raised.value.hint


@given(
    st.sampled_from(("llama-3-8b", "gpt-oss-20b", "qwen3-next-80b-a3b", "deepseek-v2-lite", "gemma-3-4b")),
    st.integers(10**8, 10**11),
    st.integers(0, 10**10),
)
def test_more_cache_memory_never_gives_fewer_blocks(name, size, more):
    small, large = (
        planned(name, ["h100"], options={"kv_cache_memory_bytes": each}).cache.num_blocks
        for each in (size, size + more)
    )
    assert small <= large


@given(st.sampled_from(("llama-3-8b", "gpt-oss-20b", "qwen3-30b-a3b")), st.sampled_from((1, 2, 4)))
def test_more_tensor_ranks_never_load_more(name, ranks):
    one, two = (
        amount(planned(name, [f"{count}xh100"], tensor_parallel=count), "weights").expected
        for count in (ranks, 2 * ranks)
    )
    assert two <= one


@pytest.mark.parametrize(
    ("gpu", "engine", "tokens", "batched"),
    [
        # Turing stays on the V0 engine until 0.11, which takes a whole prompt up to 32,768 tokens.
        ("t4", "vllm@0.10", 16_384, 16_384),
        ("t4", "vllm@0.11", 16_384, 2048),
        ("t4", "vllm@0.10", 65_536, 2048),
        ("l40s", "vllm@0.8", 16_384, 2048),
        ("l40s", "vllm@0.7", 16_384, 16_384),
        ("h100", "vllm@0.10", 16_384, 8192),
        ("a100-80gb", "vllm@0.10", 16_384, 2048),
        ("a800-80gb", "vllm", 16_384, 8192),
        ("b200", "vllm@0.27", 16_384, 8192),
        ("b200", "vllm@0.28", 16_384, 16_384),
        ("dgx-spark-gb10", "vllm@0.32", 16_384, 8192),
        ("dgx-spark-gb10", "vllm@0.33", 16_384, 2048),
    ],
)
def test_the_engine_that_a_version_runs_on_a_card_decides_how_prompts_are_split(gpu, engine, tokens, batched):
    result = planned("llama-3.1-8b", [gpu], tokens, engine=engine, kv_cache_dtype_k="auto")
    assert dict(result.engine_options)["max_num_batched_tokens"] == batched


def test_attention_that_a_stated_nvfp4_may_leave_wide_is_in_the_interval():
    stated = amount(planned("glm-5.2", ["8xb200"], weights_format="nvfp4", tensor_parallel=8), "weights")
    own = amount(planned("qwen3.6-27b-nvfp4", ["b200"]), "weights")
    assert stated.high - stated.low > stated.expected // 20
    assert own.high - own.low < own.expected // 30
    # A server of four ranks logged 106.69 GiB under 0.26.
    four = amount(planned("glm-5.2", ["4xgb200"], weights_format="nvfp4", tensor_parallel=4), "weights")
    assert four.low / GIB <= 106.69 <= four.high / GIB
    assert four.expected / GIB == pytest.approx(106.69, rel=0.02)


def test_the_rest_of_a_machine_counts_on_unified_memory():
    runtime = amount(planned("qwen2.5-7b", ["dgx-spark-gb10"]), "runtime")
    assert runtime.high - runtime.expected > 2 * GIB


@pytest.mark.parametrize(
    ("before", "since", "changed"),
    [
        # The versions that the releases' own sources show: see Behaviour.
        ("0.19", "0.20", "gpu_memory_utilization"),
        ("0.19", "0.20", "graphs_inside"),
        ("0.20", "0.21", "counts_requests"),
        ("0.25", "0.26", "steps_in_flight"),
        ("0.27", "0.28", "one_line"),
        ("0.28", "0.29", "keeps_null_block"),
    ],
)
def test_each_behaviour_changes_in_its_release(before, since, changed):
    def rules(text):
        major, minor = text.split(".")
        return behaviour((int(major), int(minor)))

    assert getattr(rules(before), changed) != getattr(rules(since), changed)


def test_an_exact_fit_is_refused_once_the_null_block_counts():
    pool = 512 * 16 * 131_072
    options = {"kv_cache_memory_bytes": pool}
    fits = planned("llama-3.1-8b", ["h100"], 8192, engine="vllm@0.28", options=options)
    refused = planned("llama-3.1-8b", ["h100"], 8192, engine="vllm@0.29", options=options)
    assert judge(fits).status in ("fits", "tight")
    assert judge(refused).status == "does_not_fit"


@pytest.mark.parametrize("dtype", ["int8", "int4", "fp8_per_token_head", "turboquant_k8v4", "nvfp4"])
def test_formats_that_no_latent_backend_takes_are_refused(dtype):
    with pytest.raises(UnknownFormat, match="latent attention"):
        planned("deepseek-v3", ["8xh200"], kv_cache_dtype_k=dtype, kv_cache_dtype_v=dtype)
