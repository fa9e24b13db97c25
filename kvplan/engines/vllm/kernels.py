"""vLLM: what kernels make of a checkpoint's matrices once it is loaded, by class of card and version.

MXFP4 experts, all by vLLM's fused_moe/oracle/mxfp4.py (quantization/mxfp4.py before 0.19): width and
hidden size rounded up (``mxfp4_round_up_hidden_size_and_intermediate_size``), values and scales moved to
the kernel's layout (``convert_to_mxfp4_moe_kernel_format``).

* Hopper runs Triton's (third_party/triton_kernels, in the wheel since 0.12; experts without biases run
  Marlin's since 0.20). Its layouts pad once more (tensor_details/layout_details/hopper_value.py,
  hopper_scale.py: rows of scales to 256, values to tiles of 64 in triton_kernels 3.6, which 0.17 to 0.21
  carry, else of 16 x 32), and before 0.25 the scales as loaded stay beside them.
* Blackwell's server cards run TensorRT-LLM's, every other NVIDIA card Marlin's.
* AMD cards take 128, since 0.19 256 (some generations from 0.12 on).

On AMD cards rows of a multiple of 512 bytes are moved 256 bytes apart (VLLM_ROCM_MOE_PADDING for 16-bit
experts, undone again since 0.30: fused_moe/unquantized_fused_moe_method.py; VLLM_ROCM_FP8_PADDING for
8-bit linear layers: quantization/utils/fp8_utils.py).
"""

from collections.abc import Iterable
from functools import lru_cache

from kvplan.device import Device
from kvplan.engines.vllm.attention import BLACKWELL, HOPPER, generation
from kvplan.engines.vllm.versions import V1_GENERATION
from kvplan.frozen import dataclass
from kvplan.layers import LayerGroup
from kvplan.tensors import Tensor
from kvplan.units import ceil_div, round_up

TRITON_SINCE, TRITON_BIASED_ONLY_SINCE = (0, 12), (0, 20)
TILES_OF_64 = ((0, 17), (0, 22))
SCALES_DROPPED_SINCE = (0, 25)
NARROW_TENSORRT_SINCE = (0, 27)
AMD_TABLE_SINCE, AMD_WIDE_SINCE = (0, 12), (0, 19)
AMD_EXPERTS_UNDONE_SINCE = (0, 30)
AMD_ROW_MULTIPLE, AMD_ROW_PADDING = 512, 256
VALUES_A_BYTE, VALUES_A_SCALE = 2, 32
HOPPER_SCALE_ROWS, HOPPER_SCALE_COLUMNS = 256, 2


@dataclass(frozen=True, slots=True)
class ExpertLayout:
    """What MXFP4 experts are padded to: multiples, in elements but for ``value_columns``, in bytes.

    ``keeps_scales`` tells whether the scales as loaded stay; ``bias_bytes`` is an element of a bias.
    """

    width: int
    hidden: int
    bias_bytes: int = 2
    value_rows: int = 1
    value_columns: int = 1
    scale_rows: int = 1
    scale_columns: int = 1
    keeps_scales: bool = False


MARLIN = ExpertLayout(width=128, hidden=256)


@lru_cache(maxsize=512)
def kernels_of(device: Device) -> str:
    """Return a card's class of kernels; empty if unknown.

    ``hopper``, ``blackwell`` (server cards), ``amd``, ``turing`` (and older, which ran the V0 engine for
    longer), ``marlin`` for every other NVIDIA card.
    """
    if device.vendor == "amd":
        return "amd"
    major = generation(device.compute_capability)
    if major in (HOPPER, BLACKWELL):
        return "hopper" if major == HOPPER else "blackwell"
    if not major:
        return ""
    return "marlin" if major >= V1_GENERATION else "turing"


