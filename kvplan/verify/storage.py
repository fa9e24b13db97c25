"""How number formats lie in memory: the tensors that hold a row of values and its scales.

Written from the formats' own definitions, not from the byte counts that plans use, so that the two
can be held against each other: ggml-common.h's block structs (values, high bits, scales), vLLM 0.33
v1/attention/backends/triton_attn.py (a scale per token and head), OCP MX 1.0 and NVFP4 (a scale per
32 and 16 values), FlashMLA's packed latent rows.
"""

from math import prod

from kvplan.errors import CannotTell
from kvplan.frozen import dataclass

ITEM_BYTES: dict[str, int] = {
    "float32": 4,
    "int64": 8,
    "int32": 4,
    "float16": 2,
    "bfloat16": 2,
    "float8_e4m3fn": 1,
    "int8": 1,
    "uint8": 1,
}


@dataclass(frozen=True, slots=True)
class TensorShape:
    """One tensor to allocate: what it holds, torch's name of its type, its shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """What its elements take."""
        return prod(self.shape) * ITEM_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class Piece:
    """One tensor of a format: ``per_block`` elements of ``dtype`` for every ``block`` values.

    ``block`` 0 is the whole row. A part block counts whole.
    """

    name: str
    dtype: str
    block: int = 1
    per_block: int = 1


def _plain(dtype: str) -> tuple[Piece, ...]:
    return (Piece("values", dtype),)


_HALF_SCALE = Piece("scales", "float16", 32)
_ROW_SCALE = Piece("scales", "float32", 0)

PIECES: dict[str, tuple[Piece, ...]] = {
    "fp32": _plain("float32"),
    "bf16": _plain("bfloat16"),
    "fp16": _plain("float16"),
    "fp8": _plain("float8_e4m3fn"),
    # A scale per token and head; int4 packs two values in a byte.
    "int8": (Piece("values", "int8"), _ROW_SCALE),
    "fp8_per_token_head": (Piece("values", "float8_e4m3fn"), _ROW_SCALE),
    "int4": (Piece("values", "uint8", 2), Piece("scales and zeros", "float16", 0, 2)),
    "nvfp4": (Piece("values", "uint8", 2), Piece("scales", "float8_e4m3fn", 16)),
    "mxfp8": (Piece("values", "float8_e4m3fn", 32, 32), Piece("exponents", "uint8", 32)),
    # ggml: block_q8_0 {half d; int8 qs[32]}, block_q5_1 {half d, m; uint8 qh[4], qs[16]} and so on.
    "q8_0": (Piece("values", "int8", 32, 32), _HALF_SCALE),
    "q5_1": (
        Piece("values", "uint8", 32, 16),
        Piece("high bits", "uint8", 32, 4),
        Piece("scales and minima", "float16", 32, 2),
    ),
    "q5_0": (Piece("values", "uint8", 32, 16), Piece("high bits", "uint8", 32, 4), _HALF_SCALE),
    "q4_1": (Piece("values", "uint8", 32, 16), Piece("scales and minima", "float16", 32, 2)),
    "q4_0": (Piece("values", "uint8", 32, 16), _HALF_SCALE),
    "iq4_nl": (Piece("values", "uint8", 32, 16), _HALF_SCALE),
    # TurboQuant as vLLM packs it: bit planes, a norm for keys, scale and zero for values.
    "turboquant_4bit_key": (Piece("values", "uint8", 2), Piece("norm", "float16", 0)),
    "turboquant_3bit_key": (Piece("values", "uint8", 8, 3), Piece("norm", "float16", 0)),
    "turboquant_4bit_value": (Piece("values", "uint8", 2), Piece("scales and zeros", "float16", 0, 2)),
    "turboquant_3bit_value": (Piece("values", "uint8", 8, 3), Piece("scales and zeros", "float16", 0, 2)),
    # DSA's indexer key: fp8 with one fp32 scale for 128 values.
    "indexer": (Piece("values", "float8_e4m3fn"), Piece("scales", "float32", 128)),
}
ALIASES: dict[str, str] = {
    "f32": "fp32",
    "float32": "fp32",
    "bfloat16": "bf16",
    "f16": "fp16",
    "float16": "fp16",
    "half": "fp16",
    "fp8_e4m3": "fp8",
    "fp8_e4m3fn": "fp8",
    "fp8_e5m2": "fp8",
    "int8_per_token_head": "int8",
    "int4_per_token_head": "int4",
    "fp4": "nvfp4",
}


def rows(name: str, format_name: str, lead: tuple[int, ...], width: int) -> tuple[TensorShape, ...]:
    """Return the tensors that hold ``lead`` rows of ``width`` values in a format; none for empty rows.

    Raises CannotTell for a format whose layout is not written down here.
    """
    pieces = PIECES.get(ALIASES.get(format_name, format_name))
    if pieces is None:
        raise CannotTell(
            f"the layout of {format_name} caches in memory is not known here",
            why=f"known are {', '.join(PIECES)}",
            hint="verify another format, or an engine's own log: kvplan verify --log FILE",
        )
    if not width or not prod(lead):
        return ()
    return tuple(
        TensorShape(
            f"{name} {piece.name}" if len(pieces) > 1 else name,
            piece.dtype,
            (*lead, -(-width // (piece.block or width)) * piece.per_block),
        )
        for piece in pieces
    )
