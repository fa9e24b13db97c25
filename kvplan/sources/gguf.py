"""A GGUF file's header: its metadata and its table of tensors, without a weight.

The format: ggml docs/gguf.md, versions 2 and 3, little-endian. Counts and lengths are bounded before
they are believed; long arrays (a tokenizer's vocabulary) are stepped over, only their length is
kept. A model split over files (``name-00001-of-00003.gguf``) is read file by file.
"""

import re
import struct
from collections.abc import Iterable
from math import prod

from kvplan.dtypes import GGML_TYPES
from kvplan.errors import UnsupportedArchitecture
from kvplan.frozen import dataclass
from kvplan.model import StoredTensor
from kvplan.sources.headers import ByteSource, Front, invalid_header

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_HEADER_BYTES = 256 * 1024**2
MAX_KEYS = 65_536
MAX_TENSORS = 1 << 18
MAX_NAME_BYTES = 65_535
MAX_TENSOR_NAME_BYTES = 1024
MAX_ARRAY_KEPT = 4096
MAX_STRING_KEPT = 4096
MAX_DEPTH = 4
MAX_DIMENSIONS = 4
MAX_ELEMENTS = 2**60

STRING, ARRAY = 8, 9
# ggml's gguf.h gguf_type: the fixed-size value types and how struct spells them.
SCALARS: dict[int, str] = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
# ggml.h ggml_type; those that were removed from the format are absent.
TYPE_NAMES: dict[int, str] = {
    0: "f32", 1: "f16", 2: "q4_0", 3: "q4_1", 6: "q5_0", 7: "q5_1", 8: "q8_0",
    10: "q2_k", 11: "q3_k", 12: "q4_k", 13: "q5_k", 14: "q6_k", 15: "q8_k",
    16: "iq2_xxs", 17: "iq2_xs", 18: "iq3_xxs", 19: "iq1_s", 20: "iq4_nl", 21: "iq3_s", 22: "iq2_s",
    23: "iq4_xs", 24: "i8", 25: "i16", 26: "i32", 27: "i64", 28: "f64", 29: "iq1_m", 30: "bf16",
    34: "tq1_0", 35: "tq2_0", 39: "mxfp4", 40: "nvfp4", 41: "q1_0",
}  # fmt: skip
SPLIT_NAME = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf", re.IGNORECASE)

Value = int | float | bool | str | tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Header:
    """One file's header.

    ``lengths`` are the lengths of arrays too long to keep (a vocabulary); ``data_end`` is where the
    last tensor's bytes end, so that a cut file can be told.
    """

    metadata: dict[str, Value]
    lengths: dict[str, int]
    tensors: tuple[StoredTensor, ...]
    data_end: int

    @property
    def num_block_tensors(self) -> int:
        """How many tensors belong to a layer, of an encoder or decoder too."""
        return sum(tensor.name.startswith(("blk.", "enc.blk.", "dec.blk.")) for tensor in self.tensors)