@lru_cache(maxsize=512)
def expert_layouts(kernels: str, version: tuple[int, int], *, biased: bool) -> tuple[ExpertLayout, ...]:
    """Return the layouts that MXFP4 experts may have, the expected one first.

    ``biased`` tells experts with biases (gpt-oss) from those without.
    """
    is_triton = biased or version < TRITON_BIASED_ONLY_SINCE
    tile = 64 if TILES_OF_64[0] <= version < TILES_OF_64[1] else 0
    triton = ExpertLayout(
        width=64,
        hidden=1,
        bias_bytes=4,
        value_rows=tile or 16,
        value_columns=tile or 32,
        scale_rows=HOPPER_SCALE_ROWS,
        scale_columns=HOPPER_SCALE_COLUMNS,
        keeps_scales=version < SCALES_DROPPED_SINCE,
    )
    tensorrt = ExpertLayout(128 if version >= NARROW_TENSORRT_SINCE else 256, 256, bias_bytes=4)
    if kernels == "hopper":
        if not is_triton:
            return (MARLIN,)
        # Before, Triton's kernels came with the container or not at all.
        return (triton,) if version >= TRITON_SINCE else (MARLIN, triton)
    if kernels == "blackwell":
        return (tensorrt,)
    if kernels == "amd":
        narrow, wide = (ExpertLayout(each, each, bias_bytes=4) for each in (128, 256))
        if version >= AMD_WIDE_SINCE:
            return (wide,)
        return (narrow, wide) if version >= AMD_TABLE_SINCE else (narrow,)
    return (MARLIN,) if kernels else (MARLIN, triton, tensorrt)


def mxfp4_experts(
    groups: Iterable[LayerGroup], tensor_ranks: int, expert_ranks: int, layout: ExpertLayout
) -> list[tuple[int, int]]:
    """Return (bytes, how often) of the tensors that a rank keeps its experts in."""
    kept: list[tuple[int, int]] = []
    for group in groups:
        experts = [part for part in group.layer.tensors if part.role == "expert"]
        outer = [part for part in experts if part.split == "out" and len(part.shape) == 2]
        inner = [part for part in experts if part.split == "in" and len(part.shape) == 2]
        if not outer or not inner:
            continue
        hidden, width = inner[0].shape
        count = ceil_div(inner[0].count, expert_ranks) if expert_ranks > 1 else inner[0].count
        width = round_up(ceil_div(width, 1 if expert_ranks > 1 else tensor_ranks), layout.width)
        hidden = round_up(hidden, layout.hidden)
        rows = width * sum(part.shape[0] for part in outer) // inner[0].shape[1]
        sizes = [*_matrix(rows, hidden, layout), *_matrix(hidden, width, layout)]
        if is_biased(group.layer.tensors):
            sizes += [rows * layout.bias_bytes, hidden * layout.bias_bytes]
        kept += [(count * size, group.count) for size in sizes]
    return kept


def _matrix(rows: int, columns: int, layout: ExpertLayout) -> list[int]:
    """Return the bytes of one expert's values and scales, and of the scales as loaded if they stay."""
    values = round_up(rows, layout.value_rows) * round_up(columns // VALUES_A_BYTE, layout.value_columns)
    num_scales = columns // VALUES_A_SCALE
    scales = round_up(rows, layout.scale_rows) * round_up(num_scales, layout.scale_columns)
    return [values, scales, rows * num_scales] if layout.keeps_scales else [values, scales]


def is_biased(tensors: Iterable[Tensor]) -> bool:
    """Tell whether the experts among ``tensors`` have biases."""
    return any(part.role == "expert" and part.name.endswith("bias") for part in tensors)


def amd_row_padding(
    held: Iterable[tuple[Tensor, int, int]], family: str, tensor_ranks: int, version: tuple[int, int]
) -> int:
    """Return what moving rows apart adds on an AMD card: to 16-bit experts or 8-bit linear layers."""
    width = {"plain": 2, "fp8": 1}.get(family, 0)
    if not width or (family == "plain" and version >= AMD_EXPERTS_UNDONE_SINCE):
        return 0
    amount = 0
    for part, each, times in held:
        packed = part.role == "expert" if family == "plain" else part.role in ("attention", "mlp")
        if not packed or len(part.shape) != 2:
            continue
        columns = part.shape[1] // (tensor_ranks if part.split == "in" else 1)
        row_bytes = columns * width
        if row_bytes and row_bytes % AMD_ROW_MULTIPLE == 0:
            amount += each // row_bytes * AMD_ROW_PADDING * times
    return amount
