"""text-generation-inference: rows, kernels, defaults by version, the warm-up and the pool, refusals."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvplan.deploy.flags import read_flags
from kvplan.deploy.flags.environment import options_of_environment
from kvplan.device import Device
from kvplan.engines import engine_named
from kvplan.engines.tgi.kernels import attention_of
from kvplan.engines.tgi.prefill import default_prefill_tokens
from kvplan.engines.tgi.rows import row_bytes
from kvplan.engines.tgi.settings import settings_of
from kvplan.errors import InvalidValue, UnknownFormat
from kvplan.hardware.parse import parse_gpus
from kvplan.judge import judge
from kvplan.layers import FullAttention, LatentAttention
from kvplan.plan import plan
from kvplan.solve import max_context
from kvplan.sources.catalog import find
from kvplan.units import GIB
from kvplan.workload import Workload

LLAMA = "llama-3.1-8b"


def card(gib, name="card", capability="9.0"):
    size = gib * GIB
    return Device(name, size, size, size, "exact", "nvidia", "hopper", capability)


def planned(name, gpu="h100", engine="tgi", **asked):
    return plan(find(name), Workload(**asked), parse_gpus((gpu,)), engine_named(engine))


def set_for(name=LLAMA, device=None, version=(3, 3), **options):
    return settings_of(
        find(name), Workload(engine_options=tuple(options.items())), device or card(80), 1, version
    )


def parts_of(result):
    return {part.name: part.bytes for part in result.devices[0].components}


@pytest.mark.parametrize(
    ("cache", "kv", "ranks", "expected"),
    [
        (FullAttention(32, 8, 128, 128), "auto", 1, 4096),
        (FullAttention(32, 8, 128, 128), "fp8", 1, 2048),
        (FullAttention(32, 8, 128, 128), "auto", 4, 1024),
        (FullAttention(71, 1, 64, 64), "auto", 8, 256),
        (LatentAttention(128, 512, 64, 128, 128), "auto", 1, 2 * 128 * 192 * 2),
        (LatentAttention(128, 512, 64, 128, 128), "auto", 8, 2 * 16 * 192 * 2),
    ],
)
def test_rows(cache, kv, ranks, expected):
    asked = Workload(kv_cache_dtype_k=kv, kv_cache_dtype_v=kv)
    assert row_bytes(cache, settings_of(find(LLAMA), asked, card(80), 1, (3, 3)), ranks) == expected


@pytest.mark.parametrize(
    ("name", "capability", "version", "kernel", "block"),
    [
        (LLAMA, "9.0", (3, 3), "flashinfer", 1),
        (LLAMA, "7.5", (3, 3), "flashinfer", 1),
        (LLAMA, "9.0", (2, 2), "paged", 16),
        ("phi-3-mini-4k", "9.0", (3, 3), "flashdecoding", 256),
        ("phi-3-mini-4k", "7.5", (3, 3), "paged", 16),
        ("falcon-7b", "8.0", (3, 3), "flashdecoding", 256),
    ],
)
def test_the_kernel_decides_the_block(name, capability, version, kernel, block):
    device = card(80, capability=capability)
    assert attention_of(find(name), "", device, version) == kernel
    assert set_for(name, device, version).block_size == block
    assert attention_of(find(name), "paged", device, version) == "paged"


def test_the_launcher_prefills_what_the_card_computes_in_a_second():
    """launcher/src/main.rs compute_optimal, by hand for Llama-3.1-8B (32 layers of hidden size 4096)."""
    layer = 2 * 128 * 4096 * (3 * 32 + 2 * 8) + 6 * 4096 * 14336
    model = find(LLAMA)
    (h100,), (l4,), (a100,) = (parse_gpus((name,)) for name in ("h100", "l4", "a100-80gb"))
    assert default_prefill_tokens(model, h100, 1, (3, 0)) == 900 * 10**12 // (32 * layer)
    assert default_prefill_tokens(model, l4, 2, (3, 0)) == 2 * 121 * 10**12 // (32 * layer)
    assert default_prefill_tokens(model, a100, 1, (3, 0)) == 4096
    assert default_prefill_tokens(find("llama-2-7b"), h100, 1, (3, 0)) == 4096
    assert default_prefill_tokens(find("gpt2"), h100, 1, (3, 0)) == 1024


def test_defaults_by_version():
    old, new = set_for(version=(2, 4)), set_for()
    assert (old.max_total_tokens, old.max_input_tokens, old.max_batch_prefill_tokens) == (4096, 4095, 4145)
    assert (new.max_total_tokens, new.max_input_tokens) == (0, 0)
    assert (old.room_of_total, new.room_of_total, old.prefill_logprobs, new.prefill_logprobs) == (
        False,
        True,
        True,
        False,
    )
    given = set_for(version=(2, 0), max_total_tokens=8192, max_input_tokens=8000)
    assert given.max_batch_prefill_tokens == 8050
    # Two requests fill the prefill; each has its blocks for the whole length.
    assert given.warmup_blocks() == 2 * 512
    assert new.warmup_blocks() == new.max_batch_prefill_tokens


def test_the_pool_since_3_0_is_free_memory_above_a_tenth_of_the_card():
    device, model = card(80), find(LLAMA)
    result = plan(model, Workload(context_tokens=8192, overhead_bytes=GIB), (device,), engine_named("tgi"))
    parts = {name: part.expected for name, part in parts_of(result).items()}
    prefill = dict(result.engine_options)["max_batch_prefill_tokens"]
    free = 80 * GIB - parts["weights"] - parts["activations"] - GIB - prefill * 131072
    above = free - (80 * GIB - int(80 * GIB * 0.9))
    assert result.kv_cache_tokens == above // 131072 + prefill
    assert result.startup_lines == (
        f"KV-cache blocks: {result.kv_cache_tokens}, size: 1",
        f"Setting max batch total tokens to {result.kv_cache_tokens}",
    )


def test_before_3_0_it_is_a_share_of_what_the_warm_up_leaves():
    device, model = card(80), find(LLAMA)
    asked = Workload(context_tokens=4096, overhead_bytes=GIB)
    result = plan(model, asked, (device,), engine_named("tgi@2.4"))
    parts = {name: part.expected for name, part in parts_of(result).items()}
    warmup = 2 * 4095 * 131072
    left = 80 * GIB - parts["weights"] - parts["activations"] - GIB - warmup
    assert result.kv_cache_tokens == int(left * 0.9) // 131072 + 2 * 4095
    blocks = plan(model, asked, (device,), engine_named("tgi@2.0")).kv_cache_tokens
    assert blocks % 16 == 0


def test_a_warm_up_that_does_not_fit_is_the_binding_test():
    options = (("max_batch_prefill_tokens", 262144), ("max_total_tokens", 4096))
    result = planned(LLAMA, "24GB", context_tokens=2048, engine_options=options)
    verdict = judge(result)
    assert (verdict.status, verdict.check) == ("does_not_fit", "free_at_start")
    assert "You need to decrease `--max-batch-prefill-tokens`" in verdict.why


def test_windows_and_foreign_families_are_intervals():
    gemma = planned("gemma-2-9b", context_tokens=8192)
    assert parts_of(gemma)["kv_cache"].low < parts_of(gemma)["kv_cache"].high
    assert judge(gemma).status == "tight"
    qwen = planned("qwen3-8b", context_tokens=8192)
    assert [notice.code for notice in qwen.warnings] == ["layer-not-modelled"]
    assert judge(qwen).status == "tight"
    assert judge(planned(LLAMA, context_tokens=8192)).status == "fits"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"max_total_tokens": 4096, "max_input_tokens": 4096},
            "`max_input_tokens`(4096) must be < `max_total_tokens`(4096)",
        ),
        (
            {"max_total_tokens": 4096, "max_batch_total_tokens": 2048},
            "`max_total_tokens` must be <= `max_batch_total_tokens`. Given: 4096 and 2048",
        ),
    ],
)
def test_the_launchers_own_refusals(options, message):
    refusal, *_ = planned(LLAMA, engine_options=tuple(options.items())).refusals
    assert refusal.message == message


def test_refusals_and_bad_input():
    fp8 = {"kv_cache_dtype_k": "fp8", "kv_cache_dtype_v": "fp8"}
    assert not planned(LLAMA, **fp8).refusals
    assert [r.code for r in planned(LLAMA, engine="tgi@2.3", **fp8).refusals] == ["kv-format-refused"]
    assert [r.code for r in planned("phi-3-mini-4k", **fp8).refusals] == ["kv-format-refused"]
    too_long = planned(LLAMA, context_tokens=9000, engine_options=(("max_total_tokens", 8192),))
    assert [r.code for r in too_long.refusals] == ["context-exceeds-max-total-tokens"]
    assert [r.code for r in planned("qwen2.5-7b", "7xh100").refusals] == ["kv-heads-not-divisible"]
    assert not planned("falcon-7b", context_tokens=1024).refusals
    assert [r.code for r in planned("bge-m3", context_tokens=512).refusals] == ["architecture-not-served"]
    assert [r.code for r in planned("gpt-oss-20b").refusals] == ["weights-not-loaded"]
    with pytest.raises(UnknownFormat, match="does not load"):
        planned(LLAMA, weights_format="q4_k_m")
    with pytest.raises(UnknownFormat, match="no KV cache format 'int8'"):
        planned(LLAMA, kv_cache_dtype_k="int8", kv_cache_dtype_v="int8")
    with pytest.raises(InvalidValue, match="not a share"):
        planned(LLAMA, engine_options=(("cuda_memory_fraction", 1.5),))
    for version in ("1.4", "latest", "3"):
        with pytest.raises(InvalidValue, match="not modelled"):
            engine_named(f"tgi@{version}")


def test_quantize_decides_the_weights_of_an_unquantized_checkpoint():
    for asked, format_name in (("eetq", "int8"), ("bitsandbytes-nf4", "nf4"), ("fp8", "fp8")):
        result = planned(LLAMA, engine_options=(("quantize", asked),))
        assert result.weights_format == format_name
        assert parts_of(result)["weights"].expected < parts_of(planned(LLAMA))["weights"].expected


def test_flags_and_variables():
    words = "--num-shard 2 --max-total-tokens=8192 --sharded true --cuda-memory-fraction 0.8 --nope 3"
    flags = read_flags("tgi", [*words.split(), "--port", "80", "--json-output"])
    assert dict(flags.options) == {
        "num_shard": 2,
        "max_total_tokens": 8192,
        "sharded": True,
        "cuda_memory_fraction": 0.8,
    }
    assert flags.unknown == ("--nope",)
    variables = {"NUM_SHARD": "4", "QUANTIZE": "eetq", "MAX_INPUT_LENGTH": "1024", "TGI_WIGGLE_ROOM": "0.8"}
    assert dict(options_of_environment("tgi", variables).options) == {
        "num_shard": 4,
        "quantize": "eetq",
        "max_input_length": 1024,
        "wiggle_room": 0.8,
    }


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([LLAMA, "gemma-2-9b", "phi-3-mini-4k", "deepseek-v2-lite"]),
    st.sampled_from(["48GB", "h100", "2xl40s"]),
    st.sampled_from(["tgi", "tgi@2.4", "tgi@2.0"]),
    st.integers(1, 20),
)
def test_the_longest_context_is_the_inverse_of_the_fit(name, gpu, engine_name, batch):
    model, devices, engine = find(name), parse_gpus((gpu,)), engine_named(engine_name)
    workload = Workload(context_tokens=2048, context_source="flag", num_sequences=batch)
    longest = max_context(model, workload, devices, engine)

    def works(tokens):
        result = plan(model, replace(workload, context_tokens=tokens), devices, engine)
        return judge(result).status in ("fits", "tight")

    block = plan(model, workload, devices, engine).cache.block_size
    if longest:
        assert works(longest)
    if longest < model.context_limit_tokens:
        assert not works(longest + block)


def test_more_memory_never_gives_fewer_tokens_and_more_shards_never_more_weights():
    for version in ("tgi", "tgi@2.4"):
        model, workload = find(LLAMA), Workload(context_tokens=4096)
        tokens = [
            plan(model, workload, (card(gib),), engine_named(version)).kv_cache_tokens
            for gib in (24, 32, 48, 80, 141)
        ]
        assert tokens == sorted(tokens)
        weights = [
            parts_of(plan(model, workload, (card(80),) * shards, engine_named(version)))["weights"].expected
            for shards in (1, 2, 4, 8)
        ]
        assert weights == sorted(weights, reverse=True)


def test_vision_models_start_as_a_real_3_3_server_did():
    """gemma-3-27b on two RTX A6000: flashinfer, a prefill of 8,000 tokens."""
    for version, attention, prefill in (("3.3", "flashinfer", 8000), ("3.0", "flashdecoding", 4096)):
        result = plan(
            find("gemma-3-27b"), Workload(context_tokens=8000), parse_gpus(("2xrtx-a6000",)),
            engine_named(f"tgi@{version}"),
        )  # fmt: skip
        options = dict(result.engine_options)
        assert (options["attention"], options["max_batch_prefill_tokens"]) == (attention, prefill)
