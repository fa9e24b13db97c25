"""The bundled models: strict files, one name each, an index in step."""

import json

import pytest

from kvplan.errors import InputError, InvalidSpec
from kvplan.model import num_parameters
from kvplan.sources import open_model
from kvplan.sources.catalog import build_index, entries, find, known_names, model_from_spec_file, specs_folder

ASKED_FOR = [
    "llama-2-7b", "llama-3-8b", "llama-3-70b", "llama-3.1-405b", "llama-3.2-1b", "llama-3.3-70b",
    "mistral-7b-v0.1", "mistral-7b-v0.3", "mixtral-8x7b", "mixtral-8x22b", "mistral-nemo",
    "mistral-large-2407", "qwen2.5-0.5b", "qwen2.5-7b", "qwen2.5-72b", "qwen3-0.6b", "qwen3-32b",
    "qwen3-30b-a3b", "qwen3-235b-a22b", "gemma-2-2b", "gemma-2-27b", "gemma-3-4b", "gemma-3-27b",
    "phi-3-mini-4k", "phi-4", "deepseek-v2-lite", "deepseek-v3", "deepseek-r1", "gpt-oss-20b",
    "gpt-oss-120b", "glm-4.5", "kimi-k2",
]  # fmt: skip


def test_the_models_people_ask_for_are_there():
    assert len(list(entries())) >= 40
    for name in ASKED_FOR:
        assert find(name) is not None, name


@pytest.mark.parametrize(
    ("alias", "model"),
    [
        ("llama3:70b", "llama-3-70b"),
        ("meta-llama/Meta-Llama-3-70B-Instruct", "llama-3-70b"),
        ("LLAMA-3-70B", "llama-3-70b"),
        ("qwen3:8b", "qwen3-8b"),
        ("gemma3:27b", "gemma-3-27b"),
        ("openai/gpt-oss-120b", "gpt-oss-120b"),
        ("deepseek-ai/DeepSeek-V3", "deepseek-v3"),
        ("mixtral", "mixtral-8x7b"),
    ],
)
def test_aliases(alias, model):
    assert open_model(alias).name == model


def test_the_index_is_in_step_with_the_files():
    folder = specs_folder()
    assert (folder / "index.jsonl").read_text(encoding="utf-8") == build_index(folder)


def test_every_bundled_model_builds_and_has_its_source():
    for spec in entries():
        model = find(spec["id"])
        assert model is not None
        assert num_parameters(model.structure) > 0
        assert model.source
        if spec.get("published_total") and not spec.get("published_relation"):
            assert num_parameters(model.structure) == spec["published_total"], spec["id"]


def test_every_name_is_known_once():
    names = known_names()
    assert len(names) == len(set(names))


GOOD = {"id": "mine", "source": "me", "config": {"model_type": "llama", "hidden_size": 64}}


@pytest.mark.parametrize(
    ("change", "token"),
    [
        ({"alias": ["x"]}, "aliases"),
        ({"id": 5}, "id"),
        ({"config": None}, "config"),
        ({"config": "llama"}, "config"),
        ({"published_total": "many"}, "published_total"),
        ({"source": ...}, "source"),
    ],
)
def test_a_wrong_spec_names_the_key(tmp_path, change, token):
    data = {key: value for key, value in {**GOOD, **change}.items() if value is not ...}
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps(data))
    with pytest.raises(InvalidSpec) as error:
        model_from_spec_file(path)
    assert token in f"{error.value.message} {error.value.why}"
    assert str(path) in error.value.message


@pytest.mark.parametrize(
    "text",
    [
        "[" * 5_000_000,
        "- " * 1_000_000,
        "a: " + "{a: " * 1000,
        "a: &x [1]\nb: [" + "*x, " * 5000 + "]",
        "id: [unclosed",
        "\t- tab",
        "",
        "42",
        "x" * (5 * 2**20),
    ],
    ids=["brackets", "dashes", "braces", "aliases", "unclosed", "tab", "empty", "number", "large"],
)
def test_hostile_yaml_is_refused(tmp_path, text):
    path = tmp_path / "bomb.yaml"
    path.write_text(text)
    with pytest.raises(InvalidSpec):
        model_from_spec_file(path)


def test_a_users_own_folder(tmp_path, monkeypatch):
    spec = next(entry for entry in entries() if entry["id"] == "llama-3-8b")
    (tmp_path / "my-llama.yaml").write_text(json.dumps({**spec, "id": "my-llama"}))
    monkeypatch.setenv("KVPLAN_SPECS", str(tmp_path))
    assert open_model("my-llama").name == "my-llama"
    monkeypatch.setenv("KVPLAN_SPECS", str(tmp_path / "gone"))
    with pytest.raises(InputError):
        open_model("my-llama")


def test_two_specs_cannot_share_a_name(tmp_path):
    spec = next(entry for entry in entries() if entry["id"] == "llama-3-8b")
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(
            json.dumps({**spec, "id": name, "aliases": ["same"], "repo": name})
        )
    with pytest.raises(InputError, match="another spec's name"):
        build_index(tmp_path)


@pytest.mark.parametrize("name", ["qwen3-next-80b-a3b", "gemma-3-4b", "kimi-k2.5", "llama-3.2-11b-vision"])
def test_a_spec_can_be_written_from_any_model(tmp_path, kvplan, name):
    code, written, _ = kvplan("show", name, "--format", "yaml")
    assert code == 0
    path = tmp_path / "spec.yaml"
    path.write_text(written, encoding="utf-8")
    again = model_from_spec_file(path)
    model = open_model(name)
    assert num_parameters(again.structure) == num_parameters(model.structure)
    assert again.layers == model.layers
    assert again.quantization == model.quantization
    assert again.published_total == model.published_total
