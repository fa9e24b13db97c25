"""Whatever bytes a header is made of: a model, or an error, soon and in little memory."""

import json
import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sources.gguf_files import gguf_bytes, llama_gguf, safetensors_bytes, text

from kvplan.errors import InvalidSpec, KvplanError
from kvplan.sources import open_model
from kvplan.sources.gguf import read_gguf
from kvplan.sources.safetensors import read_safetensors

GGUF = gguf_bytes(*llama_gguf(num_layers=1, vocab=64))
SAFETENSORS = safetensors_bytes([("a", "BF16", (4, 8)), ("b", "F32", (16,)), ("c", "U8", (3,))])
HUGE = (2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1)


def source_of(data):
    return lambda offset, size: data[offset : offset + size]


@st.composite
def damaged(draw, data):
    """Flip, cut and insert bytes, and put hostile counts over whatever stands there."""
    data = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.integers(0, 3)):
            case 0:
                data[place : place + 1] = bytes([draw(st.integers(0, 255))])
            case 1:
                del data[place:]
            case 2:
                data[place:place] = draw(st.binary(max_size=16))
            case _:
                data[place : place + 8] = struct.pack("<Q", draw(st.sampled_from(HUGE)))
    return bytes(data)


def reads_or_refuses(read, data):
    tracemalloc.start()
    try:
        read(source_of(data), "damaged")
    except KvplanError as error:
        assert error.message
        assert error.hint
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 16 * 2**20


@given(damaged(GGUF))
def test_damaged_gguf_headers(data):
    reads_or_refuses(read_gguf, data)


@given(damaged(SAFETENSORS))
def test_damaged_safetensors_headers(data):
    reads_or_refuses(read_safetensors, data)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_header(data):
    reads_or_refuses(read_gguf, b"GGUF" + data)
    reads_or_refuses(read_safetensors, struct.pack("<Q", len(data)) + data)


def gguf_with(*, num_tensors=0, num_keys=0, body=b""):
    return b"GGUF" + struct.pack("<IQQ", 3, num_tensors, num_keys) + body


@pytest.mark.parametrize(
    "data",
    [
        gguf_with(num_tensors=2**63),
        gguf_with(num_keys=2**63),
        gguf_with(num_keys=1, body=struct.pack("<Q", 2**60)),
        gguf_with(num_keys=1, body=text("k") + struct.pack("<IQ", 8, 2**60)),
        gguf_with(num_keys=1, body=text("k") + struct.pack("<IIQ", 9, 4, 2**61)),
        gguf_with(num_keys=1, body=text("k") + struct.pack("<IIQ", 9, 9, 1) * 1000),
        gguf_with(num_keys=1, body=text("k") + struct.pack("<IIQ", 9, 8, 2**27)),
        gguf_with(num_tensors=1, body=text("t") + struct.pack("<I", 2**31)),
        gguf_with(num_tensors=1, body=text("t") + struct.pack("<IQQIQ", 2, 2**40, 2**40, 0, 0)),
        gguf_with(num_tensors=1, body=text("t") + struct.pack("<IQIQ", 1, 32, 0, 2**63)),
        b"FUGG" + struct.pack(">IQQ", 3, 0, 0),
        b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
    ],
    ids=[
        "tensors",
        "keys",
        "key-length",
        "string",
        "array",
        "nested-arrays",
        "strings",
        "dimensions",
        "elements",
        "offset",
        "magic",
        "big-endian",
    ],
)
def test_gguf_counts_beyond_belief(data):
    with pytest.raises(InvalidSpec):
        read_gguf(source_of(data), "hostile")
    reads_or_refuses(read_gguf, data)


def header(table):
    data = (table if isinstance(table, str) else json.dumps(table)).encode()
    return struct.pack("<Q", len(data)) + data


def tensor(start, end, shape=(2,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (struct.pack("<Q", 2**63), "claims"),
        (header("[" * 50_000), "not JSON"),
        (header('{"a":' * 20_000), "not JSON"),
        (header({"a": tensor(0, 8), "b": tensor(4, 12)}), "starts at byte"),
        (header({"a": tensor(8, 16)}), "starts at byte"),
        (header({"a": tensor(0, 2**63, (2**61,))}), "claims"),
        (header({"a": tensor(0, 8, (2**63, 2))}), "claims"),
        (header({"a": tensor(0, 8, (1,) * 1000)}), "is no tensor"),
        (header({"a": tensor(-8, 0)}), "is no tensor"),
        (header({"a": {"dtype": "F32"}}), "is no tensor"),
        (header({"a": 1}), "is no tensor"),
    ],
)
def test_safetensors_headers_that_contradict_themselves(data, match):
    with pytest.raises(InvalidSpec, match=match):
        read_safetensors(source_of(data), "hostile")


def test_a_file_shorter_than_its_header_says(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    file = tmp_path / "model.safetensors"
    file.write_bytes(SAFETENSORS[:-4])
    with pytest.raises(InvalidSpec, match="are there"):
        open_model(str(file))
