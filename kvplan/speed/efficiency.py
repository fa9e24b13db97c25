"""What share of a vendor's figures programs reach: published ranges, by kind of memory and engine.

Sources are named in kvplan.speed; tests/test_speed.py holds llama.cpp's ranges against the published
runs one by one.
"""

import re

from kvplan.device import Device
from kvplan.frozen import dataclass
from kvplan.quantity import Basis
from kvplan.units import GB

# NVIDIA compute capabilities whose memory is HBM: P100, V100, A100 and A30, H100 to GH200, B200, B300.
HBM_CAPABILITIES = ("6.0", "7.0", "8.0", "9.0", "10.0", "10.3")
PCIE_GB_PER_LANE = {"3.0": 0.985, "4.0": 1.969, "5.0": 3.938, "6.0": 7.563}
_PCIE = re.compile(r"PCIe (\d\.\d) x(\d+)")


@dataclass(frozen=True, slots=True)
class Spread:
    """A number between ``low`` and ``high``, most likely ``expected``."""

    low: float
    expected: float
    high: float

    def __add__(self, other: "Spread") -> "Spread":
        return Spread(self.low + other.low, self.expected + other.expected, self.high + other.high)

    def scaled(self, factor: float) -> "Spread":
        """Return all three times ``factor``."""
        return Spread(self.low * factor, self.expected * factor, self.high * factor)


@dataclass(frozen=True, slots=True)
class Efficiency:
    """The share of a bandwidth that is reached, and what each layer costs beside the bytes."""

    share: Spread
    layer_seconds: Spread
    basis: Basis


MICRO = 1e-6
# Two channels of DDR4-3200 at 70 percent to two of DDR5-6400 at 90 percent.
HOST_BANDWIDTH = Spread(36e9, 60e9, 92e9)
HOST_LAYER_SECONDS = Spread(20 * MICRO, 50 * MICRO, 150 * MICRO)
BUS_SHARE = Spread(0.7, 0.85, 0.88)

_LLAMA_CPP: dict[str, Efficiency] = {
    "gddr": Efficiency(Spread(0.58, 0.80, 0.94), Spread(15 * MICRO, 45 * MICRO, 75 * MICRO), "calibrated"),
    "hbm": Efficiency(Spread(0.36, 0.52, 0.80), Spread(15 * MICRO, 45 * MICRO, 75 * MICRO), "calibrated"),
    "apple": Efficiency(Spread(0.36, 0.66, 0.92), Spread(40 * MICRO, 90 * MICRO, 130 * MICRO), "calibrated"),
    "amd": Efficiency(Spread(0.35, 0.60, 0.85), Spread(20 * MICRO, 60 * MICRO, 120 * MICRO), "assumed"),
    "intel": Efficiency(Spread(0.25, 0.48, 0.75), Spread(30 * MICRO, 80 * MICRO, 200 * MICRO), "assumed"),
    "lpddr": Efficiency(Spread(0.50, 0.75, 0.92), Spread(20 * MICRO, 60 * MICRO, 120 * MICRO), "assumed"),
}
# aiconfigurator's 0.8 and 3 microseconds an operation, some ten operations a layer in a graph.
_GRAPHS = Efficiency(Spread(0.50, 0.75, 0.90), Spread(10 * MICRO, 30 * MICRO, 80 * MICRO), "assumed")
_EAGER = Efficiency(Spread(0.35, 0.60, 0.85), Spread(100 * MICRO, 250 * MICRO, 600 * MICRO), "assumed")

# GeForce figures count fp32 accumulation; kernels that accumulate in fp16 pass them.
_LLAMA_CPP_PREFILL: dict[str, Spread] = {
    "gddr": Spread(0.14, 0.55, 1.20),
    "hbm": Spread(0.07, 0.25, 0.60),
    "apple": Spread(0.25, 0.60, 0.95),
}
_PREFILL = Spread(0.15, 0.45, 0.75)


def memory_kind(device: Device) -> str:
    """Return the kind of a device's memory and vendor: gddr, hbm, apple, amd, intel or lpddr."""
    if device.vendor in ("apple", "amd", "intel"):
        return "lpddr" if device.vendor == "amd" and device.unified_memory else device.vendor
    if device.unified_memory:
        return "lpddr"
    return "hbm" if device.compute_capability in HBM_CAPABILITIES else "gddr"


def decode_efficiency(engine_name: str, device: Device) -> Efficiency:
    """Return what an engine reaches on a device when it decodes."""
    if engine_name in ("llama.cpp", "ollama"):
        return _LLAMA_CPP[memory_kind(device)]
    return _EAGER if engine_name == "transformers" else _GRAPHS


def prefill_efficiency(engine_name: str, device: Device) -> Spread:
    """Return the share of dense bf16 compute that an engine reaches when it reads a prompt."""
    if engine_name in ("llama.cpp", "ollama"):
        return _LLAMA_CPP_PREFILL.get(memory_kind(device), _PREFILL)
    return _PREFILL


def bus_bandwidth(device: Device) -> Spread | None:
    """Return bytes a second between system memory and a device, None where its bus is not known."""
    match = _PCIE.match(device.pcie)
    if match is None or match.group(1) not in PCIE_GB_PER_LANE:
        return None
    return BUS_SHARE.scaled(PCIE_GB_PER_LANE[match.group(1)] * int(match.group(2)) * GB)
