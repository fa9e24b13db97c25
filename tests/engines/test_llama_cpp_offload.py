"""What does not fit: the fewest experts, then layers, in system memory; and what it costs."""

from dataclasses import replace

import pytest

from kvplan import Rules, Workload, engine_named, open_model, parse_gpus, verdict_of
from kvplan.judge import spare_bytes, succeeds
from kvplan.offload import alternative, plan_or_offload
from kvplan.plan import plan
from kvplan.solve import max_sequences
from kvplan.speed import decode_rate

GIB = 2**30


def asked(ctx=8192, weights="q4_k_m", memory=64 * GIB, **options):
    return Workload(
        context_tokens=ctx,
        context_source="flag",
        weights_format=weights,
        cpu_memory_bytes=memory,
        engine_options=tuple(options.items()),
    )


def settled(model, gpus, workload, engine="llama.cpp", rules=Rules()):  # noqa: B008
    return plan_or_offload(open_model(model), workload, parse_gpus(gpus), engine_named(engine), rules)


def options_of(result):
    return dict(result.engine_options)


def test_a_dense_model_leaves_the_fewest_layers_in_system_memory():
    result = settled("qwen3-32b", ["rtx-4090"], asked(32_768, "q5_k_m"))
    assert verdict_of(result).status == "offload"
    layers = options_of(result)["n_gpu_layers"]
    assert 0 < layers < 65
    more = asked(32_768, "q5_k_m", n_gpu_layers=str(layers + 1))
    tried = plan(open_model("qwen3-32b"), more, parse_gpus(["rtx-4090"]), engine_named("llama.cpp"))
    device = tried.devices[0]
    assert device.required.high > device.budget_bytes
    assert result.devices[0].required.high <= result.devices[0].budget_bytes


def test_a_mixture_leaves_experts_before_layers():
    result = settled("qwen3-30b-a3b", ["rtx-3060-12gb"], asked(32_768))
    assert verdict_of(result).status == "offload"
    options = options_of(result)
    assert 0 < options["n_cpu_moe"] < 48
    assert options["n_gpu_layers"] > 48
    assert f"-ncmoe {options['n_cpu_moe']}" in result.command_lines[0]


def test_when_even_the_dense_part_is_too_much_layers_follow():
    result = settled("qwen3-30b-a3b", ["gtx-1650"], asked(32_768))
    assert verdict_of(result).status == "offload"
    assert options_of(result)["n_gpu_layers"] < 49
    assert "-cmoe" in result.command_lines[0]


def test_spilling_is_slower_and_says_by_how_much():
    result = settled("llama-3-70b", ["rtx-4090"], asked())
    fast, slow = decode_rate(result.on_devices), decode_rate(result)
    assert slow.high < fast.low
    assert verdict_of(result).status == "offload"


def test_too_little_system_memory_does_not_count():
    result = settled("llama-3-70b", ["rtx-4090"], asked(memory=8 * GIB))
    assert verdict_of(result).status == "does_not_fit"
    assert not result.offloaded
    way_out = alternative(result, parse_gpus(["rtx-4090"]), engine_named("llama.cpp"))
    assert way_out is not None
    assert sum(part.bytes.expected for part in way_out.host) > 8 * GIB


def test_memory_that_is_not_known_is_not_guessed():
    result = settled("llama-3-70b", ["rtx-4090"], asked(memory=None))
    assert verdict_of(result).status == "does_not_fit"
    allowed = settled("llama-3-70b", ["rtx-4090"], asked(memory=None), rules=Rules(allow_offload=True))
    assert verdict_of(allowed).status == "offload"


def test_flags_that_fix_the_placement_are_left_alone():
    for options in ({"n_gpu_layers": "81"}, {"n_cpu_moe": 4}, {"override_tensor": "blk.1.=CPU"}):
        result = settled("llama-3-70b", ["rtx-4090"], asked(**options))
        assert verdict_of(result).status == "does_not_fit"


def test_a_spilled_plan_is_as_short_as_the_one_without():
    result = settled("llama-3-70b", ["rtx-4090"], asked())
    assert spare_bytes(result) == spare_bytes(result.on_devices) < 0
    assert spare_bytes(result, Rules(allow_offload=True)) >= 0


@pytest.mark.parametrize("engine", ["vllm", "transformers", "ideal"])
def test_other_engines_have_no_such_way_here(engine):
    workload = Workload(context_tokens=8192, context_source="flag", cpu_memory_bytes=64 * GIB)
    result = settled("llama-3-70b", ["rtx-4090"], workload, engine)
    assert verdict_of(result).status in ("does_not_fit", "refused")


def test_one_memory_holds_both_parts_and_the_system():
    result = settled("llama-3-70b", ["m3-max-64gb"], asked(memory=None))
    names = {check.name for check in result.devices[0].checks}
    assert names == {"budget", "host_memory"}
    beyond = settled("llama-3-70b", ["m3-max-64gb"], asked(weights="q6_k", memory=None))
    assert verdict_of(beyond).status == "does_not_fit"


@pytest.mark.parametrize("memory", [24 * GIB, None])
@pytest.mark.parametrize("name", ["qwen3-30b-a3b", "llama-3.1-8b"])
def test_one_sequence_more_than_spills_at_most_does_not_run(name, memory):
    model, gpus, engine = open_model(name), parse_gpus(["rtx-3060-12gb"]), engine_named("llama.cpp")
    rules = Rules(allow_offload=True)
    most = max_sequences(model, asked(4096, memory=memory), gpus, engine, rules)

    def runs(num_sequences):
        workload = replace(asked(4096, memory=memory), num_sequences=num_sequences)
        return succeeds(plan_or_offload(model, workload, gpus, engine, rules), rules)

    assert most > max_sequences(model, asked(4096, memory=memory), gpus, engine)
    assert runs(most)
    assert not runs(most + 1)


def test_what_is_tight_ends_a_strict_search_though_more_would_spill():
    model, gpus, engine = (
        open_model("granite-4.0-h-tiny"),
        parse_gpus(["rtx-4090"]),
        engine_named("llama.cpp"),
    )
    workload, rules = asked(4096, "iq4_xs", 16 * GIB), Rules(strict=True, allow_offload=True)
    most = max_sequences(model, workload, gpus, engine, rules)
    assert most == max_sequences(model, workload, gpus, engine, Rules(strict=True)) > 0
    status = {
        count: verdict_of(plan_or_offload(model, replace(workload, num_sequences=count), gpus, engine)).status
        for count in (most, most + 1, most + 100)
    }
    assert status == {most: "fits", most + 1: "tight", most + 100: "offload"}