def read_gguf(source: ByteSource, origin: str) -> Header:
    """Read one file's header.

    Raises InvalidSpec for what is no GGUF, is cut short, or claims what cannot be, and
    UnsupportedArchitecture for a block type that is not known.
    """
    front = Front(source, origin, MAX_HEADER_BYTES)
    if front.take(4) != MAGIC:
        raise invalid_header(origin, "not a GGUF file", "it does not begin with GGUF")
    version = _unsigned(front, 4)
    if version not in VERSIONS:
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
        if swapped in VERSIONS:
            raise invalid_header(
                origin, "a big-endian GGUF", "llama.cpp loads those on big-endian machines only"
            )
        raise invalid_header(
            origin, f"GGUF version {version}", "versions 2 and 3 are read; older files need converting again"
        )
    num_tensors, num_keys = _unsigned(front, 8), _unsigned(front, 8)
    if num_tensors > MAX_TENSORS or num_keys > MAX_KEYS:
        raise invalid_header(
            origin, f"claims {num_tensors:,} tensors and {num_keys:,} keys", "no model has that many"
        )
    metadata: dict[str, Value] = {}
    lengths: dict[str, int] = {}
    for _ in range(num_keys):
        key = _text(front, MAX_NAME_BYTES)
        if key in metadata or key in lengths:
            raise invalid_header(origin, f"'{key[:80]}' is there twice", "which one counts is undefined")
        kind = _unsigned(front, 4)
        if kind == ARRAY:
            values, length = _array(front, 1)
            lengths[key] = length
            if values is not None:
                metadata[key] = values
        else:
            metadata[key] = _value(front, kind)
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20 or alignment & (alignment - 1):
        raise invalid_header(origin, "its general.alignment is no power of two", "tensors cannot be found")
    entries = [_tensor(front, origin) for _ in range(num_tensors)]
    names = {tensor.name for tensor, _ in entries}
    if len(names) != len(entries):
        raise invalid_header(origin, "a tensor is there twice", "which one counts is undefined")
    start = -(-front.position // alignment) * alignment
    end = max((start + offset + tensor.num_bytes for tensor, offset in entries), default=start)
    return Header(metadata, lengths, tuple(tensor for tensor, _ in entries), end)


def joined(headers: Iterable[Header], origin: str) -> Header:
    """Return the header of a model split over files: the first one's metadata, everyone's tensors.

    Raises InvalidSpec where the parts are not the parts of one model.
    """
    parts = tuple(headers)
    first = parts[0]
    tensors = tuple(tensor for part in parts for tensor in part.tensors)
    promised = first.metadata.get("split.tensors.count")
    if isinstance(promised, int) and promised != len(tensors):
        raise invalid_header(
            origin, f"{len(tensors)} tensors in its parts, {promised} promised", "a part is of another model"
        )
    return Header(first.metadata, first.lengths, tensors, first.data_end)


def split_names(name: str) -> tuple[str, ...]:
    """Return the file names of all parts of a split model, or the name itself."""
    match = SPLIT_NAME.fullmatch(name)
    if match is None:
        return (name,)
    count = int(match.group(3))
    return tuple(f"{match.group(1)}-{part:05d}-of-{count:05d}.gguf" for part in range(1, count + 1))


def _unsigned(front: Front, size: int) -> int:
    return int.from_bytes(front.take(size), "little")


def _text(front: Front, at_most: int) -> str:
    length = _unsigned(front, 8)
    if length > at_most:
        raise invalid_header(front.origin, f"claims a name of {length:,} bytes", "no name is that long")
    return front.take(length).decode("utf-8", "replace")


def _value(front: Front, kind: int) -> Value:
    if kind == STRING:
        length = _unsigned(front, 8)
        if length <= MAX_STRING_KEPT:
            return front.take(length).decode("utf-8", "replace")
        front.skip(length)
        return ""
    code = SCALARS.get(kind)
    if code is None:
        raise invalid_header(front.origin, f"a value of type {kind}", "GGUF has types 0 to 12")
    value: int | float | bool = struct.unpack("<" + code, front.take(struct.calcsize("<" + code)))[0]
    return value


def _array(front: Front, depth: int) -> tuple[tuple[object, ...] | None, int]:
    """Read an array: its values where it is short, None where it is long, and its length."""
    kind, length = _unsigned(front, 4), _unsigned(front, 8)
    if length > MAX_HEADER_BYTES:
        raise invalid_header(front.origin, f"claims an array of {length:,}", "no header is that long")
    if kind == ARRAY:
        if depth >= MAX_DEPTH or length > MAX_ARRAY_KEPT:
            raise invalid_header(front.origin, "arrays within arrays", "no model's metadata is nested so")
        return tuple(_array(front, depth + 1)[0] for _ in range(length)), length
    if kind == STRING:
        _skip_strings(front, length)
        return None, length
    code = SCALARS.get(kind)
    if code is None:
        raise invalid_header(front.origin, f"an array of type {kind}", "GGUF has types 0 to 12")
    size = struct.calcsize("<" + code)
    if length > MAX_ARRAY_KEPT:
        front.skip(size * length)
        return None, length
    return struct.unpack(f"<{length}{code}", front.take(size * length)), length


def _skip_strings(front: Front, count: int) -> None:
    # A vocabulary has some 100,000 of them: read lengths from the buffer while they lie in it.
    unpack = struct.Struct("<Q").unpack_from
    while count:
        buffer, position = front.buffer, front.position
        last = len(buffer) - 8
        while count and position <= last:
            end = position + 8 + unpack(buffer, position)[0]
            if end > len(buffer):
                break
            position = end
            count -= 1
        front.skip(position - front.position)
        if count:
            front.skip(_unsigned(front, 8))
            count -= 1


def _tensor(front: Front, origin: str) -> tuple[StoredTensor, int]:
    name = _text(front, MAX_TENSOR_NAME_BYTES)
    num_dimensions = _unsigned(front, 4)
    if num_dimensions > MAX_DIMENSIONS:
        raise invalid_header(origin, f"'{name[:80]}' has {num_dimensions:,} dimensions", "GGUF allows four")
    shape = struct.unpack(f"<{num_dimensions}Q", front.take(8 * num_dimensions))
    kind, offset = _unsigned(front, 4), _unsigned(front, 8)
    if prod(shape) > MAX_ELEMENTS or offset > MAX_ELEMENTS:
        raise invalid_header(origin, f"'{name[:80]}' is larger than any tensor", "its shape or place is off")
    block = GGML_TYPES.get(TYPE_NAMES.get(kind, ""))
    if block is None:
        raise UnsupportedArchitecture(
            f"{origin}: '{name[:80]}' is of block type {kind}, which is not known",
            why="its bytes cannot be told from its shape",
            hint="name the original model and a format: org/repo --weights q4_k_m",
        )
    columns = shape[0] if shape else 1
    if columns % block.block_size:
        raise invalid_header(
            origin,
            f"'{name[:80]}' has rows of {columns:,}",
            f"{block.name} packs {block.block_size} at a time",
        )
    num_bytes = columns // block.block_size * block.block_bytes * prod(shape[1:])
    return StoredTensor(name, block.name, shape, num_bytes), offset
