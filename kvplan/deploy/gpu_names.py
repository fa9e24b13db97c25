"""How deployment files spell GPUs: node labels, resource names, profiles, and kvplan's names for them.

Sources: the labels of NVIDIA's GPU feature discovery, GKE, EKS (Karpenter) and AKS; Ray's accelerator
types; SkyPilot's accelerators; KubeAI's resource profiles.
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
    ("p4d.", "a100-40gb"),
    ("p4de.", "a100-80gb"),
    ("p5.", "h100"),
    ("p5e", "h200"),
    ("p6-b200", "b200"),
    ("a2-highgpu", "a100-40gb"),
    ("a2-ultragpu", "a100-80gb"),
    ("a3-highgpu", "h100"),
    ("a3-megagpu", "h100"),
    ("a3-ultragpu", "h200"),
    ("a4-highgpu", "b200"),
    ("g2-", "l4"),
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
    name = re.sub(r"-shared$", "", name)
    plain = re.sub(r"-(sxm\d?|pcie|hbm3e?|hbm2e?|nvl|oam)(?=-|$)", "", name)
    found += [MEANS.get(name, name), MEANS.get(plain, plain)]
    return tuple(dict.fromkeys(found))


def of_instance(text: str) -> str:
    """Return the GPU of a cloud machine type, empty where it is not known."""
    name = text.strip().casefold()
    for prefix, gpu in INSTANCES:
        if name.startswith(prefix):
            return gpu
    return ""
