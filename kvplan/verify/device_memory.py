"""What a device has free and what this process holds of it, asked of the driver or the system.

CUDA and ROCm answer through torch.cuda.mem_get_info, XPU through torch.xpu, Metal through
torch.mps; a CPU through /proc (and the container's cgroup), else ``ps``. ``None`` where nobody
answers: then nothing is claimed.
"""

import os
import platform
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
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    if device == "xpu":
        return int(torch.xpu.mem_get_info()[0])
    if device == "mps":
        return int(torch.mps.recommended_max_memory()) - int(torch.mps.driver_allocated_memory())
    return _free_system_bytes()


def held_bytes(torch: Any, device: str) -> int | None:
    """Return what this process (CPU, Metal) or everybody (CUDA, XPU) holds of the device."""
    if device == "cuda":
        free, total = torch.cuda.mem_get_info()
        return int(total) - int(free)
    if device == "xpu":
        free, total = torch.xpu.mem_get_info()
        return int(total) - int(free)
    if device == "mps":
        return int(torch.mps.driver_allocated_memory())
    return _resident_bytes()


def reserved_bytes(torch: Any, device: str) -> int | None:
    """Return what torch's caching allocator has taken from the device; None on a CPU."""
    if device == "cuda":
        return int(torch.cuda.memory_reserved())
    if device == "xpu":
        return int(torch.xpu.memory_reserved())
    if device == "mps":
        return int(torch.mps.driver_allocated_memory())
    return None


def release(torch: Any, device: str) -> None:
    """Give back what torch and the C library keep of freed tensors."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    elif device == "xpu":
        torch.xpu.empty_cache()
    elif device == "mps":
        torch.mps.empty_cache()
    _trim_heap()


def synchronize(torch: Any, device: str) -> None:
    """Wait until the device has done what it was told."""
    if device in ("cuda", "xpu", "mps"):
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
