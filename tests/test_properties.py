"""Properties that hold for every model, card and engine: exact inverses, monotone requirements."""

from functools import lru_cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvplan.changes.attempt import Situation
from kvplan.changes.suggestions import suggestions
from kvplan.engines import engine_named
from kvplan.errors import KvplanError
from kvplan.hardware.parse import parse_gpus
from kvplan.judge import Rules, succeeds
from kvplan.plan import plan
from kvplan.solve import MAX_SEQUENCES, context_ceiling, max_context, max_sequences
from kvplan.sources import open_model
from kvplan.workload import Workload

MODELS = (
    "llama-3-8b",
    "gemma-3-4b",
    "mistral-7b-v0.1",
    "qwen3-30b-a3b",
    "gpt-oss-20b",
    "deepseek-v2-lite",
    "phi-4",
)
ENGINES = ("ideal", "vllm", "vllm@0.19", "tgi", "lmdeploy", "llama.cpp", "transformers")
GPUS = ("24GB", "48GB", "80GB", "rtx-4090", "2xl40s", "h100")


@lru_cache(maxsize=32)
def model_named(name):
    return open_model(name)


def required(model, workload, devices, engine):
    result = plan(model, workload, devices, engine)
    return max(device.required.expected for device in result.devices)


cases = st.tuples(st.sampled_from(MODELS), st.sampled_from(ENGINES), st.sampled_from(GPUS))


@given(cases, st.integers(1, 64))
def test_max_context_is_the_exact_inverse_of_fits(case, batch):
    model, engine, devices = model_named(case[0]), engine_named(case[1]), parse_gpus([case[2]])
    workload = Workload(num_sequences=batch)
    longest = max_context(model, workload, devices, engine)

    def fits(tokens):
        asked = Workload(context_tokens=tokens, context_source="flag", num_sequences=batch)
        return succeeds(plan(model, asked, devices, engine))

    if longest == 0:
        assert not fits(1)
    else:
        assert fits(longest)
        assert longest == context_ceiling(model, workload) or not fits(longest + 1)


@given(cases, st.integers(1, 32_768))
def test_max_sequences_is_the_exact_inverse_of_fits(case, tokens):
    model, engine, devices = model_named(case[0]), engine_named(case[1]), parse_gpus([case[2]])
    workload = Workload(context_tokens=tokens, context_source="flag")
    limit = plan(model, workload, devices, engine).sequence_limit
    most = max_sequences(model, workload, devices, engine, ceiling=limit)

    def fits(batch):
        asked = Workload(context_tokens=tokens, context_source="flag", num_sequences=batch)
        return succeeds(plan(model, asked, devices, engine))

    if most == 0:
        assert not fits(1)
    else:
        assert fits(most)
        assert most in (limit, MAX_SEQUENCES) or not fits(most + 1)


MICRO_BATCH = 512


@given(cases, st.integers(1, 60_000), st.integers(0, 10_000))
def test_more_context_never_needs_less(case, tokens, more):
    model, engine, devices = model_named(case[0]), engine_named(case[1]), parse_gpus([case[2]])
    if case[1] == "llama.cpp":
        # A shorter context cuts the micro-batch, and a graph of one token packs otherwise than of two.
        tokens = max(tokens, MICRO_BATCH)
    shorter = Workload(context_tokens=tokens, context_source="flag")
    longer = Workload(context_tokens=tokens + more, context_source="flag")
    assert required(model, shorter, devices, engine) <= required(model, longer, devices, engine)


# From one block on: fp8 latents come in blocks of 64 tokens where those in 16 bits have 16.
@given(st.sampled_from(MODELS), st.integers(64, 40_000))
def test_fp8_cache_is_never_larger_than_bf16_under_vllm(name, tokens):
    model, engine, devices = model_named(name), engine_named("vllm"), parse_gpus(["80GB"])
    small, large = (
        Workload(context_tokens=tokens, context_source="flag", kv_cache_dtype_k=kv, kv_cache_dtype_v=kv)
        for kv in ("fp8", "bf16")
    )
    assert (
        plan(model, small, devices, engine).cache.total.expected
        <= plan(model, large, devices, engine).cache.total.expected
    )


