"""What vLLM keeps of a checkpoint by card and version, held to its own code and to hand-made figures."""

from math import ceil

import pytest
from oracle_tables import oracle

from kvplan.engines import engine_named
from kvplan.engines.vllm.kernels import expert_layouts, kernels_of, mxfp4_experts
from kvplan.hardware.parse import parse_gpus
from kvplan.layers import FullAttention, Layer, LayerGroup
from kvplan.plan import plan
from kvplan.sources import catalog
from kvplan.tensors import linear
from kvplan.units import GIB, MIB
from kvplan.workload import Workload

MXFP4 = oracle("vllm_mxfp4.jsonl")
CLASSES = {"TRITON": "hopper", "MARLIN": "marlin", "FLASHINFER_TRTLLM_MXFP4_BF16": "blackwell"}


def experts(hidden, width, count, *, bias):
    """Return one layer of ``count`` experts."""
    tensors = (
        *linear("gate_proj", width, hidden, "expert", split="out", count=count, bias=bias),
        *linear("up_proj", width, hidden, "expert", split="out", count=count, bias=bias),
        *linear("down_proj", hidden, width, "expert", split="in", count=count, bias=bias),
    )
    return (LayerGroup(Layer((FullAttention(8, 8, 64, 64),), tensors), 1),)


@pytest.mark.parametrize(
    "row", MXFP4, ids=[f"{row['version']}-{row['backend'][:6]}-{row['width']}" for row in MXFP4]
)
def test_mxfp4_experts_are_as_wide_as_vllm_makes_them(row):
    version = tuple(int(part) for part in row["version"].split(".")[:2])
    layout = expert_layouts(CLASSES[row["backend"]], version, biased=True)[0]
    layer = experts(row["hidden_size"], row["width"], row["num_experts"], bias=False)
    theirs = sum(row["value_bytes"]) + sum(row["scale_bytes"])
    if row["backend"] == "TRITON" and version < (0, 25):
        hidden, width = row["padded"]
        theirs += row["num_experts"] * 3 * hidden * width // 32
    assert sum(size * times for size, times in mxfp4_experts(layer, 1, 1, layout)) == theirs


@pytest.mark.parametrize(("ranks", "expert"), [(2, 1), (8, 8)])
def test_mxfp4_experts_are_split_by_width_or_whole(ranks, expert):
    layout = expert_layouts("marlin", (0, 33), biased=True)[0]
    layer = experts(2880, 2880, 32, bias=True)
    width = ceil(2880 / ranks / 128) * 128 if expert == 1 else 2944
    one = 3 * 3072 * width * 17 // 32 + 2 * (2 * width + 3072)
    kept = sum(size for size, _ in mxfp4_experts(layer, ranks, expert, layout))
    assert kept == 32 // expert * one


def weights(name, gpu, version="0.33", **workload):
    """Return the weights component of a plan on one kind of card."""
    devices = parse_gpus([gpu])
    asked = Workload(context_tokens=4096, tensor_parallel=len(devices), **workload)
    result = plan(catalog.find(name), asked, devices, engine_named(f"vllm@{version}"))
    return next(part.bytes for part in result.devices[0].components if part.name == "weights")


@pytest.mark.parametrize(
    ("gpu", "kernels"),
    [("h100", "hopper"), ("b200", "blackwell"), ("rtx-5090", "marlin"), ("a100-80gb", "marlin"),
     ("mi300x", "amd"), ("t4", "turing"), ("48GiB", "")],
)  # fmt: skip
def test_cards_have_their_class_of_kernels(gpu, kernels):
    assert kernels_of(parse_gpus([gpu])[0]) == kernels


def test_an_unnamed_card_has_what_any_class_keeps():
    unnamed = weights("gpt-oss-20b", "80GiB", "0.19")
    for gpu in ("h100", "b200", "a100-80gb"):
        assert unnamed.low <= weights("gpt-oss-20b", gpu, "0.19").expected <= unnamed.high


def test_scales_as_loaded_stay_on_hopper_until_they_are_dropped():
    before, after = (weights("gpt-oss-120b", "h100", version).expected for version in ("0.24", "0.26"))
    # 36 layers, 128 experts, three matrices of 2,880 x 2,880 with a byte for 32 values.
    scales = 36 * 128 * 3 * 2880 * 2880 // 32
    assert abs(before - after - scales) <= 36 * 4 * 2 * MIB


@pytest.mark.parametrize(("version", "taken"), [("0.11", 0), ("0.19", 128), ("0.24", 128), ("0.33", 0)])
def test_flashinfers_workspace_comes_with_latents_while_every_backend_is_imported(version, taken):
    least = weights("deepseek-v2-lite", "h100", "0.33").expected
    assert weights("deepseek-v2-lite", "h100", version).expected - least == taken * MIB
    amd = {weights("deepseek-v2-lite", "mi300x", each).expected for each in ("0.11", "0.19", "0.24")}
    assert len(amd) == 1
    dense = {weights("llama-3.1-8b", "h100", each).expected for each in ("0.11", "0.19", "0.33")}
    assert len(dense) == 1


def test_only_a_quantized_up_projection_is_kept_twice():
    # 61 layers, 128 heads, 128 + 128 outputs over a latent of 512, on 8 ranks.
    copy = 61 * 128 * 256 * 512 // 8
    wide, packed = (weights("deepseek-v3", "8xh200", weights_format=name) for name in ("bf16", "fp8-block"))
    model = catalog.find("deepseek-v3")
    linears = sum(
        group.count
        * part.num_elements
        / (8 if part.split in ("out", "in", "kv") or part.role == "expert" else 1)
        for group in model.layers
        for part in group.layer.tensors
        if part.role in ("attention", "mlp", "expert", "shared_expert") and len(part.shape) == 2
    )
    # In 8 bits a linear layer is half as large; the copy is as large as the projection in 16 bits.
    assert wide.expected - packed.expected == pytest.approx(linears - 2 * copy, rel=0.005)


@pytest.mark.parametrize(("version", "moved"), [("0.19", True), ("0.33", False)])
def test_rows_of_16_bit_experts_are_moved_apart_on_amd_cards(version, moved):
    amd, nvidia = (weights("qwen3-30b-a3b", gpu, version) for gpu in ("mi300x", "h100"))
    # 48 layers, 128 experts: 1,536 rows of 4,096 bytes and 2,048 of 1,536, each 256 bytes longer.
    padding = 48 * 128 * (1536 + 2048) * 256 if moved else 0
    assert amd.expected - nvidia.expected == padding
    assert amd.low <= nvidia.expected <= amd.high


def test_mistrals_own_files_have_a_whole_tower_on_every_rank():
    whole, split = (
        weights("mistral-small-3.1-24b", "4xh100", version).expected for version in ("0.19", "0.11")
    )
    tower = 24 * (4 * 1024 * 1024 + 3 * 1024 * 4096) + 3 * 14 * 14 * 1024
    assert whole - split == pytest.approx(2 * tower * 3 / 4, rel=0.01)
    asked = (("config_format", "hf"),)
    assert weights("mistral-small-3.1-24b", "4xh100", "0.19", engine_options=asked).expected == split
    assert whole / GIB == pytest.approx(11.86, abs=0.02)
