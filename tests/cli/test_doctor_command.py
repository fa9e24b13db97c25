"""``kvplan doctor``: what a bug report needs."""

import json
from importlib.resources import files

from jsonschema import Draft202012Validator

SCHEMA = json.loads(files("kvplan.report").joinpath("schema-kvplan-1.json").read_text(encoding="utf-8"))


def test_it_says_versions_sources_and_what_is_missing(kvplan, tmp_path):
    (tmp_path / "kvplan.yaml").write_text("gpuu: h100\n")
    code, out, _ = kvplan("doctor", "--json", cwd=tmp_path, env={"PATH": "/nowhere", "HF_HUB_OFFLINE": "1"})
    data = json.loads(out)
    Draft202012Validator(SCHEMA).validate(data)
    found = {(item["topic"], item["name"]): item for item in data["findings"]}
    assert code == 0
    assert found["version", "kvplan"]["value"] == data["kvplan"]
    assert found["source", "model specs"]["ok"]
    assert not found["source", "policy"]["ok"]
    assert "gpuu" in found["source", "policy"]["value"]
    assert found["environment", "HF_HUB_OFFLINE"]["value"] == "1"
    assert ("calibration", "vllm") in found


def test_a_driver_that_answers_is_asked(kvplan, tmp_path):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H100 80GB HBM3, 81559, 1559'\n")
    program.chmod(0o755)
    _, out, _ = kvplan("doctor", "--format", "plain", env={"PATH": f"{tmp_path}:/bin:/usr/bin"})
    assert "NVIDIA H100 80GB HBM3, 79.65 GiB, 78.12 GiB free" in out
    assert "\nversion\tkvplan\t" in out


def test_variables_are_shown_and_secrets_are_not(kvplan, tmp_path):
    env = {
        "KVPLAN_GPU": "h100",
        "KVPLAN_GPPU": "l4",
        "HF_TOKEN": "hf_abc",
        "HTTPS_PROXY": "http://me:pw@host",
    }
    code, out, _ = kvplan("doctor", "--json", cwd=tmp_path, env=env)
    found = {item["name"]: item for item in json.loads(out)["findings"]}
    assert (code, found["KVPLAN_GPU"]["value"]) == (0, "h100")
    assert (found["KVPLAN_GPPU"]["ok"], "KVPLAN_GPU" in found["KVPLAN_GPPU"]["hint"]) == (False, True)
    assert "hf_abc" not in out
    assert "me:pw" not in out
    assert found["HF_TOKEN"]["value"] == found["HTTPS_PROXY"]["value"] == "set"
