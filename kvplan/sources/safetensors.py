"""A safetensors file's header: every tensor's name, type, shape and bytes, without a weight.

The format (huggingface/safetensors, README "Format"): eight bytes of length, little-endian, then
that much JSON; ``data_offsets`` count from its end. Lengths are checked before they are believed,
and a tensor's bytes against its shape.
"""

import json
from collections.abc import Mapping
from math import prod
from typing import TypeGuard

from kvplan.errors import UnsupportedArchitecture
from kvplan.model import StoredTensor
from kvplan.sources.headers import ByteSource, Front, invalid_header

# The format's own limit (safetensors tensor.rs MAX_HEADER_SIZE).
MAX_HEADER_BYTES = 100_000_000
# Nine headers in ten are shorter.
BLOCK_BYTES = 128 * 1024
MAX_TENSORS = 1_000_000
MAX_DIMENSIONS = 16
MAX_ELEMENTS = 2**60

DTYPE_BITS: dict[str, int] = {
    "BOOL": 8,
    "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32,
    "U64": 64, "I64": 64, "F64": 64, "C64": 64,
    "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip


def read_safetensors(
    source: ByteSource, origin: str, file_bytes: int | None = None
) -> tuple[StoredTensor, ...]:
    """Return the tensors of one file, in the order of their bytes; ``file_bytes`` is its size, if known.

    Raises InvalidSpec for a header that is cut short, lies about lengths or is no JSON, and
    UnsupportedArchitecture for a number format that is not known.
    """
    front = Front(source, origin, MAX_HEADER_BYTES + 8, BLOCK_BYTES)
    length = int.from_bytes(front.take(8), "little")
    if not 2 <= length <= MAX_HEADER_BYTES:
        raise invalid_header(
            origin, f"claims a header of {length:,} bytes", f"safetensors allows {MAX_HEADER_BYTES:,}"
        )
    try:
        header = json.loads(front.take(length))
    except (ValueError, RecursionError) as error:
        raise invalid_header(origin, "its header is not JSON", type(error).__name__) from None
    if not isinstance(header, dict) or len(header) > MAX_TENSORS:
        raise invalid_header(origin, "its header is not a table of tensors", "it should be a JSON object")
    tensors = [
        (_start(entry), _tensor(name, entry, origin))
        for name, entry in header.items()
        if name != "__metadata__"
    ]
    tensors.sort(key=lambda pair: pair[0])
    _check_places(tensors, origin, None if file_bytes is None else file_bytes - 8 - length)
    return tuple(tensor for _, tensor in tensors)


def _check_places(tensors: list[tuple[int, StoredTensor]], origin: str, data_bytes: int | None) -> None:
    """Refuse tensors that overlap, leave holes or lie beyond the file: the format allows none of it."""
    end = 0
    for start, tensor in tensors:
        if start != end:
            raise invalid_header(
                origin,
                f"'{tensor.name[:80]}' starts at byte {start:,}, not {end:,}",
                "tensors follow each other",
            )
        end = start + tensor.num_bytes
    if data_bytes is not None and end > data_bytes:
        raise invalid_header(
            origin,
            f"its tensors need {end:,} bytes, and {max(0, data_bytes):,} are there",
            "an incomplete download",
        )


def _start(entry: object) -> int:
    offsets = entry.get("data_offsets") if isinstance(entry, Mapping) else None
    first = offsets[0] if isinstance(offsets, list) and offsets else 0
    return first if isinstance(first, int) else 0


def _tensor(name: str, entry: object, origin: str) -> StoredTensor:
    if not isinstance(entry, Mapping):
        raise invalid_header(origin, f"'{name[:80]}' is no tensor", "it lacks dtype, shape and data_offsets")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or not _are_counts(shape, MAX_DIMENSIONS) or not _are_counts(offsets, 2):
        raise invalid_header(origin, f"'{name[:80]}' is no tensor", "its dtype, shape or data_offsets is off")
    bits = DTYPE_BITS.get(dtype)
    if bits is None:
        raise UnsupportedArchitecture(
            f"{origin}: '{name[:80]}' is stored as {dtype[:20]}, which is not known",
            why="its bytes could be counted, but not what they become in memory",
            hint="name the model's config.json and its format: --weights …",
        )
    start, end = offsets
    num_bytes = end - start
    if prod(shape) > MAX_ELEMENTS or (prod(shape) * bits + 7) // 8 != num_bytes:
        raise invalid_header(
            origin,
            f"'{name[:80]}' claims {num_bytes:,} bytes for {'×'.join(map(str, shape))} of {dtype}",
            "shape and bytes contradict each other",
        )
    return StoredTensor(name, dtype, tuple(shape), num_bytes)


def _are_counts(values: object, at_most: int) -> TypeGuard[list[int]]:
    return (
        isinstance(values, list)
        and len(values) <= at_most
        and (at_most != 2 or len(values) == 2)
        and all(isinstance(value, int) and not isinstance(value, bool) and value >= 0 for value in values)
    )
