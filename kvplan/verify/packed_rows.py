"""DeepSeek-V4's packed rows, as vLLM and SGLang both keep them: pages of fp8 latents in whole 576 bytes.

FlashMLA's V4 row of 584 bytes: ``head_dim - 64`` fp8 values, 64 rope values in bf16, seven scales and
a pad byte (SGLang 0.5.23 kernels/ops/attention/dsv4/kv_layout.py; vLLM 0.33 models/deepseek_v4).
"""

from kvplan.units import round_up
from kvplan.verify.storage import TensorShape

ROPE_HEAD_DIM = 64
SCALES_AND_PAD = 8
ALIGNMENT = 576


def packed_pages(name: str, head_dim: int, lead: tuple[int, ...]) -> tuple[TensorShape, ...]:
    """Return pages of packed rows; ``lead`` ends in (pages, rows a page)."""
    latent = head_dim - ROPE_HEAD_DIM
    return aligned(
        name,
        (
            TensorShape(f"{name} latents", "float8_e4m3fn", (*lead, latent)),
            TensorShape(f"{name} rope keys", "bfloat16", (*lead, ROPE_HEAD_DIM)),
            TensorShape(f"{name} scales", "uint8", (*lead, SCALES_AND_PAD)),
        ),
        lead[:-1],
    )


def aligned(
    name: str, tensors: tuple[TensorShape, ...], num_pages: tuple[int, ...]
) -> tuple[TensorShape, ...]:
    """Add what rounds each of ``num_pages`` pages up to whole 576 bytes."""
    pages = 1
    for side in num_pages:
        pages *= side
    page = sum(tensor.num_bytes for tensor in tensors) // pages if pages else 0
    pad = round_up(page, ALIGNMENT) - page
    return (*tensors, TensorShape(f"{name} page padding", "uint8", (*num_pages, pad))) if pad else tensors
