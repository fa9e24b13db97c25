"""What deployment files call GPUs, and which of kvplan's devices that is."""

import pytest

from kvplan.deploy.devices import choices_for
from kvplan.deploy.gpu_names import of_instance
from kvplan.deploy.launch import GpuHint, Launch
from kvplan.deploy.settings import Settings


def devices(name):
    launch = Launch("a", "a.yaml", 1, "vllm", None, gpus=GpuHint(names=(name,), count=1))
    return [choice.devices[0].name for choice in choices_for(launch, Settings()).choices]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NVIDIA-H100-80GB-HBM3", ["h100-sxm"]),
        ("NVIDIA-A100-PCIE-40GB", ["a100-pcie-40gb"]),
        ("Tesla-V100-SXM2-32GB", ["v100-sxm2-32gb"]),
        ("NVIDIA-RTX-6000-Ada-Generation", ["rtx-6000-ada"]),
        ("NVIDIA-A100-SXM4-80GB-SHARED", ["a100-sxm4-80gb"]),
        ("AMD_Instinct_MI300X_OAM", ["mi300x"]),
        # GKE's label is the card of 40 GB, the one of 80 GB has a label of its own.
        ("nvidia-tesla-a100", ["a100-sxm4-40gb"]),
        ("nvidia-a100-80gb", ["a100-sxm4-80gb"]),
        ("nvidia-tesla-v100", ["v100-sxm2-16gb"]),
        # A name that two sizes have stays open.
        ("A100", ["a100-sxm4-40gb", "a100-sxm4-80gb"]),
        ("NVIDIA-A100", ["a100-sxm4-40gb", "a100-sxm4-80gb"]),
        ("gpu-of-tomorrow", []),
    ],
)
def test_labels_and_products(name, expected):
    assert devices(name) == expected


@pytest.mark.parametrize(
    ("machine", "gpu"),
    [
        ("g6e.12xlarge", "l40s"),
        ("p3.2xlarge", "v100-16gb"),
        ("p3dn.24xlarge", "v100-32gb"),
        ("a2-ultragpu-8g", "a100-80gb"),
        ("Standard_NC24ads_A100_v4", "a100-80gb"),
        ("Standard_ND96asr_v4", "a100-40gb"),
        ("Standard_NC40ads_H100_v5", "h100-nvl"),
        ("Standard_NV36ads_A10_v5", "a10"),
        # A part of a card.
        ("Standard_NV6ads_A10_v5", ""),
        ("BM.GPU4.8", "a100-40gb"),
        ("m5.large", ""),
    ],
)
def test_machines_of_clouds(machine, gpu):
    assert of_instance(machine) == gpu
