"""transformers' caches equal what was measured on real caches, in bytes."""

import ast
import re

import pytest
from oracle_tables import oracle

from kvplan.engines.transformers.policy import TransformersEngine, engine
from kvplan.errors import InvalidValue, UnknownFormat
from kvplan.hardware.parse import parse_gpus
from kvplan.sources import open_model
from kvplan.sources.config_model import model_from_config
from kvplan.workload import Workload

TABLES = oracle("transformers_cache.jsonl")
OLDER = oracle("transformers_cache_4.57.jsonl")
WEIGHTS = {"float32": "fp32", "bfloat16": "bf16"}


def options_of(row):
    implementation = row["implementation"]
    steps = re.search(r"\+(\d+) decode", implementation)
    generated = (("max_new_tokens", int(steps.group(1))),) if steps else ()
    if implementation == "StaticCache":
        return (("cache_implementation", "static"), ("cache_config", {"max_cache_len": row["max_cache_len"]}))
    if implementation.startswith("QuantizedCache"):
        backend, text = re.match(r"QuantizedCache\[(\w+),(.*)\]\(", implementation).groups()
        config = {"backend": backend, **ast.literal_eval(text)}
        return (("cache_implementation", "quantized"), ("cache_config", config), *generated)
    return generated


def planned(table, row, version):
    model = model_from_config(table["config"], name=table["model_class"], source="test")
    workload = Workload(
        context_tokens=row["ctx"],
        num_sequences=row["batch"],
        weights_format=WEIGHTS[row["dtype"]],
        encoder_tokens=row.get("encoder_len", 0),
        engine_options=options_of(row),
    )
    return engine(version).plan(model, workload, ()).cache


def rows_of(table):
    return [dict(zip(table["columns"], values, strict=True)) for values in table["rows"]]


@pytest.mark.parametrize("table", TABLES, ids=[f"{t['model_class']}-{i}" for i, t in enumerate(TABLES)])
def test_caches_equal_the_measured_bytes(table):
    for row in rows_of(table):
        cache = planned(table, row, None)
        assert cache.total.expected == row["cache_bytes"], row
        assert cache.total.basis == "exact"
        if "decode" not in row["implementation"]:
            assert cache.peak_bytes == max(row["storage_bytes"], row["cache_bytes"]), row


@pytest.mark.parametrize("table", OLDER, ids=[f"{t['model_class']}-{i}" for i, t in enumerate(OLDER)])
def test_older_caches_equal_the_measured_bytes(table):
    for row in rows_of(table):
        cache = planned(table, row, "4.57")
        assert cache.total.expected == row["cache_bytes"], row
        assert cache.total.basis == "exact"


def test_between_two_measured_versions_the_answer_covers_both():
    model = open_model("deepseek-v3")
    asked = Workload(context_tokens=1000)
    older, newer = (engine(version).plan(model, asked, ()).cache.total for version in ("4.57", "5.23"))
    # 61 layers, 128 heads x (192 + 128) against one row of 512 + 64, two bytes each.
    assert older.expected == 1000 * 61 * 128 * 320 * 2
    assert newer.expected == 1000 * 61 * 576 * 2
    plan = engine("5.1").plan(model, asked, ())
    assert (plan.cache.total.low, plan.cache.total.high) == (newer.expected, older.expected)
    assert plan.cache.total.basis == "assumed"
    assert [notice.code for notice in plan.warnings] == ["version-not-measured"]


def test_a_static_cache_reserves_at_least_the_text():
    model = open_model("llama-3-8b")
    row = 32 * 2 * 8 * 128 * 2
    for config, length in (({"max_cache_len": 5000}, 5000), ({"max_cache_len": 10}, 1000), ({}, 1000)):
        options = (("cache_implementation", "static"), ("cache_config", config))
        plan = TransformersEngine().plan(model, Workload(1000, engine_options=options), ())
        assert plan.cache.total.expected == length * row


def test_beams_are_sequences():
    model = open_model("llama-3-8b")
    one = TransformersEngine().plan(model, Workload(1000), ())
    four = TransformersEngine().plan(model, Workload(1000, engine_options=(("num_beams", 4),)), ())
    assert four.cache.total.expected == 4 * one.cache.total.expected


