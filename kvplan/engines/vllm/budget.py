"""vLLM: what lies beside weights, cache and activations on a rank, as intervals.

What the process holds beside torch, captured CUDA graphs, and what is taken before vLLM looks at free
memory. Constants come from start-up logs of real servers: see ``_vllm_calibration``.
"""

from functools import lru_cache

from kvplan.device import Device
from kvplan.engines import _vllm_calibration as fit
from kvplan.engines.vllm.kernels import kernels_of
from kvplan.frozen import dataclass
from kvplan.model import ModelSpec, num_layers
from kvplan.quantity import Basis, Quantity, exact
from kvplan.units import GIB

NO_GRAPHS = exact(0, "enforce_eager")
# Hopper cards without NVLink switches between them.
BRIDGED = ("-pcie", "-nvl")
# What graphs take, and what they are estimated at: base, part a layer, experts, ranges.
CAPTURED = (
    fit.GRAPHS_BASE_GIB,
    fit.GRAPHS_PER_LAYER_GIB,
    fit.GRAPHS_EXPERTS_GIB,
    fit.GRAPHS_DENSE_RANGE,
    fit.GRAPHS_MOE_RANGE,
)
ESTIMATED = (
    fit.ESTIMATED_GRAPHS_BASE_GIB,
    fit.ESTIMATED_GRAPHS_PER_LAYER_GIB,
    fit.ESTIMATED_GRAPHS_EXPERTS_GIB,
    fit.ESTIMATED_GRAPHS_DENSE_RANGE,
    fit.ESTIMATED_GRAPHS_MOE_RANGE,
)
# Sizes captured up to 512 sequences: 1, 2, 4, every 8 to 256, every 16 to 512 (config/vllm.py).
MOST_CAPTURE_SIZES = 51
SMALL_STEP, LARGE_STEP, STEP_CHANGES_AT = 8, 16, 256


def gib(low: float, expected: float, high: float, why: str, basis: Basis = "calibrated") -> Quantity:
    """Return an interval given in GiB."""
    return Quantity(int(low * GIB), int(expected * GIB), int(high * GIB), basis, why)


_interval = lru_cache(maxsize=64)(gib)


@lru_cache(maxsize=256)
def num_capture_sizes(largest: int) -> int:
    """Return how many batch sizes are captured up to ``largest``."""
    small = sum(1 for size in (1, 2, 4) if size <= largest)
    fine = min(largest, STEP_CHANGES_AT) // SMALL_STEP
    return small + fine + max(0, largest - STEP_CHANGES_AT) // LARGE_STEP


