"""Files of a hundred gigabytes are planned from their headers; broken and hostile ones fail cleanly."""

import struct
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle_tables import oracle
from sources.gguf_files import F16, gguf_bytes, llama_gguf
from sources.gguf_shapes import full_tensors

from kvplan.errors import KvplanError
from kvplan.sources import open_model
from kvplan.sources.gguf import read_gguf

FILE_BYTES = 100 * 10**9
ROW = next(row for row in oracle("gguf_keys.jsonl") if row["model"] == "qwen3-next-80b-a3b")


def header():
    arch, keys = ROW["arch"], ROW["hparams"]
    metadata = {"general.architecture": arch, "general.file_type": 1}
    metadata |= {f"{arch}.{key}": value for key, value in keys.items()}
    metadata["tokenizer.ggml.tokens"] = [f"token {index}" for index in range(keys["vocab_size"])]
    hidden, vocab = keys["embedding_length"], keys["vocab_size"]
    outside = [("token_embd.weight", (hidden, vocab), F16), ("output.weight", (hidden, vocab), F16)]
    return gguf_bytes(metadata, [*outside, *full_tensors(arch, keys)])


class Sparse:
    """A file of FILE_BYTES of which only the front holds anything."""

    etag = "0" * 40

    def __init__(self, front):
        self.front = front

    def __len__(self):
        return FILE_BYTES

    def __getitem__(self, part):
        size = max(0, min(part.stop, FILE_BYTES) - part.start)
        return self.front[part.start : part.start + size].ljust(size, b"\0")


def test_a_large_file_behind_a_slow_server_is_planned_from_its_header(hub):
    front = header()
    hub.repos["org/large-GGUF"] = {"large-F16.gguf": Sparse(front)}
    hub.seconds_a_request = 0.2
    model = open_model("org/large-GGUF/large-F16.gguf")
    assert sum(tensor.num_bytes for tensor in model.stored) > FILE_BYTES
    assert hub.bytes_sent("large-F16.gguf") <= len(front) + 2**20
    assert len(hub.requests) <= 16


def test_a_large_sparse_file_on_disk_is_opened_at_once(tmp_path):
    path = tmp_path / "large.gguf"
    with path.open("wb") as file:
        file.write(header())
        file.truncate(FILE_BYTES)
    start = time.process_time()
    model = open_model(str(path))
    assert time.process_time() - start < 5
    assert len(model.layers) > 1
    assert not model.notes


TINY = gguf_bytes(*llama_gguf())


@settings(max_examples=150)
@given(st.data())
def test_a_damaged_header_is_read_or_refused_but_never_crashes(data):
    damaged = bytearray(TINY)
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, 600) | st.integers(len(TINY) - 2000, len(TINY) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from((len(damaged), len(damaged) // 2, 30, 3)))
    content = bytes(damaged[:cut])
    try:
        found = read_gguf(lambda offset, size: content[offset : offset + size], "damaged.gguf")
    except KvplanError as error:
        assert "damaged.gguf" in error.message
        assert error.exit_code in (2, 3)
    else:
        assert all(tensor.num_bytes >= 0 for tensor in found.tensors)


def start(num_tensors, num_keys):
    return b"GGUF" + struct.pack("<IQQ", 3, num_tensors, num_keys)


KEY = struct.pack("<Q", 1) + b"a"
HOSTILE = {
    "counts without end": start(2**63, 2**63),
    "a key without end": start(0, 1) + struct.pack("<Q", 2**62),
    "an array without end": start(0, 1) + KEY + struct.pack("<IIQ", 9, 8, 2**60),
    "arrays in arrays": start(0, 1) + KEY + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 1000,
    "a tensor of many dimensions": start(1, 0) + KEY + struct.pack("<I", 2**31),
    "a tensor larger than all": start(1, 0) + KEY + struct.pack("<I4QIQ", 4, *(2**40,) * 4, 0, 0),
    "nothing": b"",
    "another format": b"PK\x03\x04" + b"\0" * 64,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_headers_are_refused(name, tmp_path):
    path = tmp_path / "hostile.gguf"
    path.write_bytes(HOSTILE[name])
    with pytest.raises(KvplanError) as caught:
        open_model(str(path))
    assert caught.value.exit_code == 2
    assert caught.value.why
    assert caught.value.hint