def test_a_window_is_judged_by_the_prompt_it_held():
    model = open_model("gemma-2-2b")
    plan = TransformersEngine().plan(model, Workload(8192), parse_gpus(["24GB"]))
    parts = {part.name: part.bytes for part in plan.devices[0].components}
    row = 4 * 256 * 2 * 2
    assert plan.cache.total.expected == 13 * (8192 + 4095) * row
    assert parts["kv_cache"].expected == plan.cache.peak_bytes == 26 * 8192 * row


def test_a_quantized_cache_may_wait_unpacked():
    model = open_model("llama-3-8b")
    options = (("cache_implementation", "quantized"), ("cache_config", {"residual_length": 65}))
    plan = TransformersEngine().plan(model, Workload(1000, engine_options=options), parse_gpus(["24GB"]))
    kv = next(part.bytes for part in plan.devices[0].components if part.name == "kv_cache")
    values = 32 * 2 * 8 * 128
    assert kv.expected == plan.cache.total.expected == 1000 * values * 9 // 16
    assert kv.high - kv.expected == 64 * values * 2 - 64 * values * 9 // 16


def test_offloaded_caches_lie_in_system_memory():
    model = open_model("llama-3-8b")
    options = (("cache_implementation", "offloaded"),)
    plan = TransformersEngine().plan(model, Workload(8192, engine_options=options), parse_gpus(["24GB"]))
    kv = next(part.bytes for part in plan.devices[0].components if part.name == "kv_cache")
    assert plan.offloaded
    assert plan.host[0].bytes.expected == plan.cache.total.expected == 8192 * 131_072
    assert kv.expected == plan.cache.total.expected // 16


def test_two_cards_share_layers():
    model = open_model("llama-3-70b")
    asked = Workload(8192)
    one = TransformersEngine().plan(model, asked, parse_gpus(["b200"])).devices[0]
    two = TransformersEngine().plan(model, asked, parse_gpus(["2xh100"])).devices
    assert len(two) == 2
    for name in ("weights", "kv_cache"):
        whole = next(part.bytes for part in one.components if part.name == name)
        parts = [next(p.bytes for p in device.components if p.name == name) for device in two]
        assert abs(sum(part.expected for part in parts) - whole.expected) <= 1
        assert all(part.basis == "assumed" and part.high > part.expected for part in parts)


def test_mxfp4_grows_on_old_cards():
    model = open_model("gpt-oss-20b")
    for gpu, fits in (("v100-32gb", False), ("rtx-4090", True)):
        plan = TransformersEngine().plan(model, Workload(4096), parse_gpus([gpu]))
        assert (plan.weights.expected < 16 * 2**30) is fits
        assert [notice.code for notice in plan.warnings] == [
            "mxfp4-needs-kernels" if fits else "mxfp4-expanded"
        ]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ((("cache_implementation", "statik"),), "statik"),
        ((("cache_implementation", "quantized"), ("cache_config", {"nbits": 3})), "nbits"),
        ((("cache_implementation", "quantized"), ("cache_config", {"backend": "fp8", "nbits": 4})), "fp8"),
        ((("cache_implementation", "quantized"), ("cache_config", {"backend": "awq"})), "awq"),
        ((("cache_config", {"max_cache_length": 4}),), "max_cache_length"),
        ((("cache_config", {"max_cache_len": "4"}),), "max_cache_len"),
        ((("num_beams", -1),), "num-beams"),
    ],
)
def test_options_that_transformers_refuses(options, match):
    with pytest.raises(InvalidValue, match=match):
        TransformersEngine().plan(open_model("llama-3-8b"), Workload(100, engine_options=options), ())


def test_the_cache_has_no_format_of_its_own():
    with pytest.raises(UnknownFormat, match="fp8"):
        TransformersEngine().plan(open_model("llama-3-8b"), Workload(100, kv_cache_dtype_k="fp8"), ())


def test_quantized_caches_are_for_full_attention():
    options = (("cache_implementation", "quantized"),)
    refused = TransformersEngine().plan(open_model("gemma-2-2b"), Workload(100, engine_options=options), ())
    assert [refusal.code for refusal in refused.refusals] == ["quantized-cache-unsupported"]


@pytest.mark.parametrize("version", ["x", "3.0", "5.x"])
def test_versions_that_are_none(version):
    with pytest.raises(InvalidValue):
        engine(version)
