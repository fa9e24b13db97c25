"""Configs from disk and stdin: any folder, any file, or an error that names it."""

import json

import pytest

from kvplan.errors import (
    InputError,
    InvalidSpec,
    KvplanError,
    MissingFact,
    UnknownModel,
    UnsupportedArchitecture,
)
from kvplan.model import num_parameters
from kvplan.sources import open_model
from kvplan.sources.catalog import entries

CONFIG = next(entry["config"] for entry in entries() if entry["id"] == "llama-3-8b")


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "my-model"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(CONFIG))
    return path


def test_a_folder_and_its_file_are_the_same_model(folder):
    for ref in (str(folder), str(folder / "config.json")):
        model = open_model(ref)
        assert model.name == "my-model"
        assert num_parameters(model.structure) == 8_030_261_248


def test_stdin(kvplan):
    code, out, _ = kvplan("show", "-", "--json", stdin=json.dumps(CONFIG))
    assert code == 0
    assert json.loads(out)["parameters"]["total"] == 8_030_261_248


def test_modelopts_own_quantization_file(folder):
    (folder / "hf_quant_config.json").write_text(json.dumps({"quantization": {"quant_algo": "NVFP4"}}))
    assert open_model(str(folder)).weights_format == "nvfp4"


def test_an_unknown_architecture_is_an_answer(tmp_path, kvplan):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**CONFIG, "model_type": "brandnew"}))
    with pytest.raises(UnsupportedArchitecture, match="brandnew"):
        open_model(str(path))
    code, out, _ = kvplan("show", str(path), "--assume", "full-attention", "--json")
    assert code == 0
    assert "upper bound" in json.loads(out)["assumptions"][0]
    assert kvplan("show", str(path))[0] == 3


def test_an_assumed_architecture_is_at_best_tight(tmp_path, kvplan):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**CONFIG, "model_type": "brandnew"}))
    _, out, _ = kvplan("fit", str(path), "--gpu", "h100", "--assume", "full-attention", "--json")
    assert json.loads(out)["verdict"] == "tight"


def test_an_unknown_layer_type_or_quantization_is_an_answer(tmp_path):
    path = tmp_path / "config.json"
    kinds = ["full_attention"] * 31 + ["warp_attention"]
    path.write_text(json.dumps({**CONFIG, "model_type": "qwen2", "layer_types": kinds}))
    with pytest.raises(UnsupportedArchitecture, match="warp_attention"):
        open_model(str(path))
    path.write_text(json.dumps({**CONFIG, "quantization_config": {"quant_method": "magic"}}))
    with pytest.raises(UnsupportedArchitecture, match="magic"):
        open_model(str(path))


def test_a_missing_key_is_named(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({key: value for key, value in CONFIG.items() if key != "hidden_size"}))
    with pytest.raises(MissingFact, match="hidden_size"):
        open_model(str(path))


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "42", '{"a":' * 100_000, "[" * 5_000_000, "\x00\x01", '{"model_type": 3}', "{}"],
    ids=["empty", "open", "list", "null", "number", "deep", "deeper", "binary", "type", "no-keys"],
)
def test_broken_files(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(KvplanError) as error:
        open_model(str(path))
    assert error.value.hint


def test_places_without_a_model(tmp_path):
    with pytest.raises(UnknownModel):
        open_model(str(tmp_path / "gone"))
    with pytest.raises(UnknownModel):
        open_model(str(tmp_path))
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(InvalidSpec):
        open_model(str(tmp_path / "model.gguf"))
    (tmp_path / "latin.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(InputError):
        open_model(str(tmp_path / "latin.json"))
