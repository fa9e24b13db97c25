"""``kvplan diff``: what a change costs, and when it fails."""

import json
import subprocess
from importlib.resources import files

import pytest
from jsonschema import Draft202012Validator

SCHEMA = json.loads(files("kvplan.report").joinpath("schema-kvplan-1.json").read_text(encoding="utf-8"))
FILE = (
    "services:\n  chat:\n    image: vllm/vllm-openai:v0.19.0\n"
    "    command: --model {model} --max-model-len {length} --gpu-memory-utilization {share}\n"
)


def compose(length=16384, model="meta-llama/Llama-3.1-8B-Instruct", share=0.9):
    return FILE.format(length=length, model=model, share=share)


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    from kvplan.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def call(*words, gpu="48GB", form="json"):
        gpus = ("--gpu", gpu) if gpu else ()
        code = main(["diff", *words, *gpus, "--format", form])
        out = capsys.readouterr().out
        if form != "json":
            return code, out
        data = json.loads(out)
        Draft202012Validator(SCHEMA).validate(data)
        return code, data

    return call


def write(tmp_path, **texts):
    for name, text in texts.items():
        path = tmp_path / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".yml").write_text(text)


def test_what_a_longer_context_costs(run, tmp_path):
    write(tmp_path, old=compose(16384), new=compose(65536))
    code, data = run("old.yml", "new.yml")
    (change,) = data["changes"]
    assert (code, change["worse"]) == (0, False)
    # 131,072 bytes a token: 32 layers x 2 x 8 heads x 128 x 2 bytes.
    assert change["head"]["kv_bytes"] - change["base"]["kv_bytes"] == (65536 - 16384) * 131072
    assert change["base"]["headroom_bytes"] - change["head"]["headroom_bytes"] == (65536 - 16384) * 131072
    assert change["changed"] == [{"field": "context_tokens", "before": 16384, "after": 65536}]
    assert change["summary"].startswith("chat: KV cache +6.00 GiB, headroom ")
    assert "still fits" in change["summary"]


def test_a_verdict_that_moves_down_fails(run, tmp_path):
    write(tmp_path, old=compose(16384), new=compose(131072))
    code, data = run("old.yml", "new.yml", gpu="24GB")
    assert (code, data["changes"][0]["worse"]) == (1, True)
    assert run("new.yml", "old.yml", gpu="24GB")[0] == 0
    assert run("new.yml", "new.yml", gpu="24GB")[0] == 0


def test_a_budget_that_breaks_fails(run, tmp_path):
    write(tmp_path, old=compose(16384), new=compose(65536))
    code, data = run("old.yml", "new.yml", "--max-kv-gib", "4")
    assert code == 1
    assert data["changes"][0]["head"]["broken_budgets"][0].startswith("max_kv_gib 4")
    assert run("new.yml", "new.yml", "--max-kv-gib", "4")[0] == 0


def test_new_and_gone(run, tmp_path):
    more = compose(131072).replace("chat", "second")[10:]
    write(tmp_path, old=compose(), new=compose() + more)
    code, data = run("old.yml", "new.yml", gpu="24GB")
    by_name = {change["name"]: change for change in data["changes"]}
    assert code == 1
    assert (by_name["second"]["base"], by_name["second"]["worse"]) == (None, True)
    code, data = run("new.yml", "old.yml", gpu="24GB")
    assert code == 0
    assert next(change for change in data["changes"] if change["name"] == "second")["head"] is None


def test_one_left_over_on_each_side_is_a_new_name(run, tmp_path):
    write(tmp_path, old=compose(), new=compose().replace("chat", "talk"))
    _, data = run("old.yml", "new.yml")
    (change,) = data["changes"]
    assert change["base"] is not None
    assert change["name"] == "talk"


def test_becoming_unknown_is_neither_better_nor_worse(run, tmp_path):
    write(tmp_path, old=compose(), new=compose(model="${M}"))
    assert run("old.yml", "new.yml")[0] == 3


def test_a_card_that_gets_overcommitted_fails(run, tmp_path):
    def two(share):
        return compose(share=0.5) + compose(share=share).replace("chat", "other")[10:]

    write(tmp_path, old=two(0.4), new=two(0.6))
    code, data = run("old.yml", "new.yml")
    assert code == 1
    assert [change["name"] for change in data["changes"] if change["worse"]] == ["GPU 0 of docker compose up"]


