"""What a device keeps beside llama.cpp's buffers: by backend, and on machines with one memory.

Sources: llama.cpp's own 'unaccounted' line (451 to 456 MiB on RTX 4090s, pull request 15860; 753 MiB on
an RTX PRO 6000 Blackwell; 0 on an Apple M5); Ollama sets 457 MiB aside on each GPU and 512 on Metal
(ml/device.go MinimumMemory). No reading was found for ROCm, Vulkan and SYCL: wide, and assumed.
"""

from collections.abc import Sequence
from typing import Literal

from kvplan.device import Device
from kvplan.engines.base import Check, Component
from kvplan.quantity import Quantity, total
from kvplan.units import GIB, MIB

Backend = Literal["cuda", "rocm", "metal", "sycl", "vulkan"]
_OF_VENDOR: dict[str, Backend] = {"amd": "rocm", "apple": "metal", "intel": "sycl"}
_RUNTIME: dict[Backend, Quantity] = {
    "cuda": Quantity(
        300 * MIB, 456 * MIB, 760 * MIB, "calibrated", "llama.cpp's 'unaccounted' on CUDA: 451 to 753 MiB"
    ),
    "rocm": Quantity(100 * MIB, 450 * MIB, 1200 * MIB, "assumed", "no reading under ROCm was found"),
    "metal": Quantity(0, 64 * MIB, 512 * MIB, "assumed", "0 MiB on an M5; Ollama sets 512 aside"),
    "sycl": Quantity(100 * MIB, 500 * MIB, 1500 * MIB, "assumed", "no reading under SYCL was found"),
    "vulkan": Quantity(50 * MIB, 250 * MIB, 900 * MIB, "assumed", "no reading under Vulkan was found"),
}
# What the operating system and its programs hold of a machine's only memory; on two DGX Spark kits
# 102 of 121.6 GiB were free after boot.
SYSTEM_BYTES = Quantity(2 * GIB, 4 * GIB, 8 * GIB, "assumed", "the system's share of one memory")
SPARK_SYSTEM_BYTES = Quantity(2 * GIB, 6 * GIB, 20 * GIB, "assumed", "102 of 121.6 GiB free after boot")


def backend_of(device: Device, named: object = None) -> Backend:
    """Return the backend of a device: its vendor's own, or the one ``--device`` names."""
    text = str(named or "").casefold()
    for backend in _RUNTIME:
        if text.startswith(backend):
            return backend
    return _OF_VENDOR.get(device.vendor, "cuda")


def runtime_of(device: Device, named: object = None) -> Quantity:
    """Return what context and libraries take on a device."""
    return _RUNTIME[backend_of(device, named)]


def one_memory_check(device: Device, components: Sequence[Component], host: Sequence[Component]) -> Check:
    """Return the test of a machine whose CPU and GPU share one memory: both parts and the system."""
    system, limit = SYSTEM_BYTES, max(device.memory_bytes, device.usable_bytes)
    if device.vendor == "nvidia":
        # What CUDA sees is what the system sees: firmware keeps the rest.
        system, limit = SPARK_SYSTEM_BYTES, device.usable_bytes
    required = total((*(part.bytes for part in components), *(part.bytes for part in host), system))
    return Check("host_memory", required, limit, "CPU, GPU and system share one memory")
