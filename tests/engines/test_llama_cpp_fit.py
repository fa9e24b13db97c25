"""An unset context shrinks as llama.cpp's own --fit shrinks it, and what is named stays."""

import pytest
from oracle_tables import oracle

from kvplan.device import Device
from kvplan.engines.llama_cpp import LlamaCppEngine
from kvplan.errors import InvalidValue
from kvplan.sources.config_model import model_from_config
from kvplan.sources.gguf import Header
from kvplan.sources.gguf_config import config_of_keys
from kvplan.sources.gguf_keys import Keys
from kvplan.units import MIB
from kvplan.workload import Workload

RUNS = [(table, *run) for table in oracle("llama_cpp_fit.jsonl") for run in table["runs"]]


def model_of(table):
    """Build the model from the table's GGUF keys; none of these files has a table of rotary factors."""
    metadata = {
        f"{table['arch']}.{key}": tuple(value) if isinstance(value, list) else value
        for key, value in table["hparams"].items()
    }
    config = config_of_keys(Keys(Header(metadata, {}, (), 0), table["arch"], "t"), is_tied=table["tied"])
    config.pop("rope_scaling", None)
    return model_from_config({**config, "torch_dtype": "float16"}, name=table["model"], source="test")


def cards(*free_mib):
    sizes = [mib * MIB for mib in free_mib]
    return tuple(Device(f"card-{size}", size, size, size, "exact", "nvidia") for size in sizes)


def planned(model, devices, **options):
    load = Workload(
        weights_format="q4_k_m", overhead_bytes=0, num_sequences=options.pop("sequences", 1),
        engine_options=tuple(options.items()),
    )  # fmt: skip
    return LlamaCppEngine().plan(model, load, devices)


@pytest.mark.parametrize(
    ("table", "free", "parallel", "unified", "n_ctx"),
    RUNS,
    ids=[f"{run[0]['model']}-{run[1]}" for run in RUNS],
)
def test_an_unset_context_is_what_fit_takes(table, free, parallel, unified, n_ctx):
    plan = planned(model_of(table), cards(*free), sequences=parallel, kv_unified=bool(unified))
    assert plan.context_tokens * parallel == n_ctx
    most = table["hparams"]["context_length"] * (1 if unified else parallel)
    assert any(notice.code == "context-shrunk" for notice in plan.warnings) == (n_ctx < most)


def test_a_context_that_was_named_is_left_alone():
    table = next(run[0] for run in RUNS if run[0]["model"] == "llama-3.2-3b")
    model, devices = model_of(table), cards(6144)
    limit = table["hparams"]["context_length"]
    assert planned(model, devices, fit="off").context_tokens == limit
    assert planned(model, devices, ctx_size=0).context_tokens == limit
    assert planned(model, devices, ctx_size=9000).context_tokens == 9000


def test_the_target_and_the_least_context_can_be_set():
    table = next(run[0] for run in RUNS if run[0]["model"] == "llama-3.2-3b")
    model, devices = model_of(table), cards(6144)
    usual = planned(model, devices).context_tokens
    assert planned(model, devices, fit_target="512").context_tokens > usual
    assert planned(model, devices, fit_ctx=40_000).context_tokens == 40_000
    with pytest.raises(InvalidValue):
        planned(model, devices, fit_target="much")


def test_refusals_are_the_engines_own():
    table = next(run[0] for run in RUNS if run[0]["model"] == "llama-3.2-3b")
    model, two = model_of(table), cards(24_000, 24_000)

    def codes(plan):
        return [refusal.code for refusal in plan.refusals]

    assert codes(planned(model, two, ctx_size=8192)) == []
    assert codes(planned(model, two, ctx_size=8192, split_mode="row")) == ["split-mode-row"]
    assert codes(planned(model, two, ctx_size=8192, split_mode="tensor")) == []
    by_tensor = planned(model, two, ctx_size=8192, split_mode="tensor").devices[0].components
    assert {part.bytes.basis for part in by_tensor if part.name in ("weights", "kv_cache")} == {"assumed"}
    latent = model_of(next(run[0] for run in RUNS if run[0]["model"] == "kimi-k2"))
    assert codes(planned(latent, two, ctx_size=8192, split_mode="tensor")) == ["split-mode-tensor"]
