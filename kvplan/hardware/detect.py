"""The GPUs of this machine: NVML where nvidia-ml-py is installed, else nvidia-smi, else Metal.

What NVML reports is the driver's total; what other processes hold now is in ``used_bytes``. Nothing
is allocated and no context is made.
"""

import platform
import shutil
import subprocess

from kvplan.device import Device
from kvplan.errors import MissingExtra, UnknownGpu
from kvplan.hardware.catalog import device_named, hidden_from_cuda
from kvplan.units import GIB, MIB

TIMEOUT_SECONDS = 10


def local_devices() -> tuple[Device, ...]:
    """Return this machine's GPUs. Raises MissingExtra when none can be asked."""
    found = _from_nvml() or _from_nvidia_smi() or _from_apple()
    if not found:
        raise MissingExtra(
            "no GPU of this machine can be asked",
            why="neither nvidia-ml-py nor nvidia-smi answers, and this is no Apple silicon",
            hint="pip install 'kvplan[gpu]' beside an NVIDIA driver, or name the GPU: --gpu h100",
        )
    return found


def catalogue_name(name: str, total_bytes: int) -> str:
    """Return the catalogue's name of a device that a driver reports, empty where its size is another's.

    A slice of a card (MIG) has the card's name and a part of its memory.
    """
    try:
        known = device_named(_model_of(name))
    except UnknownGpu:
        return ""
    return known.name if abs(known.memory_bytes - total_bytes) * 20 <= known.memory_bytes else ""


def _model_of(name: str) -> str:
    return name.removesuffix(" HBM3").removesuffix(" 80GB")


def described(name: str, total_bytes: int, used_bytes: int) -> Device:
    """Return the device a driver reported: its own total, the catalogue's speed if it is known."""
    usable, low, basis = hidden_from_cuda(total_bytes)
    try:
        known = device_named(_model_of(name))
    except UnknownGpu:
        known = None
    if known is not None and known.usable_basis == "calibrated" and known.memory_bytes == total_bytes:
        usable, low, basis = known.usable_bytes, known.usable_low_bytes, known.usable_basis
    return Device(
        name=name,
        memory_bytes=total_bytes,
        usable_bytes=usable,
        usable_low_bytes=low,
        usable_basis=basis,
        vendor="nvidia",
        architecture=known.architecture if known else "",
        compute_capability=known.compute_capability if known else "",
        bandwidth_bytes_per_second=known.bandwidth_bytes_per_second if known else 0,
        bf16_flops=known.bf16_flops if known else 0,
        pcie=known.pcie if known else "",
        source="this machine's driver",
        used_bytes=used_bytes,
    )


def _from_nvml() -> tuple[Device, ...]:
    try:
        import pynvml
    except ImportError:
        return ()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        devices = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            name = pynvml.nvmlDeviceGetName(handle)
            text = name.decode() if isinstance(name, bytes) else str(name)
            devices.append(described(text, int(memory.total), int(memory.used)))
        return tuple(devices)
    except pynvml.NVMLError:
        return ()
    finally:
        pynvml.nvmlShutdown()


def _from_nvidia_smi() -> tuple[Device, ...]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    try:
        answer = subprocess.run(
            [program, "--query-gpu=name,memory.total,memory.used", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    devices = []
    for line in answer.stdout.splitlines():
        fields = [field.strip() for field in line.rsplit(",", 2)]
        if len(fields) == 3 and fields[1].isdigit() and fields[2].isdigit():
            devices.append(described(fields[0], int(fields[1]) * MIB, int(fields[2]) * MIB))
    return tuple(devices)


def _from_apple() -> tuple[Device, ...]:
    if platform.system() != "Darwin":
        return ()
    try:
        facts = subprocess.run(
            ["/usr/sbin/sysctl", "-n", "hw.memsize", "machdep.cpu.brand_string"],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=True,
        ).stdout.splitlines()
        memory_gb = int(facts[0]) // GIB
        return (device_named(f"{facts[1].removeprefix('Apple ')} {memory_gb}gb"),)
    except (OSError, ValueError, IndexError, subprocess.SubprocessError, UnknownGpu):
        return ()
