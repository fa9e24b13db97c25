"""A device that holds memory: a GPU, or a machine's RAM."""

from typing import Literal

from kvplan.frozen import dataclass
from kvplan.quantity import Basis


@dataclass(frozen=True, slots=True)
class Device:
    """One device as an engine meets it.

    ``memory_bytes`` is what its driver reports; ``usable_bytes`` what a process can see of it
    (CUDA's total, Metal's recommended working set), with ``usable_low_bytes`` the pessimistic
    reading; ``usable_basis`` says how well that is known. ``bandwidth_bytes_per_second`` is the
    vendor's figure, 0 where there is none. ``notes`` go to the report ("48GB read
    as ..."); ``larger_sibling`` is a card sold as the same size that reports more; ``used_bytes`` is
    what others held when it was asked.
    """

    name: str
    memory_bytes: int
    usable_bytes: int
    usable_low_bytes: int
    usable_basis: Basis
    vendor: str = ""
    architecture: str = ""
    compute_capability: str = ""
    kind: Literal["gpu", "cpu"] = "gpu"
    unified_memory: bool = False
    bandwidth_bytes_per_second: int = 0
    bf16_flops: int = 0
    pcie: str = ""
    source: str = ""
    notes: tuple[str, ...] = ()
    larger_sibling: str = ""
    larger_sibling_bytes: int = 0
    used_bytes: int = 0

    def __hash__(self) -> int:
        # Cheap, since plans look up by it: these tell nearly all devices apart, equality the rest.
        return hash((self.name, self.usable_bytes, self.used_bytes))
