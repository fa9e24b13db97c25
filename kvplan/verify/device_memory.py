"""What a device has free and what this process holds of it, asked of the driver or the system.

CUDA and ROCm answer through torch.cuda.mem_get_info, XPU through torch.xpu, Metal through
torch.mps; a CPU through /proc (and the container's cgroup), else ``ps``. ``None`` where nobody
answers: then nothing is claimed.
"""

import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from kvplan.errors import CannotTell, InvalidValue, MissingExtra

DEVICES = ("auto", "cuda", "cpu", "mps", "xpu")
# What stays free whatever is asked: the rest of the machine has to go on.
KEPT_FREE_PERCENT = 10
_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")
_STATM = Path("/proc/self/statm")
_NVIDIA = Path("/proc/driver/nvidia/version")


def torch_module() -> Any:
    """Return torch. Raises MissingExtra with how to get it."""
    try:
        import torch
    except ImportError:
        raise MissingExtra(
            "torch is not installed",
            why="verify allocates the cache's real tensors with it",
            hint="pip install 'kvplan[verify]', or read a log instead: kvplan verify --log server.log",
        ) from None
    return torch


def device_of(torch: Any, name: str) -> str:
    """Return the device to measure on; ``auto`` takes an accelerator where there is one.

    Raises InvalidValue for a name that is no device, CannotTell for one that this machine lacks.
    """
    if name not in DEVICES:
        raise InvalidValue(
            f"'{name}' is not a device here",
            why=f"known are {', '.join(DEVICES)}",
            hint="leave out --device for the accelerator, or write --device cpu",
        )
    present = {
        "cuda": torch.cuda.is_available,
        "xpu": lambda: hasattr(torch, "xpu") and torch.xpu.is_available(),
        "mps": torch.backends.mps.is_available,
        "cpu": lambda: True,
    }
    if name == "auto":
        return next(device for device, is_there in present.items() if is_there())
    if not present[name]():
        raise CannotTell(
            f"this machine has no {name} device that torch {torch.__version__} can use",
            why="torch says it is not available",
            hint="write --device cpu, or install a torch build for the device",
        )
    return name


def free_bytes(torch: Any, device: str) -> int | None:
    """Return what is free for one more process, None where it cannot be asked."""
    if device == "cpu":
        return _free_system_bytes()
    if device == "mps":
        total, held = total_bytes(torch, device), held_bytes(torch, device)
        return None if total is None or held is None else max(0, total - held)
    return _free_and_total(torch, device)[0]


def total_bytes(torch: Any, device: str) -> int | None:
    """Return what a process sees of a device, None for a CPU and where it cannot be asked."""
    if device == "cpu":
        return None
    if device == "mps":
        return _asked(torch.mps, "recommended_max_memory")
    return _free_and_total(torch, device)[1]


def held_bytes(torch: Any, device: str) -> int | None:
    """Return what this process (CPU, Metal) or everybody (CUDA, XPU) holds of the device."""
    if device == "cpu":
        return _resident_bytes()
    if device == "mps":
        return _asked(torch.mps, "driver_allocated_memory")
    free, total = _free_and_total(torch, device)
    return None if free is None or total is None else total - free


def reserved_bytes(torch: Any, device: str) -> int | None:
    """Return what torch's caching allocator has taken from the device; None on a CPU."""
    if device == "cpu":
        return None
    if device == "mps":
        return _asked(torch.mps, "driver_allocated_memory")
    return _asked(getattr(torch, device), "memory_reserved")


def driver_of(torch: Any, device: str) -> str:
    """Return the driver that serves a device and what torch was built for, as far as they are told."""
    if device == "cuda" and torch.version.hip:
        return f"ROCm {torch.version.hip}"
    if device == "cuda":
        found = re.search(r"\b\d+\.\d+(?:\.\d+)*\b", _text_of(_NVIDIA))
        return f"{found.group()}, CUDA {torch.version.cuda}" if found else f"CUDA {torch.version.cuda}"
    if device == "xpu":
        return str(getattr(torch.xpu.get_device_properties(), "driver_version", ""))
    return (
        f"macOS {platform.mac_ver()[0]}" if device == "mps" else f"{platform.system()} {platform.release()}"
    )


def _free_and_total(torch: Any, device: str) -> tuple[int | None, int | None]:
    """Return (free, total) as CUDA's and XPU's drivers say; some XPU drivers do not (RuntimeError)."""
    try:
        free, total = getattr(torch, device).mem_get_info()
    except (AttributeError, RuntimeError):
        return None, None
    return int(free), int(total)


def _asked(module: Any, name: str) -> int | None:
    # Metal's and XPU's figures came one by one, after torch 2.4.
    asking = getattr(module, name, None)
    return None if asking is None else int(asking())


def release(torch: Any, device: str) -> None:
    """Give back what torch and the C library keep of freed tensors."""
    if device != "cpu":
        # Work that is still queued holds its tensors.
        synchronize(torch, device)
        getattr(torch, device).empty_cache()
    _trim_heap()


def synchronize(torch: Any, device: str) -> None:
    """Wait until the device has done what it was told."""
    if device != "cpu":
        getattr(torch, device).synchronize()


def _trim_heap() -> None:
    import ctypes

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def _resident_bytes() -> int | None:
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):
        pass
    if os.name != "posix":
        return None
    try:
        answer = subprocess.run(
            ["ps", "-o", "rss=", "-p", str(os.getpid())],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        return int(answer.stdout) * 1024
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def _free_system_bytes() -> int | None:
    rooms = [room for room in (_available_bytes(), _cgroup_room()) if room is not None]
    return min(rooms, default=None)


def _text_of(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


def _available_bytes() -> int | None:
    try:
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    if platform.system() == "Darwin":
        return _free_on_macos()
    return None


def _free_on_macos() -> int | None:
    try:
        answer = subprocess.run(["vm_stat"], capture_output=True, text=True, timeout=10, check=True).stdout
        page = int(answer.split("page size of ")[1].split(" ")[0])
        pages = {
            name.strip(): int(count.strip().rstrip("."))
            for name, _, count in (line.partition(":") for line in answer.splitlines()[1:])
            if count.strip().rstrip(".").isdigit()
        }
        return page * sum(
            pages.get(name, 0) for name in ("Pages free", "Pages inactive", "Pages speculative")
        )
    except (OSError, ValueError, IndexError, subprocess.SubprocessError):
        return None


def _cgroup_room() -> int | None:
    """Return what a container may still take (cgroup v2), None without a limit."""
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        return None if limit == "max" else int(limit) - int((_CGROUP / "memory.current").read_text())
    except (OSError, ValueError):
        return None
