"""A search over many cards says of each what a plan of its own would say."""

import pytest

from kvplan.choices import best_first, choices
from kvplan.engines import engine_named
from kvplan.errors import KvplanError
from kvplan.find import Search
from kvplan.frozen import replace
from kvplan.hardware.catalog import catalogue
from kvplan.hardware.parse import parse_gpus
from kvplan.judge import Rules, judge
from kvplan.plan import default_engine, plan, trial
from kvplan.sources import open_model
from kvplan.sources.catalog import entries, model_from_spec
from kvplan.workload import Workload

# Every ninth of the bundled models, so that all families come in.
MODELS = tuple(model_from_spec(spec) for number, spec in enumerate(entries()) if number % 9 == 0)
WORKLOAD = Workload(context_tokens=8192, context_source="flag", num_sequences=3)


def planned_status(model, name, devices, rules):
    """Return the verdict of a whole plan, None where there is none or it fails."""
    asked = replace(WORKLOAD, weights_format=name)
    try:
        status = judge(plan(model, asked, devices, default_engine(model, name)), rules).status
    except KvplanError:
        return None
    accepted = ("fits",) if rules.strict else ("fits", "tight")
    return status if status in accepted else None


@pytest.mark.parametrize("rules", [Rules(), Rules(strict=True, min_headroom_bytes=2**30)])
def test_what_one_card_teaches_is_true_of_every_other(rules):
    tried = choices(MODELS, published_only=True)
    search = Search(tried, WORKLOAD, rules=rules)
    for device in catalogue()[:: 1 if rules == Rules() else 5]:
        found = {one.model.name: one.status for one in search.fitting((device,))}
        for choice in tried:
            limit = choice.model.context_limit_tokens
            if not limit or WORKLOAD.context_tokens <= limit:
                expected = planned_status(choice.model, choice.format_name, (device,), rules)
                assert found.get(choice.model.name) == expected, (choice.model.name, device.name)


def test_groups_of_cards_teach_nothing_of_single_ones():
    search = Search(choices(MODELS, published_only=True), WORKLOAD)
    for name in ("l4", "2xl4", "l40s", "2xl40s", "4xl40s", "l40s,l4"):
        devices = parse_gpus(name.split(","))
        for one in search.fitting(devices):
            assert one.status == one.verdict.status == judge(one.plan).status


def test_the_best_on_a_card_is_the_first_of_all_that_fit_there():
    tried = best_first(choices(MODELS, published_only=True))
    search = Search(tried, WORKLOAD)
    for device in catalogue()[::20]:
        every = list(Search(tried, WORKLOAD).fitting((device,)))
        first = next((one for one in every if one.status == "fits"), every[0] if every else None)
        best = search.best((device,))
        assert (best and best.model) is (first and first.model)


@pytest.mark.parametrize("engine_name", ["vllm", "vllm@0.12", "sglang"])
def test_a_trial_is_judged_as_its_plan(engine_name):
    engine = engine_named(engine_name)
    for model in MODELS:
        for name in ("rtx-4090", "2xh100", "dgx-spark", "b200"):
            devices = parse_gpus([name])
            try:
                expected = judge(plan(model, WORKLOAD, devices, engine))
            except KvplanError:
                with pytest.raises(KvplanError):
                    trial(model, WORKLOAD, devices, engine)
                continue
            assert judge(trial(model, WORKLOAD, devices, engine)) == expected


def test_a_checkpoint_with_tighter_experts_is_not_ruled_out_by_its_format():
    # An fp8 checkpoint of 158 GB, whose experts have 4 bits of 284 billion parameters.
    tried = choices([open_model("deepseek-v4-flash")], published_only=True)
    assert tried[0].format_name == "fp8-block"
    found = list(Search(tried, WORKLOAD).fitting(parse_gpus(["mi325x"])))
    assert [one.status for one in found] == ["fits"]
