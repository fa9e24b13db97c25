"""LMDeploy: its own sizing code's blocks and states, TurboMind's layout, budgets, refusals, properties."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle_tables import oracle

from kvplan.deploy.flags import read_flags
from kvplan.device import Device
from kvplan.engines import engine_named
from kvplan.engines.lmdeploy.blocks import turbomind_block_bytes
from kvplan.engines.lmdeploy.demand import rank_demand
from kvplan.engines.lmdeploy.rank_plan import settled_reserve
from kvplan.engines.lmdeploy.settings import Settings
from kvplan.errors import InvalidValue, UnknownFormat
from kvplan.hardware.parse import parse_gpus
from kvplan.judge import judge
from kvplan.layers import FullAttention, LatentAttention
from kvplan.plan import plan
from kvplan.solve import max_context, max_sequences
from kvplan.sources.catalog import find
from kvplan.units import GIB, ceil_div
from kvplan.workload import Workload

ROWS = oracle("lmdeploy_blocks.jsonl")
PYTORCH = (("backend", "pytorch"),)


def card(gib, name="card"):
    return Device(name, gib * GIB, gib * GIB, gib * GIB, "exact", "nvidia", "hopper")


def planned(name, gpu="h100", engine="lmdeploy", **asked):
    return plan(find(name), Workload(**asked), parse_gpus((gpu,)), engine_named(engine))


def parts_of(result, index=0):
    return {part.name: part.bytes for part in result.devices[index].components}


def settings_of(row):
    return Settings(
        backend="pytorch",
        cache_max_entry_count=row["cache_max_entry_count"],
        share_of_total=False,
        num_gpu_blocks=0,
        block_length=64,
        max_batch_size=row["max_batch_size"],
        max_prefill_token_num=row["max_prefill_token_num"],
        state_budget=0,
        quant_policy=row["quant_policy"],
        text_only=False,
    )


@pytest.mark.parametrize("name", sorted({row["model"] for row in ROWS}))
def test_blocks_states_and_the_reserve_equal_lmdeploys_own(name):
    model = find(name)
    for row in ROWS:
        if row["model"] != name:
            continue
        asked = settings_of(row)
        demand = rank_demand(model, asked, row["tp"], 4096, 1)
        free = row["free_bytes"] - demand.states.expected
        reserve = settled_reserve(model, asked, free, demand.block_bytes)
        num_blocks = int((free - reserve) * row["cache_max_entry_count"]) // demand.block_bytes
        if "error" in row:
            assert free <= 0 if "state cache" in row["error"] else num_blocks <= 2, row
            continue
        assert demand.block_length == row["block_length"], row
        assert demand.block_bytes == row["block_bytes"], row
        assert demand.states.expected == row["state_bytes"], row
        assert num_blocks == row["num_gpu_blocks"], row


@pytest.mark.parametrize("name", ["llama-3.1-8b", "deepseek-v2-lite", "gpt-oss-20b"])
def test_the_longest_session_is_what_lmdeploy_allows(name):
    """The engine keeps one block for padding and one of every session (engine.py)."""
    model = find(name)
    for row in ROWS:
        if row["model"] != name or "error" in row or row["max_session_len"] is None:
            continue
        pool = row["num_gpu_blocks"] * row["block_bytes"]
        longest = row["max_session_len"]
        fits = rank_demand(model, settings_of(row), row["tp"], longest, 1)
        beyond = rank_demand(model, settings_of(row), row["tp"], longest + 1, 1)
        assert fits.kv.expected <= pool < beyond.kv.expected


@pytest.mark.parametrize(
    ("cache", "ranks", "quant_policy", "expected"),
    [
        (FullAttention(32, 8, 128, 128), 1, 0, 64 * 8 * 2 * 256),
        (FullAttention(32, 8, 128, 128), 1, 8, 64 * 8 * 2 * (128 + 4)),
        (FullAttention(32, 8, 128, 128), 1, 4, 64 * 8 * 2 * (64 + 4)),
        (FullAttention(32, 8, 128, 128), 16, 0, 64 * 2 * 256),
        (LatentAttention(20, 512, 64, 192, 256), 4, 0, 64 * 576 * 2),
    ],
)
def test_turbominds_layout(cache, ranks, quant_policy, expected):
    assert turbomind_block_bytes(cache, 64, ranks, quant_policy) == expected


def test_turbomind_gives_the_blocks_a_share_of_what_is_left():
    model, workload = find("llama-3.1-8b"), Workload(context_tokens=8192, overhead_bytes=GIB)
    tokens = {}
    for share in (0.4, 0.8):
        asked = replace(workload, engine_options=(("cache_max_entry_count", share),))
        result = plan(model, asked, (card(80),), engine_named("lmdeploy"))
        parts = {name: part.expected for name, part in parts_of(result).items()}
        left = 80 * GIB - parts["weights"] - parts["activations"] - GIB
        tokens[share] = result.kv_cache_tokens
        assert 0 <= int(left * share) - result.kv_cache_tokens * 131072 < 64 * 131072
    assert tokens[0.8] == pytest.approx(2 * tokens[0.4], abs=128)


def test_the_one_public_start_up_lies_inside_the_interval():
    """InternVL2.5-8B on an A100 80GB: 6,214 blocks of 8 MiB (InternLM/lmdeploy issue 3411, April 2025).

    Its language model is InternLM2.5-7B; the vision tower's 304 M parameters are reserved for here.
    """
    result = planned("internlm2.5-7b", "a100-80gb", context_tokens=4096, reserve_bytes=2 * 304_000_000)
    assert result.cache.page_size_bytes == 8 * 1024**2
    assert result.kv_cache_tokens // 64 == pytest.approx(6214, rel=0.03)
    (check,) = result.devices[0].checks
    beside = result.devices[0].budget_bytes - 6214 * 8 * 1024**2 / 0.8
    taken = [sum(getattr(part, bound) for name, part in parts_of(result).items() if name != "kv_cache")
             for bound in ("low", "high")]  # fmt: skip
    held = int((check.limit_bytes - beside) * 0.2)
    assert taken[0] <= beside + held <= taken[1]


def test_the_share_was_of_the_whole_card_until_0_2_1():
    result = planned("llama-2-7b", "a100-80gb", "lmdeploy@0.2.1", context_tokens=4096, overhead_bytes=GIB)
    pool = int(result.devices[0].device.usable_bytes * 0.5)
    assert result.kv_cache_tokens == pool // (64 * 524288) * 64
    beside = next(check for check in result.devices[0].checks if check.name == "outside_pool")
    taken = sum(parts_of(result)[name].expected for name in ("weights", "activations")) + GIB
    assert beside.required.expected == taken + pool


def test_a_number_of_blocks_sets_the_pool_aside():
    options = (*PYTORCH, ("num_gpu_blocks", 100))
    result = planned("llama-3.1-8b", context_tokens=6208, engine_options=options)
    assert result.kv_cache_tokens == 99 * 64
    assert judge(result).status == "fits"
    longer = planned("llama-3.1-8b", context_tokens=6400, engine_options=options)
    assert judge(longer).status == "does_not_fit"
    old = (("cache_max_entry_count", 100),)
    assert planned("llama-3.1-8b", engine="lmdeploy@0.9", engine_options=old).kv_cache_tokens == 6400
    (refusal,) = planned("llama-3.1-8b", engine_options=old).refusals
    assert refusal.message == "object-cache path expects 0 < cache_max_block_count < 1"


@pytest.mark.parametrize(
    ("name", "options", "backend"),
    [
        ("llama-3.1-8b", (), "turbomind"),
        ("llama-3.1-8b", PYTORCH, "pytorch"),
        ("mistral-7b-v0.3", (), "pytorch"),
        ("deepseek-v3", (), "pytorch"),
        ("qwen3.5-27b", (), "turbomind"),
    ],
)
def test_what_turbomind_lacks_falls_back(name, options, backend):
    result = planned(name, "8xh200", context_tokens=1024, engine_options=options)
    assert dict(result.engine_options)["backend"] == backend
    said = [notice.code for notice in result.warnings]
    assert ("backend-fallback" in said) == (backend == "pytorch" and not options)


def test_the_batch_follows_the_card_and_fixes_the_state_slots():
    large = planned("qwen3-next-80b-a3b", "8xh100", context_tokens=1024)
    small = planned("qwen3-next-80b-a3b", "8xl40s", context_tokens=1024)
    assert (large.sequence_limit, small.sequence_limit) == (1024, 128)
    slots = [parts_of(result)["recurrent_state"].expected for result in (large, small)]
    assert slots[0] * 130 == slots[1] * 1026


def test_refusals_and_bad_input():
    assert [r.code for r in planned("gemma-3n-e4b", "l40s").refusals] == ["architecture-not-served"]
    (removed,) = planned("starcoder2-3b").refusals
    assert removed.message == "StarCoder2 (Starcoder2ForCausalLM) support has been removed from LMDeploy."
    assert not planned("starcoder2-3b", engine="lmdeploy@0.9").refusals
    fp8 = {"kv_cache_dtype_k": "fp8", "kv_cache_dtype_v": "fp8"}
    assert [r.code for r in planned("llama-3.1-8b", **fp8).refusals] == ["kv-format-refused"]
    assert not planned("llama-3.1-8b", engine_options=PYTORCH, **fp8).refusals
    assert [r.code for r in planned("llama-3.1-8b", "3xh100").refusals] == ["heads-not-divisible"]
    assert [r.code for r in planned("qwen2.5-7b", "7xh100").refusals] == ["kv-heads-not-divisible"]
    assert [r.code for r in planned("llama-3.1-8b", "2xh100", pipeline_parallel=2).refusals] == [
        "no-pipeline"
    ]
    with pytest.raises(UnknownFormat, match="does not load"):
        planned("llama-3.1-8b", weights_format="q4_k_m")
    with pytest.raises(UnknownFormat, match="no KV cache format 'q8_0'"):
        planned("llama-3.1-8b", kv_cache_dtype_k="q8_0", kv_cache_dtype_v="q8_0")
    with pytest.raises(InvalidValue, match="not a share"):
        planned("llama-3.1-8b", engine_options=(*PYTORCH, ("cache_max_entry_count", 1.0)))
    for version in ("0.1.9", "latest", "0"):
        with pytest.raises(InvalidValue, match="not modelled"):
            engine_named(f"lmdeploy@{version}")


def test_other_versions_say_whose_rules_they_are_planned_by():
    codes = [n.code for n in planned("llama-3.1-8b", engine="lmdeploy@0.9.2").warnings]
    assert codes == ["version-assumed"]
    assert not planned("llama-3.1-8b", engine="lmdeploy@0.18.0").warnings


def test_flags():
    words = "--backend pytorch --session_len 8192 --cache-max-entry-count=0.5 --quant-policy int8 --tp 2"
    flags = read_flags("lmdeploy", [*words.split(), "--unheard-of", "1", "--ssl"])
    assert dict(flags.options) == {
        "backend": "pytorch",
        "session_len": 8192,
        "cache_max_entry_count": 0.5,
        "quant_policy": 8,
        "tp": 2,
    }
    assert flags.unknown == ("--unheard-of",)
    with pytest.raises(InvalidValue, match="--quant-policy"):
        read_flags("lmdeploy", ["--quant-policy", "5"])


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["llama-3.1-8b", "mistral-7b-v0.1", "deepseek-v2-lite", "gpt-oss-20b", "qwen3.5-27b"]),
    st.sampled_from(["48GB", "h100", "2xl40s"]),
    st.integers(1, 20),
)
def test_the_longest_context_is_the_inverse_of_the_fit(name, gpu, batch):
    model, devices, engine = find(name), parse_gpus((gpu,)), engine_named("lmdeploy")
    workload = Workload(context_tokens=4096, context_source="flag", num_sequences=batch)
    longest = max_context(model, workload, devices, engine)

    def status(tokens):
        return judge(plan(model, replace(workload, context_tokens=tokens), devices, engine)).status

    if longest:
        assert status(longest) in ("fits", "tight")
    if longest < model.context_limit_tokens:
        assert status(longest + 64) == "does_not_fit"
    most = max_sequences(model, replace(workload, num_sequences=1), devices, engine)
    if most:
        result = plan(model, replace(workload, num_sequences=most), devices, engine)
        assert judge(result).status in ("fits", "tight")


def test_more_memory_never_gives_fewer_tokens_and_more_ranks_never_more_weights():
    for options in ((), PYTORCH):
        for name in ("llama-3.1-8b", "gpt-oss-20b"):
            model, workload = find(name), Workload(context_tokens=4096, engine_options=options)
            tokens = [
                plan(model, workload, (card(gib),), engine_named("lmdeploy")).kv_cache_tokens
                for gib in (24, 32, 48, 80, 141)
            ]
            assert tokens == sorted(tokens)
            weights = [
                parts_of(plan(model, workload, (card(80),) * ranks, engine_named("lmdeploy")))[
                    "weights"
                ].expected
                for ranks in (1, 2, 4, 8)
            ]
            assert weights == sorted(weights, reverse=True)


def test_quantized_caches_are_never_larger():
    for backend, names in (
        ("turbomind", ("int8", "int4")),
        ("pytorch", ("int8", "int4", "fp8", "turbo_quant")),
    ):
        options = (("backend", backend),)
        whole = planned("llama-3.1-8b", context_tokens=8192, engine_options=options).cache.total.expected
        for name in names:
            kv = {"kv_cache_dtype_k": name, "kv_cache_dtype_v": name}
            result = planned("llama-3.1-8b", context_tokens=8192, engine_options=options, **kv)
            assert result.cache.total.expected < whole
            assert result.cache.total.expected == ceil_div(8192, 64) * result.cache.page_size_bytes
