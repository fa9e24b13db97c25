"""GGUF headers of real shapes give the bytes that llama.cpp gives their models."""

import pytest
from oracle_tables import oracle
from sources.gguf_files import F16, F32, gguf_bytes
from sources.gguf_shapes import SHAPED, full_tensors

from kvplan.engines.llama_cpp.placement import place
from kvplan.engines.llama_cpp.settings import settings_of
from kvplan.errors import UnsupportedArchitecture
from kvplan.gguf.mix import mix_bytes
from kvplan.sources import open_model
from kvplan.workload import Workload

KEYS = {row["model"]: row for row in oracle("gguf_keys.jsonl")}
TABLES = {table["model"]: table for table in oracle("llama_cpp_placement.jsonl")}
SIZES = {row["model"]: row["bytes"] for row in oracle("gguf_mixes.jsonl")}


def metadata(row):
    arch = row["arch"]
    head = {"general.architecture": arch, "general.name": row["model"], "general.file_type": 1}
    return head | {f"{arch}.{key}": value for key, value in row["hparams"].items()}


def outside(row):
    hidden, vocab = row["hparams"]["embedding_length"], row["hparams"]["vocab_size"]
    tensors = [("token_embd.weight", (hidden, vocab), F16)]
    if not row["tied"]:
        tensors.append(("output.weight", (hidden, vocab), F16))
    if row["rope_freqs"]:
        tensors.append(("rope_freqs.weight", (row["rope_freqs"],), F32))
    return tensors


def opened(folder, row, tensors):
    path = folder / "model.gguf"
    path.write_bytes(gguf_bytes(metadata(row), tensors))
    return open_model(str(path))


def assert_rows_hold(model, table):
    for values in table["rows"]:
        row = dict(zip(table["columns"], values, strict=True))
        options = {
            "parallel": row["n_parallel"],
            "n_ubatch": row["n_ubatch"],
            "flash_attn": row["flash_attn"],
            "kv_unified": bool(row["kv_unified"]),
            "swa_full": bool(row["swa_full"]),
            "n_gpu_layers": str(row["n_gpu_layers"]),
            "cpu_moe": bool(row["cpu_moe"]),
            "no_kv_offload": not row["kv_offload"],
            "ctx_size": row["n_ctx"],
        }
        workload = Workload(engine_options=tuple(options.items()))
        settings = settings_of(workload, row["n_ctx"], row["type_k"], row["type_v"])
        shares = (1,) * row["num_gpus"]
        if row["tensor_split"]:
            shares = tuple(int(part) for part in row["tensor_split"].split(","))
        if row["split_mode"] == "none" and shares:
            shares = (1, *(0,) * (len(shares) - 1))
        placed = place(model, row["mix"], settings, shares, "cuda")
        everywhere = (*placed.devices, placed.host)
        assert [held.cache_bytes + held.state_bytes for held in everywhere] == row["cache"], row
        assert [held.weight_bytes for held in everywhere] == row["weights"], row


@pytest.mark.parametrize("name", KEYS)
def test_keys_alone_give_the_engines_bytes(name, tmp_path):
    row = KEYS[name]
    model = opened(tmp_path, row, outside(row))
    assert model.assumptions
    assert_rows_hold(model, TABLES[name])


@pytest.mark.parametrize("name", [name for name, row in KEYS.items() if row["arch"] in SHAPED])
def test_a_whole_header_gives_the_files_bytes_and_other_mixes(name, tmp_path):
    row = KEYS[name]
    model = opened(tmp_path, row, [*outside(row), *full_tensors(row["arch"], row["hparams"])])
    assert not model.assumptions
    assert sum(tensor.num_bytes for tensor in model.stored) == SIZES[name]["gguf-f16"]
    for mix, num_bytes in SIZES[name].items():
        assert mix_bytes(model, mix).total_bytes == num_bytes, mix
    assert_rows_hold(model, TABLES[name])


@pytest.mark.parametrize(
    ("arch", "keys", "blocks", "says"),
    [
        ("t5", {}, ("enc.blk.0.attn_q.weight", "dec.blk.0.attn_q.weight"), "'t5'"),
        ("nanbeige", {"num_loops": 2}, ("blk.0.attn_q.weight",), "run 2 times over"),
    ],
)
def test_layers_that_are_not_read_are_refused(arch, keys, blocks, says, tmp_path):
    hidden = 64
    counts = {"block_count": 1, "embedding_length": hidden, "attention.head_count": 1, "context_length": 512}
    head = {f"{arch}.{key}": value for key, value in (counts | keys).items()}
    tensors = [("token_embd.weight", (hidden, 512), F16)]
    tensors += [(name, (hidden, hidden), F16) for name in blocks]
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_bytes({"general.architecture": arch, "general.file_type": 1} | head, tensors))
    with pytest.raises(UnsupportedArchitecture, match=says):
        open_model(str(path))
