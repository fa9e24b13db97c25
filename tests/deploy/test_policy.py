"""kvplan.yaml and [tool.kvplan]: strict, with lines; deployments as data; what wins over what."""

import json

import pytest
from jsonschema import Draft202012Validator

from kvplan.deploy.policy import load_policy
from kvplan.errors import InputError, InvalidSpec

COMPOSE = (
    "services:\n  a:\n    image: vllm/vllm-openai:v0.20.0\n    command: --model /m --max-model-len 8192\n"
)


@pytest.fixture
def check(tmp_path, capsys, monkeypatch):
    from kvplan.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def run(files, *words):
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        code = main(["check", *words, "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run


@pytest.mark.parametrize(
    ("text", "where", "why"),
    [
        ("gpu: h100\nmin_headrom: 2GiB\n", "2: min_headrom: unknown key", "did you mean: min_headroom"),
        ("files:\n  a.yml:\n    gppu: l4\n", "3: files.a.yml.gppu: unknown key", "did you mean: gpu"),
        ("deployments:\n  chat:\n    gpu: l4\n", "3: deployments.chat.model: missing", "strictly"),
        ("deployments:\n  chat:\n    model: a\n    tpp: 2\n", "4: deployments.chat.tpp: unknown key", "tp"),
        ("models:\n  /m: {id: a, wieghts: fp8}\n", "2: models./m.wieghts: unknown key", "weights"),
        ("min_concurrency: many\n", "1: min_concurrency: ", "strictly"),
        ("strict: perhaps\n", "1: strict: ", "strictly"),
        ("- gpu\n", "not a mapping", "keys"),
        ("gpu: [h100\n", "", ""),
    ],
)
def test_complaints_name_file_line_and_the_closest_key(tmp_path, text, where, why):
    path = tmp_path / "kvplan.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_policy(path, "kvplan.yaml")
    assert caught.value.exit_code == 2
    assert caught.value.message.startswith("kvplan.yaml:")
    assert where in caught.value.message
    assert why in caught.value.why


def test_toml_complaints_name_the_line(tmp_path):
    path = tmp_path / "pyproject.toml"
    path.write_text('[project]\nname = "x"\n\n[tool.kvplan]\ngpu = "h100"\nofline = true\n')
    with pytest.raises(InvalidSpec, match=r"pyproject.toml:6: ofline: unknown key"):
        load_policy(path, "pyproject.toml")


def test_mappings_gpus_and_budgets(check):
    policy = "gpu: h100\nmodels:\n  /m: {id: qwen3-8b, weights: fp8}\nmin_context: 4k\n"
    code, data = check({"kvplan.yaml": policy, "d/a.yml": COMPOSE}, "d/a.yml")
    (row,) = data["deployments"]
    assert (code, row["verdict"], row["gpu"]) == (0, "fits", "h100-sxm")
    assert row["plan"]["model"]["weights_format"] == "fp8"
    code, data = check({"kvplan.yaml": policy.replace("4k", "16k")}, "d/a.yml")
    assert code == 1
    assert data["deployments"][0]["broken_budgets"][0].startswith("min_context 16,384")


def test_flags_win_over_the_nearest_policy_which_wins_over_pyproject(check):
    files = {
        "pyproject.toml": '[tool.kvplan]\ngpu = "l4"\nmodels = {"/m" = "qwen3-8b"}\n',
        "a.yml": COMPOSE,
        "near/kvplan.yaml": "gpu: 24GB\nmodels: {/m: llama-3.1-8b}\n",
        "near/a.yml": COMPOSE,
    }
    assert check(files, "a.yml")[1]["deployments"][0]["gpu"] == "l4"
    near = check({}, "near/a.yml")[1]["deployments"][0]
    assert (near["gpu"], near["model"]["id"]) == ("24GB", "llama-3.1-8b")
    typed = check({}, "near/a.yml", "--gpu", "h100", "--model", "/m=qwen3-8b")[1]["deployments"][0]
    assert (typed["gpu"], typed["model"]["id"]) == ("h100-sxm", "qwen3-8b")


def test_the_environment_stands_between_flags_and_policy(check, monkeypatch):
    files = {"kvplan.yaml": "gpu: l4\nmodels: {/m: qwen3-8b}\n", "a.yml": COMPOSE}
    monkeypatch.setenv("KVPLAN_GPU", "24GB")
    assert check(files, "a.yml")[1]["deployments"][0]["gpu"] == "24GB"
    assert check({}, "a.yml", "--gpu", "h100")[1]["deployments"][0]["gpu"] == "h100-sxm"
    monkeypatch.setenv("KVPLAN_MIN_HEADROOM", "lots")
    code, data = check({}, "a.yml")
    assert (code, data["error"]["code"]) == (2, "invalid-value")


def test_settings_by_file_and_by_deployment(check):
    policy = (
        "models: {/m: qwen3-8b}\n"
        "files:\n"
        "  'gpu/*.yml': {gpu: h100}\n"
        "  'gpu/b.yml#a': {gpu: l4, min_headroom: 1GiB}\n"
    )
    files = {"kvplan.yaml": policy, "gpu/a.yml": COMPOSE, "gpu/b.yml": COMPOSE, "c.yml": COMPOSE}
    _, data = check(files, "gpu/a.yml", "gpu/b.yml", "c.yml")
    assert [row["gpu"] for row in data["deployments"]] == ["h100-sxm", "l4", None]


def test_deployments_as_data(check):
    policy = (
        "deployments:\n"
        "  chat:\n"
        "    model: qwen3-8b\n"
        "    gpu: h100\n"
        "    engine: vllm@0.22\n"
        "    ctx: 16k\n"
        "    kv: fp8\n"
        "    flags: [--enforce-eager]\n"
        "    min_concurrency: 2\n"
        "  small:\n"
        "    model: llama-3.1-8b\n"
        "    weights: q4_k_m\n"
        "    gpu: 24GB\n"
        "    ctx: 8k\n"
        "    batch: 4\n"
        "paths: [d]\n"
    )
    code, data = check({"kvplan.yaml": policy, "d/a.yml": COMPOSE}, "--allow-unknown")
    chat, small, other = data["deployments"]
    assert code == 0
    assert (chat["line"], chat["engine"]) == (2, {"name": "vllm", "version": "0.22"})
    assert chat["plan"]["workload"]["context_tokens"] == 16384
    assert chat["plan"]["workload"]["kv_cache_dtype"]["k"] == "fp8"
    assert chat["plan"]["engine"]["options"]["enforce_eager"] is True
    assert small["engine"]["name"] == "llama.cpp"
    assert small["plan"]["workload"] | {"context_source": ""} == {
        "context_tokens": 8192,
        "context_source": "",
        "num_sequences": 4,
        "kv_cache_dtype": {"k": "f16", "v": "f16"},
    }
    assert other["file"] == "d/a.yml"


@pytest.mark.parametrize(
    ("engine", "kv", "kept"), [("tgi@3.2", "fp8", "fp8_e4m3fn"), ("lmdeploy", "int8", "int8")]
)
def test_deployments_under_engines_with_flags_of_their_own(check, engine, kv, kept):
    policy = (
        "deployments:\n"
        "  chat:\n"
        "    model: llama-3.1-8b\n"
        "    gpu: 2xl40s\n"
        f"    engine: {engine}\n"
        "    ctx: 16k\n"
        "    tp: 2\n"
        f"    kv: {kv}\n"
    )
    code, data = check({"kvplan.yaml": policy})
    (chat,) = data["deployments"]
    assert (code, chat["verdict"], chat["gpu"]) == (0, "fits", "2 × l40s")
    assert chat["plan"]["workload"]["context_tokens"] == 16384
    assert chat["plan"]["workload"]["kv_cache_dtype"]["k"] == kept


def test_the_schema_for_editors(kvplan):
    code, out, _ = kvplan("schema", "policy")
    schema = json.loads(out)
    assert code == 0
    Draft202012Validator.check_schema(schema)
    valid = Draft202012Validator(schema)
    valid.validate({"gpu": ["h100"], "deployments": {"a": {"model": "b", "ctx": "32k"}}})
    assert not valid.is_valid({"gpuu": "h100"})
    assert not valid.is_valid({"deployments": {"a": {}}})
    assert kvplan("schema", "polcy")[0] == 2


def test_a_general_gpu_holds_where_files_name_none(check):
    named = (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  nodeSelector:\n"
        "    cloud.google.com/gke-accelerator: nvidia-l4\n  containers:\n  - name: a\n"
        "    image: vllm/vllm-openai:v0.20.0\n    args: [--model, qwen3-8b, --max-model-len, '4096']\n"
    )
    files = {"kvplan.yaml": "gpu: h100\nmodels: {/m: qwen3-8b}\n", "a.yml": COMPOSE, "p.yaml": named}
    _, data = check(files, "a.yml", "p.yaml")
    assert [row["gpu"] for row in data["deployments"]] == ["h100-sxm", "l4"]
    override = files["kvplan.yaml"] + "files: {p.yaml: {gpu: 24GB}}\n"
    _, data = check({"kvplan.yaml": override}, "a.yml", "p.yaml")
    assert [row["gpu"] for row in data["deployments"]] == ["h100-sxm", "24GB"]


def test_a_policy_is_a_file_to_check_and_to_compare(check, capsys):
    from kvplan.cli import main

    text = "gpu: l4\ndeployments:\n  chat: {model: llama-3.1-8b, ctx: 8k, min_concurrency: 2}\n"
    files = {"kvplan.yaml": text, "other/kvplan.yaml": text.replace("8k", "64k").replace("l4", "h100")}
    for words in (("kvplan.yaml",), (".",), ()):
        code, data = check(files, *words)
        rows = {row["file"]: row for row in data["deployments"]}
        assert (code, rows["kvplan.yaml"]["gpu"], rows["kvplan.yaml"]["line"]) == (0, "l4", 3)
        # Each file's own settings hold for its deployments.
        assert ("other/kvplan.yaml" in rows) == (words == (".",))
        if words == (".",):
            assert rows["other/kvplan.yaml"]["gpu"] == "h100-sxm"
    assert main(["diff", "kvplan.yaml", "other/kvplan.yaml", "--json"]) == 0
    (change,) = json.loads(capsys.readouterr().out)["changes"]
    assert {"gpu", "context_tokens"} <= {item["field"] for item in change["changed"]}
