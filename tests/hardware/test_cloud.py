"""Cloud instances: counts, fractions, prices with their region and date, and the cheapest that serves."""

import pytest

from kvplan.engines import engine_named
from kvplan.errors import InvalidSpec, UnknownGpu
from kvplan.hardware.catalog import device_named
from kvplan.hardware.cloud import cheapest, device_of, instance_named, instances, machines
from kvplan.judge import succeeds
from kvplan.plan import plan
from kvplan.pricing import cheapest_machine
from kvplan.sources import open_model
from kvplan.workload import Workload

TABLE = instances()


def test_every_price_has_a_region_and_a_date_and_none_is_made_up():
    priced = [each for each in TABLE if each.price_usd_per_hour is not None]
    assert len(TABLE) == 112
    assert len(priced) == 90
    assert all(each.region and each.date and each.price_usd_per_hour > 0 for each in priced)
    assert not any(each.price_usd_per_hour for each in TABLE if each.provider == "gcp")


def test_a_fraction_has_its_own_memory_and_no_bandwidth():
    instance = instance_named("g6f.large", TABLE)
    device = device_of(instance)
    assert instance.is_fraction
    assert instance.num_gpus == 1
    assert device.memory_bytes == 2861 * 2**20
    assert device.usable_bytes < device.memory_bytes
    assert device.bandwidth_bytes_per_second == 0
    assert "2,861 MiB of one l4" in device.notes[0]


def test_the_cheapest_offer_has_enough_cards_in_one_machine():
    l40s = device_named("l40s")
    one = cheapest(l40s, 1, 1, TABLE)
    assert (one.instance.name, one.num_instances) == ("g6e.xlarge", 1)
    four = cheapest(l40s, 4, 4, TABLE)
    assert four.instance.count >= 4
    assert four.price_usd_per_hour == min(
        each.price_usd_per_hour
        for each in TABLE
        if each.gpu == "l40s" and each.count >= 4 and each.price_usd_per_hour
    )
    assert cheapest(device_named("rtx-4090"), 1, 1, TABLE) is None
    ten = cheapest(device_named("a100-80gb"), 10, 2, TABLE)
    assert ten.num_instances * ten.instance.count >= 10


def test_unknown_instances_come_with_a_suggestion():
    with pytest.raises(UnknownGpu) as caught:
        instance_named("g6e.xlrge", TABLE)
    assert "g6e.xlarge" in caught.value.why
    assert instance_named("aws/g6e.xlarge", TABLE).gpu == "l40s"


@pytest.mark.parametrize(
    "row",
    [
        "{provider: me, instance: box, gpu: l40s, count: 0}",
        "{provider: me, instance: box, gpu: l40s, count: -1}",
        "{provider: me, instance: box, gpu: l40s, count: 1, price_usd_hr: free}",
        "{provider: me, instance: box, gpu: l40s, count: 1, price_usd_hr: 1.0}",
        "{provider: me, instance: box, gpu: l40s, count: 1, colour: red}",
        "{provider: me, gpu: l40s, count: 1}",
        "box",
    ],
)
def test_a_broken_table_names_the_row(tmp_path, row):
    path = tmp_path / "prices.yaml"
    path.write_text(f"instances:\n  - {row}\n")
    with pytest.raises(InvalidSpec) as caught:
        instances(str(path))
    assert "instance 1" in caught.value.why


@pytest.mark.parametrize(("name", "tokens", "batch"), [("llama-3-8b", 8192, 1), ("llama-3-70b", 8192, 16)])
def test_the_cheapest_machine_succeeds_and_no_cheaper_one_does(name, tokens, batch):
    model, engine = open_model(name), engine_named("vllm")
    workload = Workload(context_tokens=tokens, context_source="flag", num_sequences=batch)
    choice = cheapest_machine(model, workload, engine, machines(TABLE))
    assert succeeds(choice.plan)
    for machine in machines(TABLE):
        if machine.usd_per_hour < choice.machine.usd_per_hour:
            result = plan(model, workload, machine.devices, engine)
            assert result.refusals or not succeeds(result)


def test_fit_and_find_show_prices_where_asked(answer, kvplan):
    _, data = answer(*"fit llama-3-8b --gpu l40s --ctx 8k --price".split())  # noqa: SIM905
    asked, least = data["price"]["asked"], data["price"]["cheapest"]
    assert asked["usd_per_hour"] >= least["usd_per_hour"]
    assert asked["source"] == "aws us-east-1 on demand, 2026-07-20"
    _, data = answer(*"fit llama-3-8b --gpu rtx-4090 --ctx 8k --price".split())  # noqa: SIM905
    assert data["price"]["asked"] is None
    assert "price" not in answer(*"fit llama-3-8b --gpu l40s --ctx 8k".split())[1]  # noqa: SIM905
    _, out, _ = kvplan(*"fit llama-3-8b --gpu rtx-4090 --ctx 8k --price".split())  # noqa: SIM905
    assert "price: none known for 1 × rtx-4090" in out
    _, data = answer(*"find gemma-3 --gpu l40s --ctx 8k --price".split())  # noqa: SIM905
    for row in data["found"]:
        rate = row["tokens_per_second"]["expected"]
        assert row["usd_per_million_tokens"] == pytest.approx(data["usd_per_hour"] / rate / 0.0036, rel=1e-3)