@given(st.sampled_from(MODELS), st.sampled_from([1, 2, 4]))
def test_more_tensor_ranks_never_hold_more_weights(name, ranks):
    model, engine = model_named(name), engine_named("vllm")

    def weights(count):
        workload = Workload(context_tokens=1024, context_source="flag", tensor_parallel=count)
        result = plan(model, workload, parse_gpus([f"{count}xh100"]), engine)
        return next(part.bytes.expected for part in result.devices[0].components if part.name == "weights")

    assert weights(2 * ranks) <= weights(ranks)


@given(cases, st.integers(1024, 65_536))
def test_bounds_are_ordered_and_components_add_up(case, tokens):
    model, engine, devices = model_named(case[0]), engine_named(case[1]), parse_gpus([case[2]])
    result = plan(model, Workload(context_tokens=tokens, context_source="flag"), devices, engine)
    for device in result.devices:
        amounts = [part.bytes for part in device.components]
        assert all(0 <= amount.low <= amount.expected <= amount.high for amount in amounts)
        assert device.required.expected == sum(amount.expected for amount in amounts)
        assert all(amount.low == amount.high for amount in amounts if amount.basis == "exact")


@pytest.mark.parametrize("name", ["llama-3-70b", "gemma-3-27b", "qwen3-32b", "gpt-oss-120b"])
@pytest.mark.parametrize("gpu", ["24GB", "48GB", "rtx-4090"])
def test_every_suggestion_keeps_its_promise(name, gpu):
    model, devices, engine = model_named(name), parse_gpus([gpu]), engine_named("vllm")
    workload = Workload(context_tokens=32_768, context_source="flag")
    base = plan(model, workload, devices, engine)
    found = suggestions(base, Situation(model, workload, devices, engine, engine_chosen=False))
    assert len(found) <= 4
    assert len({tuple(key for key, _ in item.changes) for item in found}) == len(found)
    for item in found:
        assert succeeds(item.plan, Rules(allow_offload=("allow_offload", "true") in item.changes))


@given(st.sampled_from(MODELS), st.text(max_size=12))
def test_any_kv_format_plans_or_is_refused(name, kv):
    workload = Workload(context_tokens=4096, context_source="flag", kv_cache_dtype_k=kv, kv_cache_dtype_v=kv)
    for engine in ENGINES:
        try:
            plan(model_named(name), workload, parse_gpus(["80GB"]), engine_named(engine))
        except KvplanError as error:
            assert error.hint


@pytest.mark.parametrize("engine", ["vllm", "sglang", "llama.cpp", "ollama", "transformers", "ideal"])
@pytest.mark.parametrize("name", ["whisper-small", "llama-3.2-11b-vision", "mamba-2.8b"])
def test_bounds_are_ordered_where_a_context_is_shorter_than_what_is_kept_beside_it(name, engine):
    for tokens in (1, 16, 400):
        asked = Workload(context_tokens=tokens, context_source="flag")
        result = plan(model_named(name), asked, parse_gpus(["h100"]), engine_named(engine))
        amounts = [part.bytes for part in result.devices[0].components]
        for amount in (result.cache.total, *amounts):
            assert amount.low <= amount.expected <= amount.high


@pytest.mark.parametrize("kv", ["bf16", "fp8", "int4", "iq4_nl", "fp32"])
@pytest.mark.parametrize("name", ["mamba-2.8b", "falcon-mamba-7b", "qwen3-next-80b", "lfm2-1.2b"])
def test_the_textbooks_states_do_not_follow_the_caches_format(name, kv):
    model = model_named(name)

    def held(fmt):
        asked = Workload(
            context_tokens=4096,
            context_source="flag",
            num_sequences=300,
            kv_cache_dtype_k=fmt,
            kv_cache_dtype_v=fmt,
        )
        result = plan(model, asked, parse_gpus(["h100"]), engine_named("ideal"))
        assert min(part.bytes.low for part in result.devices[0].components) >= 0
        return [part.bytes for part in result.devices[0].components if part.name == "recurrent_state"]

    assert held(kv) == held("auto") != []
