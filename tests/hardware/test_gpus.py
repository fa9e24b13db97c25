"""``--gpu`` in every spelling, the catalogue's rows, and the machine's own driver."""

import os
import stat

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kvplan.device import Device
from kvplan.errors import InvalidValue, KvplanError, MissingExtra, UnknownGpu
from kvplan.hardware import generate
from kvplan.hardware.catalog import catalogue, entries
from kvplan.hardware.detect import local_devices
from kvplan.hardware.parse import parse_gpus

MIB = 2**20


@pytest.mark.parametrize(
    ("text", "count", "memory_mib"),
    [
        ("h100", 1, 81_559),
        ("H100", 1, 81_559),
        ("NVIDIA H100", 1, 81_559),
        ("rtx-4090", 1, 24_564),
        ("RTX 4090", 1, 24_564),
        ("NVIDIA GeForce RTX 4090", 1, 24_564),
        ("4090", 1, 24_564),
        ("2xa100-80gb", 2, 81_920),
        ("8 x h200", 8, 143_771),
        ("mi300x", 1, 196_592),
        ("l40s", 1, 46_068),
        ("t4", 1, 15_360),
        ("m3-max-64gb", 1, 65_536),
        ("48GB", 1, 46_068),
        ("2x48GB", 2, 46_068),
        ("48GiB", 1, 49_152),
        ("49140MiB", 1, 49_140),
        ("24GB", 1, 23_028),
    ],
)
def test_spellings(text, count, memory_mib):
    devices = parse_gpus([text])
    assert len(devices) == count
    assert {device.memory_bytes for device in devices} == {memory_mib * MIB}


def test_48gb_names_the_card_and_its_larger_sibling():
    (device,) = parse_gpus(["48GB"])
    assert "46,068 MiB" in device.notes[0]
    assert "l40s" in device.notes[0]
    assert (device.larger_sibling, device.larger_sibling_bytes) == ("rtx-a6000", 49_140 * MIB)


def test_a_size_no_card_is_sold_as_is_decimal_and_said():
    (device,) = parse_gpus(["192GB"])
    assert device.memory_bytes == 192 * 10**9
    assert "10^9" in device.notes[0]


def test_none_is_no_device_and_names_repeat():
    assert parse_gpus(["none"]) == ()
    assert [device.name for device in parse_gpus(["rtx-4090", "rtx-3090"])] == ["rtx-4090", "rtx-3090"]


def test_a_mig_slice_has_its_share():
    (device,) = parse_gpus(["h100:mig-3g.40gb"])
    assert device.memory_bytes == 40 * 10**9
    assert device.usable_basis == "assumed"


@pytest.mark.parametrize("text", ["48", "48G", "0xh100", "5000xh100", "1.5", "0GB"])
def test_values_refused(text):
    with pytest.raises(InvalidValue):
        parse_gpus([text])


@pytest.mark.parametrize(
    ("text", "close"), [("h1000", "h100"), ("rtx-4091", "rtx-4090"), ("", "h100"), ("h100:mig-9g.9gb", "1g")]
)
def test_names_refused_with_the_closest(text, close):
    with pytest.raises(UnknownGpu) as error:
        parse_gpus([text])
    assert close in f"{error.value.why} {error.value.hint}"


@pytest.mark.parametrize(
    ("text", "next_word"),
    [
        ("24XB", "--gpu 24GB"),
        ("24xgb", "--gpu 24GB"),
        ("24XiB", "--gpu 24GB"),
        ("24 x G", "--gpu 24GB"),
        ("h100,a100", "--gpu h100 --gpu a100"),
        ("all", "kvplan find"),
        ("rtx-4090:mig-1g.10gb", "--gpu rtx-4090"),
    ],
)
def test_near_misses_are_refused_with_what_to_type(text, next_word):
    with pytest.raises(UnknownGpu) as error:
        parse_gpus([text])
    assert error.value.hint.endswith(next_word) or f"{next_word} " in error.value.hint


def test_a_unit_that_is_none_is_named():
    with pytest.raises(InvalidValue, match="'gbb' is not a unit"):
        parse_gpus(["24gbb"])


@given(st.text(max_size=16))
def test_any_text_is_devices_or_an_error(text):
    try:
        assert all(isinstance(device, Device) for device in parse_gpus([text]))
    except KvplanError as error:
        assert error.hint


def test_every_row_is_a_device():
    devices = catalogue()
    assert len(devices) >= 180
    assert len({device.name for device in devices}) == len(devices)
    for device in devices:
        assert 0 < device.usable_low_bytes <= device.usable_bytes <= device.memory_bytes
        assert device.source


def test_every_reading_has_a_source():
    for row in entries():
        assert bool(row.get("reported_mib")) == bool(row.get("reported_source")), row["id"]
        assert bool(row.get("visible_gib")) == bool(row.get("visible_source")), row["id"]
        assert bool(row.get("bandwidth_gbs")) == bool(row.get("bandwidth_source")), row["id"]


def test_the_generated_module_is_in_step_with_the_yaml():
    text = (generate.FOLDER / "gpus.yaml").read_text(encoding="utf-8")
    generated = (generate.FOLDER / "_catalogue.py").read_text(encoding="utf-8")
    assert generate.generated(text) == generated
    assert yaml.safe_load(text)["gpus"] == entries()


def test_local_asks_nvidia_smi(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA GeForce RTX 4090, 24564, 512'\necho 'NVIDIA L4, 23034, 0'\n")
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    first, second = local_devices()
    assert (first.memory_bytes, first.used_bytes) == (24_564 * MIB, 512 * MIB)
    assert first.bandwidth_bytes_per_second == 1008 * 10**9
    assert second.name == "NVIDIA L4"


def test_local_without_a_driver_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingExtra) as error:
        local_devices()
    assert "kvplan[gpu]" in error.value.hint
