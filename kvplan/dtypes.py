"""Number types: torch's, and GGML's blocks with their scales.

GGML's are llama.cpp's, ggml/src/ggml-common.h; sizes as gguf-py 0.19's GGML_QUANT_SIZES.
"""

from kvplan.frozen import dataclass
from kvplan.units import ceil_div


@dataclass(frozen=True, slots=True)
class BlockType:
    """``block_size`` elements stored in ``block_bytes`` bytes."""

    name: str
    block_size: int
    block_bytes: int

    def row_bytes(self, num_elements: int) -> int:
        """Return the bytes of a row of ``num_elements`` (a part block counts whole)."""
        return ceil_div(num_elements, self.block_size) * self.block_bytes


GGML_TYPES: dict[str, BlockType] = {
    block.name: block
    for block in (
        BlockType("f32", 1, 4),
        BlockType("f16", 1, 2),
        BlockType("bf16", 1, 2),
        BlockType("q4_0", 32, 18),
        BlockType("q4_1", 32, 20),
        BlockType("q5_0", 32, 22),
        BlockType("q5_1", 32, 24),
        BlockType("q8_0", 32, 34),
        BlockType("q2_k", 256, 84),
        BlockType("q3_k", 256, 110),
        BlockType("q4_k", 256, 144),
        BlockType("q5_k", 256, 176),
        BlockType("q6_k", 256, 210),
        BlockType("q8_k", 256, 292),
        BlockType("iq1_s", 256, 50),
        BlockType("iq1_m", 256, 56),
        BlockType("iq2_xxs", 256, 66),
        BlockType("iq2_xs", 256, 74),
        BlockType("iq2_s", 256, 82),
        BlockType("iq3_xxs", 256, 98),
        BlockType("iq3_s", 256, 110),
        BlockType("iq4_nl", 32, 18),
        BlockType("iq4_xs", 256, 136),
        BlockType("tq1_0", 256, 54),
        BlockType("tq2_0", 256, 66),
        BlockType("mxfp4", 32, 17),
        BlockType("nvfp4", 64, 36),
        BlockType("q1_0", 128, 18),
        BlockType("i8", 1, 1),
        BlockType("i16", 1, 2),
        BlockType("i32", 1, 4),
        BlockType("i64", 1, 8),
        BlockType("f64", 1, 8),
    )
}

DTYPE_BYTES: dict[str, int] = {
    "float64": 8,
    "float32": 4,
    "bfloat16": 2,
    "float16": 2,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "int8": 1,
    "uint8": 1,
}
"""Bytes of the dtypes that config.json's ``torch_dtype`` names."""

_TORCH_NAMES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


def format_of_dtype(torch_dtype: str) -> str:
    """Return the weight format of a config's ``torch_dtype`` (``bfloat16`` -> ``bf16``)."""
    return _TORCH_NAMES.get(torch_dtype.removeprefix("torch."), torch_dtype)
