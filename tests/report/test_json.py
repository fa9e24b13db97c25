"""JSON output is valid under the schema that ships, for every command and verdict."""

import json
from importlib.resources import files

import pytest
from jsonschema import Draft202012Validator

SCHEMA = json.loads(files("kvplan.report").joinpath("schema-kvplan-1.json").read_text(encoding="utf-8"))
COMMANDS = [
    ("fit", "llama-3-70b", "--gpu", "48GB", "--ctx", "32k"),
    ("fit", "llama-3-8b", "--gpu", "h100"),
    ("fit", "llama-3-8b", "--gpu", "h100", "--tp", "3"),
    ("fit", "llama-3-8b", "--gpu", "none"),
    ("fit", "deepseek-v3", "--gpu", "8xh200"),
    ("fit", "gemma-3-27b", "--gpu", "48GB", "--engine", "llama.cpp", "--weights", "q4_k_m"),
    ("fit", "qwen3-8b", "--gpu", "24GB", "--engine", "transformers"),
    ("fit", "gpt-oss-20b", "--gpu", "24GB", "--engine", "ideal"),
    ("compare", "llama-3-8b", "qwen3-8b", "--gpu", "24GB", "--ctx", "8k"),
    ("compare", "qwen3-8b", "--gpu", "24GB", "--engine", "vllm", "--engine", "llama.cpp", "--kv", "q8_0"),
    ("find", "qwen", "--gpu", "24GB", "--ctx", "16k", "--min-tokens-per-second", "10"),
    ("sweep", "llama-3-8b", "--gpu", "24GB,h100", "--ctx", "4k..16k", "--kv", "bf16,q8_0"),
    ("capacity", "llama-3-8b", "--sessions", "20", "--ctx", "8k", "--gpu", "l40s", "--prefix", "500"),
    ("capacity", "qwen3-8b", "--gpu", "24GB", "--ctx", "8k", "--mean-in", "300", "--mean-out", "100"),
    ("show", "deepseek-v3"),
    ("show", "gemma-3-4b", "--engine", "llama.cpp"),
    ("list", "models"),
    ("list", "gpus"),
    ("list", "formats"),
    ("list", "engines"),
    ("fit", "nope", "--gpu", "h100"),
]


def test_the_schema_itself_is_valid():
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("words", COMMANDS, ids=[" ".join(words) for words in COMMANDS])
def test_output_is_valid(answer, words):
    code, data = answer(*words)
    Draft202012Validator(SCHEMA).validate(data)
    assert data["exit_code"] == code


def test_schema_command_prints_it(kvplan):
    code, out, _ = kvplan("schema")
    assert code == 0
    assert json.loads(out) == SCHEMA


def test_amounts_are_integers(answer):
    _, data = answer(*COMMANDS[0])

    def walk(value, key=""):
        if isinstance(value, dict):
            for name, item in value.items():
                if name != "speed":  # tokens a second, not bytes
                    walk(item, name)
        elif isinstance(value, list):
            for item in value:
                walk(item, key)
        elif key.endswith("_bytes") or key in ("low", "expected", "high"):
            assert value is None or isinstance(value, int), key

    walk(data)