def test_folders_and_saved_checks(run, tmp_path, capsys):
    from kvplan.cli import main

    write(tmp_path, a__x=compose(16384), b__x=compose(65536))
    code, live = run("a", "b")
    assert [change["file"] for change in live["changes"]] == ["x.yml"]
    for side in ("a", "b"):
        assert main(["check", f"{side}/x.yml", "--gpu", "48GB", "--json", "-o", f"{side}.json"]) == 0
    code, saved = run("a.json", "b.json", gpu=None)
    assert code == 0
    assert saved["changes"][0]["summary"] == live["changes"][0]["summary"]
    code, mixed = run("a.json", "b/x.yml")
    assert mixed["changes"][0]["summary"] == live["changes"][0]["summary"]
    (tmp_path / "c.json").write_text('{"schema": "kvplan/1", "command": "fit"}')
    capsys.readouterr()
    assert main(["diff", "c.json", "b.json"]) == 2
    assert "not a saved check" in capsys.readouterr().err


def test_two_engine_versions(run, tmp_path):
    write(tmp_path, old=compose())
    _, data = run("--engine", "vllm@0.19", "vllm@0.33", "old.yml")
    (change,) = data["changes"]
    assert change["base"]["engine"]["version"] == "0.19"
    assert change["head"]["engine"]["version"] == "0.33"
    # Since 0.21 graphs are counted inside the share.
    assert change["head"]["required_bytes"] > change["base"]["required_bytes"]
    assert any(item["field"] == "engine_version" for item in change["changed"])


def git(*words, cwd):
    subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=cwd, check=True, capture_output=True
    )


def test_revisions(run, tmp_path):
    git("init", "-q", "-b", "main", cwd=tmp_path)
    write(tmp_path, deploy__a=compose(16384), deploy__same=compose())
    git("add", ".", cwd=tmp_path)
    git("commit", "-qm", "one", cwd=tmp_path)
    write(tmp_path, deploy__a=compose(65536))
    git("commit", "-qam", "two", cwd=tmp_path)
    code, data = run("HEAD~1..HEAD")
    assert code == 0
    assert [change["file"] for change in data["changes"]] == ["deploy/a.yml"]
    assert data["changes"][0]["summary"].startswith("chat: KV cache +6.00 GiB")
    assert run("HEAD~1..")[1]["changes"] == data["changes"]
    assert run("HEAD~1...HEAD")[1]["changes"] == data["changes"]
    assert run("HEAD~1..HEAD", "elsewhere")[1]["changes"] == []
    write(tmp_path, deploy__a="<<<<<<< ours\n")
    git("commit", "-qam", "three", cwd=tmp_path)
    code, data = run("HEAD~1..HEAD")
    assert code == 2
    assert "merge-conflict" in data["problems"][0]["message"]


@pytest.mark.parametrize(
    "words", [("a.yml",), ("a.yml", "b.yml", "c.yml"), ("nobody..HEAD",), ("--output=x..y",)]
)
def test_bad_sides_are_usage_errors(tmp_path, monkeypatch, capsys, words):
    from kvplan.cli import main

    monkeypatch.chdir(tmp_path)
    git("init", "-q", cwd=tmp_path)
    assert main(["diff", *words]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_every_format(run, tmp_path):
    write(tmp_path, old=compose(16384), new=compose(131072))
    for form, part in (
        ("table", " → DOES NOT FIT"),
        ("plain", " → DOES NOT FIT"),
        ("markdown", " → DOES NOT FIT | "),
        ("csv", ",does_not_fit,"),
        ("github", "::error file=new.yml,line=4,title=kvplan%3A chat::"),
    ):
        code, out = run("old.yml", "new.yml", gpu="24GB", form=form)
        assert code == 1
        assert part in out


def test_what_changed_is_said_without_a_gpu_too(run, tmp_path):
    write(tmp_path, old=compose(16384), new=compose(32768, share=0.8))
    code, data = run("old.yml", "new.yml", gpu="")
    (change,) = data["changes"]
    assert (code, change["worse"], change["head"]["verdict"]) == (3, False, "unknown")
    assert {item["field"]: (item["before"], item["after"]) for item in change["changed"]} == {
        "max_model_len": (16384, 32768),
        "gpu_memory_utilization": (0.9, 0.8),
    }


def test_what_was_unknown_and_now_fails_for_certain_fails(run, tmp_path):
    write(tmp_path, old=compose(model="/models/local"), new=compose(131072))
    code, data = run("old.yml", "new.yml", gpu="24GB")
    (change,) = data["changes"]
    assert (code, change["worse"], change["head"]["verdict"]) == (1, True, "does_not_fit")
    assert run("new.yml", "old.yml", gpu="24GB")[0] == 3
