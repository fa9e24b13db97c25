"""Allocate a cache's tensors for real, layer by layer, and measure what that takes.

Every byte is written once, so that the system has to back it. Whatever happens (Ctrl-C, out of
memory, a failure half-way), the tensors are gone and their memory given back before this returns.
"""

from collections.abc import Callable
from time import perf_counter
from traceback import clear_frames
from typing import Any

from kvplan.errors import CannotTell
from kvplan.frozen import dataclass
from kvplan.units import format_gib
from kvplan.verify import device_memory
from kvplan.verify.cache_layout import CacheLayout, LayoutGroup
from kvplan.verify.storage import TensorShape

# Called after each layer with the bytes allocated so far.
Progress = Callable[[int], None]
# What the allocators say; the last is Metal's answer to a tensor larger than its largest buffer.
OUT_OF_MEMORY_WORDS = ("not enough memory", "out of memory", "can't allocate memory", "invalid buffer size")
# Metal has no 8-bit floats: the same bytes as integers.
_SAME_WIDTH = {"mps": {"float8_e4m3fn": "uint8"}}


@dataclass(frozen=True, slots=True)
class GroupMeasured:
    """One group as it was allocated.

    ``storage_bytes`` is what the tensors' storages hold, ``usable_bytes`` what the allocator really
    set aside for them (None where it cannot be asked), ``seconds`` the time to allocate and touch.
    """

    group: LayoutGroup
    storage_bytes: int
    usable_bytes: int | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Measured:
    """What a whole layout took.

    ``total_bytes`` is what a process sees of the device (None on a CPU), ``driver`` who serves it.
    ``reserved_bytes`` is what torch's allocator took for it, ``lost_bytes`` by how much the device's
    (or process's) memory shrank, ``left_bytes`` what was still missing after everything was freed;
    each None where nobody could be asked.
    """

    device: str
    device_name: str
    groups: tuple[GroupMeasured, ...]
    free_before_bytes: int
    total_bytes: int | None
    driver: str
    reserved_bytes: int | None
    lost_bytes: int | None
    left_bytes: int | None

    @property
    def storage_bytes(self) -> int:
        """What all tensors' storages hold."""
        return sum(group.storage_bytes for group in self.groups)

    @property
    def cache_bytes(self) -> int:
        """What the storages of the cache itself hold: all but what lies beside it."""
        return sum(one.storage_bytes for one in self.groups if not one.group.beside)

    @property
    def seconds(self) -> float:
        """How long allocating took."""
        return sum(group.seconds for group in self.groups)


def room_bytes(device: str, max_memory_bytes: int | None) -> tuple[int, int]:
    """Return (what may be allocated, what is free) on a device: nine tenths of the free, or less if asked.

    Raises CannotTell where the free memory cannot be asked and no limit is given.
    """
    free = device_memory.free_bytes(device_memory.torch_module(), device)
    if free is None and max_memory_bytes is None:
        raise CannotTell(
            f"the free memory of {device} cannot be asked here",
            why="without it a large cache could drive the machine into swap",
            hint="say how much may be taken: --max-memory 4GiB",
        )
    if free is None:
        return max_memory_bytes or 0, max_memory_bytes or 0
    allowed = free * (100 - device_memory.KEPT_FREE_PERCENT) // 100
    return min(allowed, max_memory_bytes) if max_memory_bytes is not None else allowed, free


def measure(layout: CacheLayout, device: str, progress: Progress = lambda _: None) -> Measured:
    """Allocate every tensor of a layout on a device, measure, and free.

    Raises CannotTell when memory runs out on the way; KeyboardInterrupt and what ``progress`` raises
    pass through, after everything has been freed.
    """
    torch = device_memory.torch_module()
    # A first small tensor makes the context and loads the kernel that fills: not the cache's memory.
    _tensor(torch, device, TensorShape("first", "uint8", (1,)))
    device_memory.release(torch, device)
    free = device_memory.free_bytes(torch, device)
    held = device_memory.held_bytes(torch, device)
    reserved = device_memory.reserved_bytes(torch, device)
    kept: list[Any] = []
    groups: list[GroupMeasured] = []
    done = 0
    try:
        for group in layout.groups:
            measured = _allocate_group(torch, device, group, kept, done, progress)
            done += measured.storage_bytes
            groups.append(measured)
        device_memory.synchronize(torch, device)
        lost = _growth(held, device_memory.held_bytes(torch, device))
        taken = _growth(reserved, device_memory.reserved_bytes(torch, device))
    except BaseException as error:
        # The frames that the error went through still hold their last tensor.
        kept.clear()
        clear_frames(error.__traceback__)
        if not isinstance(error, MemoryError | RuntimeError) or not _is_out_of_memory(torch, error):
            raise
        raise CannotTell(
            f"memory ran out after {format_gib(done)} of {format_gib(layout.num_bytes)}",
            why=str(error).splitlines()[0][:160],
            hint="everything was freed; allow less: --max-memory " + f"{max(1, done // 2**30)}GiB",
        ) from None
    finally:
        kept.clear()
        device_memory.release(torch, device)
    return Measured(
        device=device,
        device_name=_device_name(torch, device),
        groups=tuple(groups),
        free_before_bytes=free or 0,
        total_bytes=device_memory.total_bytes(torch, device),
        driver=device_memory.driver_of(torch, device),
        reserved_bytes=taken,
        lost_bytes=lost,
        left_bytes=_growth(held, device_memory.held_bytes(torch, device)),
    )


def _allocate_group(
    torch: Any, device: str, group: LayoutGroup, kept: list[Any], done: int, progress: Progress
) -> GroupMeasured:
    began = perf_counter()
    storage = 0
    usable: int | None = 0 if device == "cpu" else None
    for _ in range(group.num_layers):
        for shape in group.tensors:
            tensor = _tensor(torch, device, shape)
            kept.append(tensor)
            storage += tensor.untyped_storage().nbytes()
            if usable is not None:
                own = _usable_bytes(tensor.data_ptr()) if tensor.numel() else 0
                usable = None if own is None else usable + own
        progress(done + storage)
    device_memory.synchronize(torch, device)
    return GroupMeasured(group, storage, usable, perf_counter() - began)


def _tensor(torch: Any, device: str, shape: TensorShape) -> Any:
    dtype = getattr(torch, _SAME_WIDTH.get(device, {}).get(shape.dtype, shape.dtype))
    tensor = torch.empty(shape.shape, dtype=dtype, device=device)
    # Memory that was never written is not backed by pages.
    tensor.view(torch.uint8).fill_(1)
    return tensor


def _usable_bytes(address: int) -> int | None:
    """Return what the C library set aside for an address, None where it does not say."""
    import ctypes
    import os

    asking = getattr(ctypes.CDLL(None), "malloc_usable_size", None) if os.name == "posix" else None
    if asking is None:
        return None
    asking.argtypes, asking.restype = [ctypes.c_void_p], ctypes.c_size_t
    return int(asking(address))


def _growth(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else after - before


def _is_out_of_memory(torch: Any, error: Exception) -> bool:
    # Before torch 2.5 the class was CUDA's.
    kind = getattr(torch, "OutOfMemoryError", None) or torch.cuda.OutOfMemoryError
    if isinstance(error, MemoryError | kind):
        return True
    text = str(error).casefold()
    return any(words in text for words in OUT_OF_MEMORY_WORDS)


def _device_name(torch: Any, device: str) -> str:
    if device in ("cuda", "xpu"):
        return str(getattr(torch, device).get_device_name())
    return "Metal" if device == "mps" else "CPU memory"
