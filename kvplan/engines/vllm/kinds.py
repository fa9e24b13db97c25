"""vLLM: groups of cards that one server meets alike but for their size."""

from collections.abc import Sequence
from functools import lru_cache

from kvplan.device import Device
from kvplan.engines.vllm.budget import Surroundings, surroundings_of
from kvplan.engines.vllm.server import by_generation
from kvplan.engines.vllm.settings import Card, card_of
from kvplan.frozen import dataclass, replace
from kvplan.model import ModelSpec
from kvplan.workload import Workload


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """Cards of one tier of the scheduler's defaults, with the same memory beside torch.

    Compared by identity, to look up by it cheaply.
    """

    num_devices: int
    card: Card
    beside: Surroundings
    unified_memory: bool
    used_bytes: int


def kind_of(
    model: ModelSpec, workload: Workload, version: tuple[int, int], devices: Sequence[Device]
) -> Kind | None:
    """Return the kind of a group of equal cards; None of any other group."""
    if not devices or any(device is not devices[0] for device in devices):
        return None
    is_alone = len(devices) == 1 and workload.tensor_parallel <= 1 and workload.pipeline_parallel <= 1
    return _kind_of(devices[0], len(devices), version, by_generation(model, version), is_alone)


@lru_cache(maxsize=1024)
def _kind_of(
    device: Device, num_devices: int, version: tuple[int, int], is_by_generation: bool, is_alone: bool
) -> Kind:
    # Of several ranks, as over one layer, and with a layout by kernels: what tells most cards apart.
    tensor = 1 if is_alone else 2
    beside = replace(surroundings_of(device, tensor, 1, by_kernels=True), unified_bytes=0)
    card = card_of(device, version, by_generation=is_by_generation)
    return _made(num_devices, card, beside, device.unified_memory, device.used_bytes)


_made = lru_cache(maxsize=256)(Kind)
