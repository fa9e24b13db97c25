"""What vLLM's profile run allocates: held to start-up logs, and to the code of each version."""

import sys
from pathlib import Path

import pytest

from kvplan.engines import engine_named
from kvplan.engines.vllm.sampler import held_by_sampler, runs_v2
from kvplan.hardware.parse import parse_gpus
from kvplan.plan import plan
from kvplan.sources import catalog
from kvplan.units import GIB, MIB
from kvplan.workload import Workload

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "calibration"))

import fit_vllm_budget

ROWS = fit_vllm_budget.activation_rows()


@pytest.mark.parametrize("row", ROWS, ids=[row["id"] for row in ROWS])
def test_logged_peaks_are_what_the_profile_run_allocates(row):
    # Logs print hundredths of a GiB.
    assert abs(fit_vllm_budget.activation_residual(row)) <= 0.012


def activations(name, gpu, version, **options):
    """Return the activations of one card, at settings that the sampler decides."""
    options = {"max_num_seqs": 1024, "max_num_batched_tokens": 1024} | options
    asked = Workload(context_tokens=1024, engine_options=tuple(options.items()))
    result = plan(catalog.find(name), asked, parse_gpus([gpu]), engine_named(f"vllm@{version}"))
    return next(part.bytes for part in result.devices[0].components if part.name == "activations")


# Qwen3-8B: 151,936 rows of a vocabulary, hidden size 4,096, 16 bits.
LOGITS, OWN, HIDDEN = 1024 * 151936 * 4, 1024 * 151936 * 2, 1024 * 4096 * 2
BESIDE = OWN + 3 * HIDDEN


@pytest.mark.parametrize(
    ("version", "gpu", "held"),
    [
        ("0.8", "h100", 9 * LOGITS + 32 * MIB),
        ("0.11", "h100", 3 * LOGITS + 32 * MIB),
        ("0.10", "rtx-3090", 3 * LOGITS + 8 * MIB + 128 * 1024),
        ("0.10", "t4", 9 * LOGITS + 8 * MIB + 128 * 1024),
        ("0.16", "a100-80gb", 9 * LOGITS + 8 * MIB + 128 * 1024),
        ("0.19", "h100", 3 * LOGITS + 132 * 151936 * 4 + 32 * MIB),
        ("0.21", "h100", 3 * LOGITS + 32 * MIB),
        # The V2 runner: counts for penalties, a copy at first, then the model's own logits alone.
        ("0.22", "h100", 2 * LOGITS + LOGITS // 32 + 32 * MIB),
        ("0.27", "h100", 2 * LOGITS + LOGITS // 32 + 32 * MIB),
        ("0.29", "b200", LOGITS + LOGITS // 32 + 32 * MIB),
        ("0.33", "h100", 4 * LOGITS + LOGITS // 32 + 32 * MIB),
    ],
)
def test_copies_of_the_logits_by_version_and_card(version, gpu, held):
    assert activations("qwen3-8b", gpu, version).expected == held + BESIDE


def test_tritons_buffer_has_no_more_rows_than_sequences():
    model = catalog.find("qwen3-8b")
    assert held_by_sampler(model, "bf16", (0, 19), "hopper", 16).rows == (16, 16, 16)
    assert held_by_sampler(model, "bf16", (0, 19), "hopper", 100).rows == (114, 128, 128)
    # Fewer than eight are sorted.
    assert held_by_sampler(model, "bf16", (0, 19), "hopper", 4).expected == 9000


@pytest.mark.parametrize(
    ("name", "versions"),
    [
        ("qwen3-8b", {"0.21": False, "0.22": True, "0.24": True, "0.27": True, "0.33": True}),
        ("llama-3.1-8b", {"0.22": False, "0.23": True, "0.25": True}),
        ("gemma-2-9b", {"0.24": False, "0.25": True}),
        ("qwen1.5-moe-a2.7b", {"0.23": False, "0.24": True, "0.26": True}),
        ("qwen3-30b-a3b", {"0.24": False, "0.28": False, "0.29": True}),
        ("qwen3-next-80b-a3b", {"0.26": False, "0.28": False, "0.29": True}),
    ],
)
def test_the_v2_runner_is_the_default_for_more_models_from_version_to_version(name, versions):
    model = catalog.find(name)
    found = {each: runs_v2(model, "bf16", tuple(map(int, each.split(".")))) for each in versions}
    assert found == versions


def test_marlins_kernel_brings_a_workspace_where_tritons_does_not():
    hopper, ada = (activations("gpt-oss-20b", gpu, "0.21").expected for gpu in ("h100", "rtx-4090"))
    # 1,024 tokens for 4 experts each: both projections' outputs, 2 x 2,880 and 2,880 wide.
    workspace = 1024 * 4 * 3 * 2880 * 2
    assert ada - hopper == workspace - (24 * MIB - 128 * 1024)


def test_encoders_pool_instead_of_sampling():
    # BGE-M3: hidden size 1,024, MLP of 4,096, 16 bits; its vocabulary of 250,002 is not sampled from.
    forward = 1024 * 2 * (3 * 4096 + 4 * 1024)
    found = activations("bge-m3", "l4", "0.33")
    assert found.low <= forward <= found.high
    assert found.high < 256 * MIB


def test_quantized_models_ran_v1_for_longer():
    model = catalog.find("qwen3-8b")
    assert [runs_v2(model, "fp8", version) for version in ((0, 23), (0, 24))] == [False, True]


def test_a_log_of_0_26_holds_flashinfers_three_copies():
    # GLM-5.2 on four GB200: 6.31 GiB of activations at 819,200 tokens of context.
    asked = Workload(context_tokens=819200, weights_format="nvfp4", tensor_parallel=4)
    result = plan(catalog.find("glm-5.2"), asked, parse_gpus(["4xgb200"]), engine_named("vllm@0.26"))
    found = next(part.bytes for part in result.devices[0].components if part.name == "activations")
    assert found.low / GIB <= 6.31 <= found.high / GIB
    assert found.expected / GIB == pytest.approx(6.31, abs=0.1)
