"""What searches under llama.cpp leave out changes no answer."""

import pytest

from kvplan.engines import engine_named
from kvplan.engines.llama_cpp.compute import compute_buffers
from kvplan.engines.llama_cpp.graph import outline, simulate
from kvplan.hardware.parse import parse_gpus
from kvplan.judge import spare_bytes
from kvplan.plan import plan
from kvplan.sources import open_model
from kvplan.workload import Workload

MODELS = ("llama-3-8b", "gemma-3-27b", "qwen3-30b-a3b", "deepseek-v2-lite", "qwen3-next-80b-a3b")


def asked(context_tokens, weights="q4_k_m", batch=1):
    return Workload(
        context_tokens=context_tokens, context_source="flag", num_sequences=batch, weights_format=weights
    )


@pytest.mark.parametrize("engine_name", ["llama.cpp", "ollama"])
@pytest.mark.parametrize("gpus", ["24GB", "2x24GB"])
@pytest.mark.parametrize("name", MODELS)
def test_no_plan_has_more_to_spare_than_the_bound(name, gpus, engine_name):
    model, devices, engine = open_model(name), parse_gpus([gpus]), engine_named(engine_name)
    for workload in (asked(4096), asked(32_768, "q8_0", batch=4)):
        bound = engine.most_spare_bytes(model, workload, devices)
        assert bound is not None
        assert bound >= spare_bytes(plan(model, workload, devices, engine))


@pytest.mark.parametrize("gpus", ["24GB", "2x24GB"])
def test_a_search_has_the_same_amounts_but_for_lower_bounds(gpus):
    model, devices, engine = open_model("llama-3-8b"), parse_gpus([gpus]), engine_named("llama.cpp")
    exact = plan(model, asked(8192), devices, engine)
    wide = plan(model, asked(8192), devices, engine.searching())
    for one, other in zip(exact.devices, wide.devices, strict=True):
        for part, alike in zip(one.components, other.components, strict=True):
            assert (part.bytes.expected, part.bytes.high) == (alike.bytes.expected, alike.bytes.high)
            assert alike.bytes.low <= part.bytes.low
    assert (exact == wide) == (len(devices) == 1)


@pytest.mark.parametrize("name", [*MODELS, "mamba-2.8b"])
def test_a_context_costs_the_same_whichever_was_asked_first(name):
    model, devices, engine = open_model(name), parse_gpus(["h100"]), engine_named("llama.cpp")

    def buffers(lengths):
        simulate._buffers.cache_clear()
        outline._built.cache_clear()
        simulate._by_length.cache_clear()
        compute_buffers.cache_clear()
        made = {}
        for context_tokens in lengths:
            result = plan(model, asked(context_tokens), devices, engine)
            parts = result.devices[0].components
            made[context_tokens] = next(part.bytes for part in parts if part.name == "activations")
        return made

    lengths = (4096, 1024, 512, 20_480, 65_536)
    alone = {each: buffers([each])[each] for each in lengths}
    assert buffers(lengths) == alone
    assert buffers(lengths[::-1]) == alone
