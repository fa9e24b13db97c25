"""GGUF files as oracle tables list them: metadata, and tensors by name, shape, type and layers."""

from math import prod

from kvplan.dtypes import GGML_TYPES
from kvplan.model import StoredTensor
from kvplan.sources.gguf import Header
from kvplan.sources.gguf_model import model_from_gguf

FILE_TYPES = {None: 0, "q8_0": 7, "q4_k_m": 15, "mxfp4_moe": 38}
# Its matrices are fp16 where nothing is said.
IN_HALF = "jina-bert-v2"


def model_of(table):
    """Build the model of the file that a table's metadata and tensors describe."""
    metadata = {
        key: tuple(value) if isinstance(value, list) else value for key, value in table["metadata"].items()
    }
    metadata |= {
        "general.architecture": table["arch"],
        "general.file_type": int(table["arch"] == IN_HALF) or FILE_TYPES[table.get("mix")],
    }
    tensors = tuple(_tensors(table))
    return model_from_gguf(Header(metadata, {}, tensors, 0), name=table["arch"], source="test", origin="test")


def _tensors(table):
    # Name, shape, and where they are not fp32 in all, type and layers.
    for name, shape, *rest in table["tensors"]:
        in_half = table["arch"] == IN_HALF and len(shape) > 1 and name != "token_types.weight"
        dtype = rest[0] if rest else ("f16" if in_half else "f32")
        num_bytes = GGML_TYPES[dtype].row_bytes(shape[0]) * prod(shape[1:])
        for first, last in rest[1] if len(rest) > 1 else [(0, 0)]:
            for layer in range(first, last + 1):
                yield StoredTensor(name.replace("#", str(layer)), dtype, tuple(shape), num_bytes)
