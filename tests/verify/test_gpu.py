"""Real caches on a real GPU: CUDA, ROCm (torch calls it cuda), Intel XPU and Metal.

``pytest -m gpu`` runs these wherever torch finds one; elsewhere they are skipped with the reason.
"""

import json

import pytest
from cache_kinds import FORMATS, KINDS, model_of, planned

from kvplan.errors import CannotTell, UnknownFormat
from kvplan.verify import device_memory
from kvplan.verify.allocation import allocate, prepare

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("device")]
MIB = 2**20


@pytest.fixture
def device(torch):
    found = device_memory.device_of(torch, "auto")
    if found == "cpu":
        pytest.skip(f"torch {torch.__version__} finds no GPU on this machine (CUDA, ROCm, XPU or Metal)")
    return found


@pytest.mark.parametrize("kv", ["bf16", "fp16", "fp8", "int8", "int4"])
def test_storage_equals_the_plan(kv, device):
    for kind, cache in KINDS.items():
        result = planned(model_of(cache), "ideal", kv, tokens=300)
        whole, part, used = prepare(result, device, None)
        found = allocate(result, whole, part, used, lambda _: None)
        assert found.facts["storage_bytes"] == result.cache.total.expected, kind
        assert {row.status for row in found.rows} == {"agrees"}


@pytest.mark.parametrize(
    "engine", ["vllm", "sglang", "tensorrt-llm", "lmdeploy", "tgi", "llama.cpp", "transformers"]
)
def test_engines_layouts(engine, device):
    for kind in ("full", "sliding", "latent", "mamba2"):
        for kv in FORMATS[engine]:
            try:
                result = planned(model_of(KINDS[kind]), engine, kv, tokens=300)
                whole, part, used = prepare(result, device, None)
            except (CannotTell, UnknownFormat):
                continue
            found = allocate(result, whole, part, used, lambda _: None)
            assert {row.status for row in found.rows} == {"agrees"}, (kind, kv)
            assert found.rows[-1].measured == result.cache.total.expected, (kind, kv)


def test_the_device_loses_what_is_planned_and_gets_it_back(device):
    # Every tensor is 64 MiB, so that allocators that hand out whole segments round little.
    result = planned(model_of(KINDS["full"]), "vllm", "fp16", tokens=65536, sequences=4)
    planned_bytes = result.cache.total.expected
    assert planned_bytes > 256 * MIB
    whole, part, used = prepare(result, device, None)
    found = allocate(result, whole, part, used, lambda _: None)
    # CUDA's and XPU's caching allocator rounds large tensors up to 2 MiB; Metal's takes heaps of 1 GiB.
    num_tensors = sum(group.num_layers * len(group.tensors) for group in part.groups)
    slack = 1024 * MIB if used == "mps" else 2 * MIB * num_tensors
    assert planned_bytes <= found.facts["allocator_bytes"] <= planned_bytes + slack
    assert abs(found.facts["device_lost_bytes"] - planned_bytes) <= planned_bytes * 0.02 + slack
    assert found.facts["left_after_bytes"] <= 32 * MIB


def test_what_was_allocated_is_saved_under_the_devices_name(device, torch, answer, monkeypatch, tmp_path):
    store = tmp_path / "calibration.json"
    monkeypatch.setenv("KVPLAN_CALIBRATION", str(store))
    code, said = answer("verify", "llama-3-8b", "--ctx", "1k", "--engine", "vllm", "--save")
    (kept,) = json.loads(store.read_text())["caches"]
    assert (code, kept["engine"], kept["model"]) == (0, "vllm", "llama-3-8b")
    assert kept["measured_bytes"] == said["measured"]["allocator_bytes"]
    assert kept["usable_bytes"] == device_memory.total_bytes(torch, device)
    assert kept["driver"]
    if torch.version.hip or device == "xpu":
        # --gpu local asks NVIDIA's driver and Metal alone.
        assert kept["device"] == said["measured"]["device_name"]
        return
    _, later = answer("fit", "llama-3-8b", "--ctx", "1k", "--engine", "vllm", "--gpu", "local")
    assert later["devices"][0]["usable_bytes"] == kept["usable_bytes"]
    assert "cache-calibrated-on-this-machine" in {warning["code"] for warning in later["warnings"]}


@pytest.mark.parametrize("failure", [KeyboardInterrupt, MemoryError])
def test_a_failure_half_way_leaves_nothing(failure, device, torch):
    result = planned(model_of(KINDS["full"], 30), "ideal", "fp16", tokens=32768, sequences=4)
    whole, part, used = prepare(result, device, None)
    before = device_memory.held_bytes(torch, used)

    def progress(done):
        if done > part.num_bytes // 2:
            raise failure

    with pytest.raises((KeyboardInterrupt, CannotTell)):
        allocate(result, whole, part, used, progress)
    assert device_memory.held_bytes(torch, used) - before <= 64 * MIB


def test_more_than_the_card_has_is_refused(device):
    result = planned(model_of(KINDS["full"], 80), "ideal", "fp16", tokens=2**20, sequences=4096)
    with pytest.raises(CannotTell, match="are free on"):
        prepare(result, device, None)
