"""How deployment files spell GPUs: node labels, resource names, profiles, and kvplan's names for them.

Sources: the labels of NVIDIA's GPU feature discovery, GKE, EKS (Karpenter) and AKS; Ray's accelerator
types; SkyPilot's accelerators; KubeAI's resource profiles; the machine types of AWS, Google, Azure and
Oracle as their documentation lists them.
"""

import re

# Labels whose value is a GPU's name.
LABELS = (
    "nvidia.com/gpu.product",
    "cloud.google.com/gke-accelerator",
    "karpenter.k8s.aws/instance-gpu-name",
    "k8s.amazonaws.com/accelerator",
    "gpu.nvidia.com/class",
    "gpu.nvidia.com/model",
    "accelerator",
    "accelerator-type",
    "gpu-type",
    "gpu",
    "amd.com/gpu.product-name",
    "llm-d.ai/accelerator",
)
INSTANCE_LABELS = ("node.kubernetes.io/instance-type", "beta.kubernetes.io/instance-type")
# Resources that count whole GPUs.
RESOURCES = ("nvidia.com/gpu", "amd.com/gpu", "gpu", "nvidia.com/gpu.shared")
MIG_RESOURCE = re.compile(r"nvidia\.com/mig-(\d+g\.\d+gb)")
# Spellings that leave out what tells two sizes apart.
MEANS: dict[str, str] = {
    "nvidia-tesla-a100": "a100-40gb",
    "tesla-a100": "a100-40gb",
    "a100-40g": "a100-40gb",
    "a100-80g": "a100-80gb",
    "nvidia-tesla-t4": "t4",
    "nvidia-tesla-v100": "v100-16gb",
    "nvidia-h100-80gb": "h100",
    "nvidia-h100-mega-80gb": "h100",
    "h100-mega": "h100",
    "h100-80gb": "h100",
    "nvidia-h200-141gb": "h200",
    "nvidia-a100-80gb": "a100-80gb",
    "nvidia-rtx-pro-6000": "rtx-pro-6000-blackwell-server",
}
# Sold in two sizes under one name.
AMBIGUOUS: dict[str, tuple[str, ...]] = {
    "a100": ("a100-40gb", "a100-80gb"),
    "v100": ("v100-16gb", "v100-32gb"),
}
# Cloud machine types that hold one kind of GPU: prefix -> GPU.
INSTANCES: tuple[tuple[str, str], ...] = (
    ("g4dn.", "t4"),
    ("g5.", "a10g"),
    ("g6e.", "l40s"),
    ("g6.", "l4"),
    ("gr6.", "l4"),
    ("p3dn.", "v100-32gb"),
    ("p3.", "v100-16gb"),
    ("p4d.", "a100-40gb"),
    ("p4de.", "a100-80gb"),
    ("p5.", "h100"),
    ("p5e", "h200"),
    ("p6-b200", "b200"),
    ("p6e-gb200", "gb200"),
    ("a2-megagpu", "a100-40gb"),
    ("a2-highgpu", "a100-40gb"),
    ("a2-ultragpu", "a100-80gb"),
    ("a3-highgpu", "h100"),
    ("a3-megagpu", "h100"),
    ("a3-ultragpu", "h200"),
    ("a4-highgpu", "b200"),
    ("a4x-highgpu", "gb200"),
    ("g2-", "l4"),
    ("bm.gpu.h100.", "h100"),
    ("bm.gpu.h200.", "h200"),
    ("bm.gpu.b200.", "b200"),
    ("bm.gpu.l40s.", "l40s"),
    ("bm.gpu.mi300x.", "mi300x"),
    ("bm.gpu.a100-v2.", "a100-80gb"),
    ("bm.gpu4.", "a100-40gb"),
    ("bm.gpu.a10.", "a10"),
    ("vm.gpu.a10.", "a10"),
)
# Azure puts the card behind the size. Parts of an A10 (NV6 to NV18) are left open.
AZURE: tuple[tuple[str, str], ...] = (
    (r"nc\d+ads_a100_v4", "a100-80gb"),
    (r"nd96asr_v4", "a100-40gb"),
    (r"nd96amsr_a100_v4", "a100-80gb"),
    (r"ncc?\d+ads_h100_v5", "h100-nvl"),
    (r"nd96isr_h100_v5", "h100"),
    (r"nd96isr_h200_v5", "h200"),
    (r"nd96isr_mi300x_v5", "mi300x"),
    (r"nc\d+as_t4_v3", "t4"),
    (r"nc\d+r?s_v3", "v100-16gb"),
    (r"nv(36|72)ad(m)?s_a10_v5", "a10"),
)


def kvplan_names(text: str) -> tuple[str, ...]:
    """Return what ``--gpu`` may call a file's GPU, the most specific spelling first.

    Unknown names come back cleaned, not guessed.
    """
    name = text.strip().strip("\"'").casefold().replace("_", "-").replace(" ", "-")
    sliced = re.fullmatch(r"(.+?)-mig-(\d+g\.\d+gb)", name)
    if sliced:
        return tuple(f"{gpu}:mig-{sliced.group(2)}" for gpu in kvplan_names(sliced.group(1)))
    found = [MEANS.get(name, name)]
    for noise in ("nvidia-", "tesla-", "amd-", "instinct-", "geforce-"):
        name = name.removeprefix(noise)
        found.append(MEANS.get(name, name))
    name = re.sub(r"-(shared|generation|edition)$", "", name)
    plain = re.sub(r"-(sxm\d?|pcie|hbm3e?|hbm2e?|nvl|oam)(?=-|$)", "", name)
    found += [MEANS.get(name, name), MEANS.get(plain, plain)]
    return tuple(dict.fromkeys(found))


def of_instance(text: str) -> str:
    """Return the GPU of a cloud machine type, empty where it is not known."""
    name = text.strip().casefold()
    for prefix, gpu in INSTANCES:
        if name.startswith(prefix):
            return gpu
    size = name.removeprefix("standard_")
    return next((gpu for pattern, gpu in AZURE if re.fullmatch(pattern, size)), "")
