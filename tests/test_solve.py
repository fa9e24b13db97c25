"""Inverses under random settings: what is returned succeeds, one more (or a GPU less) does not."""

from functools import lru_cache

from hypothesis import given, settings
from hypothesis import strategies as st

from kvplan.capacity.fleet import Site, paged_fleet, reserved_fleet
from kvplan.engines import engine_named
from kvplan.hardware.parse import parse_gpus
from kvplan.judge import Rules, succeeds
from kvplan.plan import plan
from kvplan.solve import context_ceiling, fewest_gpus, max_context, max_sequences
from kvplan.sources import open_model
from kvplan.workload import Workload

MODELS = ("llama-3.1-8b", "gemma-3-4b", "qwen3-30b-a3b", "qwen3-next-80b", "deepseek-v2-lite")
GPUS = ("24GB", "48GB", "h100", "2xl40s", "rtx-5090")

cases = st.tuples(
    st.sampled_from(MODELS),
    st.sampled_from(GPUS),
    st.sampled_from(["vllm", "sglang", "tgi", "lmdeploy", "llama.cpp"]),
    st.sampled_from([None, "fp8", "q4_k_m"]),
    st.booleans(),
)


@lru_cache(maxsize=16)
def model_named(name):
    return open_model(name)


def asked(case, tokens, batch):
    name, gpu, engine_name, weights, strict = case
    if (weights == "q4_k_m") != (engine_name == "llama.cpp"):
        weights = "q4_k_m" if engine_name == "llama.cpp" else None
    workload = Workload(
        context_tokens=tokens, context_source="flag", num_sequences=batch, weights_format=weights
    )
    return model_named(name), workload, parse_gpus([gpu]), engine_named(engine_name), Rules(strict=strict)


def works(question, **changes):
    from dataclasses import replace

    model, workload, devices, engine, rules = question
    return succeeds(plan(model, replace(workload, **changes), devices, engine), rules)


@settings(max_examples=30)
@given(cases, st.integers(1, 24))
def test_one_more_block_than_the_longest_context_does_not_succeed(case, batch):
    model, workload, devices, engine, rules = question = asked(case, 4096, batch)
    longest = max_context(model, workload, devices, engine, rules)
    block = plan(model, workload, devices, engine).cache.block_size or 1
    if longest:
        assert works(question, context_tokens=longest)
    if longest < context_ceiling(model, workload):
        assert not works(question, context_tokens=longest + block)


@settings(max_examples=30)
@given(cases, st.integers(100, 20_000))
def test_one_more_sequence_does_not_succeed(case, tokens):
    model, workload, devices, engine, rules = question = asked(case, tokens, 1)
    limit = plan(model, workload, devices, engine).sequence_limit
    most = max_sequences(model, workload, devices, engine, rules, limit)
    if most:
        assert works(question, num_sequences=most)
    if limit is None or most < limit:
        assert not works(question, num_sequences=most + 1)


@settings(max_examples=20)
@given(cases, st.sampled_from([2048, 30_000]), st.sampled_from([1, 20]))
def test_half_of_the_fewest_gpus_do_not_suffice(case, tokens, batch):
    model, workload, devices, engine, rules = asked(case, tokens, batch)
    count = fewest_gpus(model, workload, devices[0], engine, rules, at_most=8)
    if count:
        assert succeeds(plan(model, workload, devices[:1] * count, engine), rules)
    if count > 1:
        assert not succeeds(plan(model, workload, devices[:1] * (count // 2), engine), rules)


@settings(max_examples=10)
@given(cases, st.sampled_from([2048, 8192]), st.integers(1, 60))
def test_a_fleet_holds_its_sessions_and_every_replica_is_legal(case, tokens, sessions):
    model, workload, devices, engine, rules = asked(case, tokens, 1)
    site = Site(model, workload, devices[0], engine, rules)
    for fleet in (reserved_fleet(site, sessions), paged_fleet(site, sessions, tokens / 3)):
        if fleet is None:
            continue
        assert fleet.num_gpus == fleet.replicas * fleet.shape.tensor * fleet.shape.pipeline
        assert fleet.replicas * fleet.shape.num_sessions >= sessions
        assert (fleet.replicas - 1) * fleet.shape.num_sessions < sessions
        assert not fleet.shape.plan.refusals
        assert fleet.status in ("fits", "tight")