@lru_cache(maxsize=2048)
def cuda_graphs(
    model: ModelSpec,
    largest_capture: int,
    architecture: str,
    version: tuple[int, int],
    num_draft_layers: int = 0,
    *,
    estimated: bool = False,
) -> Quantity:
    """Return the memory of captured CUDA graphs on a rank: a base and a part for every layer.

    ``estimated`` asks for what the V1 runner estimates beforehand, which is what comes off the pool
    where graphs count inside it (v1/worker/gpu_model_runner.py ``profile_cudagraph_memory``). With few
    sequences fewer sizes are captured. Graphs of experts and of ranks that talk over PCIe vary more.
    """
    layers = num_layers(model.structure) + num_draft_layers
    is_moe = any(t.role == "expert" for group in model.layers for t in group.layer.tensors)
    base, per_layer, experts, dense_range, moe_range = ESTIMATED if estimated else CAPTURED
    amount = base + per_layer * layers + (experts if is_moe else 0)
    expected = amount * num_capture_sizes(largest_capture) / MOST_CAPTURE_SIZES
    if architecture == fit.GRAPHS_ARCHITECTURE and version >= (0, 17):
        low, high = moe_range if is_moe else dense_range
    else:
        low, high = fit.GRAPHS_MOE_ELSEWHERE_RANGE if is_moe else fit.GRAPHS_DENSE_ELSEWHERE_RANGE
    return gib(expected * low, expected, expected * high + fit.GRAPHS_FLOOR_GIB, fit.GRAPHS_WHY)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What of a device decides the memory beside torch, equal for many cards.

    ``architecture`` is empty where graphs vary alike; ``link`` the class of card that communication
    memory depends on, empty for one rank; ``unified_bytes`` what CUDA shows where the card's memory is
    the machine's, else 0; ``kernels`` the class that weights are laid out for and processors and cuBLAS
    workspace go by, empty for the many that differ in neither.
    """

    architecture: str
    link: str
    unified_bytes: int
    kernels: str


@lru_cache(maxsize=1024)
def surroundings_of(device: Device, tensor: int, pipeline: int, *, by_kernels: bool) -> Surroundings:
    """Return a device's surroundings among ``tensor`` x ``pipeline`` ranks.

    ``by_kernels`` tells whether the weights' layout depends on the class of card; without it the
    classes that differ in nothing else are one.
    """
    architecture = device.architecture if device.architecture == fit.GRAPHS_ARCHITECTURE else ""
    kernels = kernels_of(device)
    link = ""
    if tensor > 1:
        link = _link(device, kernels)
    elif pipeline > 1:
        link = "amd" if kernels == "amd" else "stages"
    return Surroundings(
        architecture,
        link,
        device.usable_bytes if device.unified_memory else 0,
        kernels if by_kernels or kernels != "marlin" else "",
    )


def _link(device: Device, kernels: str) -> str:
    if kernels == "amd":
        return "amd"
    if device.architecture == "hopper":
        return "bridge" if device.name.endswith(BRIDGED) else "hopper"
    if device.architecture == "blackwell" and device.memory_bytes > fit.DATACENTER_BYTES:
        return "blackwell"
    if device.architecture == "ampere" and device.memory_bytes > fit.AMPERE_DATACENTER_BYTES:
        return "ampere"
    return "pcie"


def non_torch(ranks: int, beside: Surroundings, weight_bytes: int, version: tuple[int, int]) -> Quantity:
    """Return what a rank holds beside torch after the profile run: context growth, NCCL, workspaces.

    On unified memory what loading left in the page cache counts as used (assumed: up to a third of
    the weights), and so does what the rest of the machine takes meanwhile (up to 2 % of it).
    """
    low, usual, high = _beside_torch(ranks, beside, version)
    found = _interval(low, usual, high, fit.NON_TORCH_WHY)
    if beside.link in fit.NON_TORCH_UNSEEN or beside.kernels == "amd":
        found = Quantity(found.low, found.expected, found.high, "assumed", fit.NON_TORCH_WHY)
    if not beside.unified_bytes:
        return found
    cached = weight_bytes * fit.PAGE_CACHE_PERCENT // 100
    others = beside.unified_bytes * fit.OTHERS_PERCENT // 100
    high_bytes = found.high + cached + others
    return Quantity(found.low, found.expected + cached // 2, high_bytes, "assumed", fit.UNIFIED_WHY)


def _beside_torch(ranks: int, beside: Surroundings, version: tuple[int, int]) -> tuple[float, float, float]:
    if beside.kernels == "amd":
        return fit.NON_TORCH["amd"]
    if beside.link in fit.NON_TORCH_UNSEEN:
        return fit.NON_TORCH[beside.link]
    if ranks == 1:
        if version < (0, 18):
            return fit.NON_TORCH_ONE_RANK_BEFORE_0_18
        is_seen = beside.architecture == fit.GRAPHS_ARCHITECTURE
        return fit.NON_TORCH_ONE_RANK if is_seen else fit.NON_TORCH_ONE_RANK_ELSEWHERE
    low, usual, high = fit.NON_TORCH[beside.link]
    if version < (0, 18):
        least, expected, most = fit.NON_TORCH_BEFORE_0_18
        return least, expected, max(most, high)
    if beside.link != "hopper":
        return low, usual, high
    doublings = max(0, ranks.bit_length() - 2)
    more = (each * doublings for each in fit.NON_TORCH_PER_DOUBLING)
    return low + next(more), usual + next(more), high + next(more)


def before_snapshot(ranks: int, beside: Surroundings) -> Quantity:
    """Return what is taken before vLLM looks at free memory: CUDA context and NCCL."""
    amounts = fit.SNAPSHOT_ONE_RANK if ranks == 1 else fit.SNAPSHOT[beside.link]
    return _interval(*amounts, fit.SNAPSHOT_WHY)
