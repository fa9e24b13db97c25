"""vLLM: what lies beside weights and cache on a rank, as intervals.

Activations are the larger of the sampler's peak (``max_num_seqs`` rows of logits) and the forward
pass over ``max_num_batched_tokens``; fused experts keep their workspace through both. Constants are
fitted to start-up logs of real servers: see ``_vllm_calibration``.
"""

from functools import lru_cache

from kvplan.engines import _vllm_calibration as fit
from kvplan.model import ModelSpec, num_layers
from kvplan.quantity import Quantity, exact
from kvplan.units import GIB

NVLINK_ARCHITECTURES = frozenset(("hopper", "blackwell", "ampere"))


def gib(low: float, expected: float, high: float, why: str) -> Quantity:
    """Return a calibrated interval given in GiB."""
    return Quantity(int(low * GIB), int(expected * GIB), int(high * GIB), "calibrated", why)


@lru_cache(maxsize=4096)
def activations(
    model: ModelSpec, max_num_seqs: int, max_num_batched_tokens: int, tensor: int, version: tuple[int, int]
) -> Quantity:
    """Return the activation peak of the profile run on the rank that samples."""
    structure = model.structure
    rows = max_num_seqs * structure.vocab_size * 4
    factor = fit.SAMPLER_FACTOR if version >= (0, 17) else fit.SAMPLER_FACTOR_BEFORE_0_17
    hidden_bytes = max_num_batched_tokens * structure.hidden_size * 2
    sampler = int(factor * rows) + fit.BASE_BYTES + hidden_bytes
    forward = max_num_batched_tokens * 2 * (3 * _intermediate(model) // tensor + 4 * structure.hidden_size)
    expected = max(sampler, forward) + _expert_workspace(model, max_num_batched_tokens, tensor)
    low = expected - max(fit.ACTIVATION_LOW_BYTES, expected * fit.ACTIVATION_LOW_PERCENT // 100)
    high = expected + max(fit.ACTIVATION_HIGH_BYTES, expected * fit.ACTIVATION_HIGH_PERCENT // 100)
    if _is_multimodal(model):
        high += fit.MULTIMODAL_HIGH_BYTES
    return Quantity(max(0, low), expected, high, "calibrated", fit.ACTIVATION_WHY)


def _intermediate(model: ModelSpec) -> int:
    widths = [
        tensor.shape[0]
        for group in model.layers
        for tensor in group.layer.tensors
        if tensor.role in ("mlp", "shared_expert") and tensor.split == "out"
    ]
    return max(widths, default=0)


def _expert_workspace(model: ModelSpec, num_tokens: int, tensor: int) -> int:
    """Return the fused experts' workspace: both projections' outputs for every routed token.

    vLLM 0.33 model_executor/layers/fused_moe: the first projection's output (gate and up) shares
    memory with the second's. The MXFP4 kernels keep none.
    """
    if model.weights_format == "mxfp4":
        return 0
    for group in reversed(model.layers):
        for part in group.layer.tensors:
            if part.role == "expert" and part.split == "in":
                width = part.shape[1] // tensor or 1
                routed = num_tokens * (part.num_active or 1)
                return routed * 2 * (max(2 * width, part.shape[0]) + width)
    return 0


def _is_multimodal(model: ModelSpec) -> bool:
    return any(tensor.role in ("vision", "audio") for tensor in model.structure.tensors)


@lru_cache(maxsize=1024)
def cuda_graphs(model: ModelSpec, tensor: int, version: tuple[int, int]) -> Quantity:
    """Return the memory of captured CUDA graphs on a rank."""
    layers = num_layers(model.structure)
    expected = fit.GRAPHS_BASE_GIB + fit.GRAPHS_PER_LAYER_GIB * layers
    is_moe = any(t.role == "expert" for group in model.layers for t in group.layer.tensors)
    high = expected * 1.35
    if is_moe:
        expected += fit.GRAPHS_EXPERTS_GIB
        high = expected + fit.GRAPHS_EXPERTS_HIGH_GIB
    if version < (0, 17):
        high *= 1.5
    low = expected * 0.55 if tensor == 1 else expected * 0.45
    return gib(low, expected, high, fit.GRAPHS_WHY)


@lru_cache(maxsize=1024)
def non_torch(tensor: int, architecture: str, weight_bytes: int, version: tuple[int, int]) -> Quantity:
    """Return what a rank holds beside torch: context growth, NCCL, and the allocator's slack.

    The slack (rotary tables, rounding, vocabulary padding) is up to 1 percent of the weights.
    """
    slack = weight_bytes // 1000 * fit.WEIGHT_SLACK_PER_MILLE
    high_slack = weight_bytes // 100
    if tensor == 1:
        low, usual, high = (0.10, 0.13, 0.25) if version < (0, 18) else fit.NON_TORCH_ONE_RANK
    elif architecture in NVLINK_ARCHITECTURES:
        low, usual, high = (0.45, 0.55, 2.1) if version < (0, 18) else fit.NON_TORCH_NVLINK
    else:
        low, usual, high = fit.NON_TORCH_PCIE
    amount = gib(low, usual, high, fit.NON_TORCH_WHY)
    return Quantity(
        amount.low, amount.expected + slack, amount.high + high_slack, "calibrated", fit.NON_TORCH_WHY
    )


def before_snapshot(tensor: int, architecture: str) -> Quantity:
    """Return what is taken before vLLM looks at free memory: CUDA context and NCCL."""
    if tensor == 1:
        return gib(0.30, 0.51, 0.80, fit.SNAPSHOT_WHY)
    if architecture in NVLINK_ARCHITECTURES:
        return gib(0.80, 1.60, 2.10, fit.SNAPSHOT_WHY)
    return gib(0.40, 0.80, 1.60, fit.SNAPSHOT_WHY)


def sampler_logits(model: ModelSpec, max_num_seqs: int) -> Quantity:
    """Return the sampler's warm-up over ``max_num_seqs`` rows of logits, after the pool is taken."""
    rows = max_num_seqs * model.structure.vocab_size * 4
    return Quantity(0, 0, int(fit.SAMPLER_FACTOR * rows), "calibrated", fit.SNAPSHOT_WHY)


NO_GRAPHS = exact(0, "enforce_eager")
