"""Defaults from KVPLAN_* and kvplan.yaml: every command, one order, and the answer says whose they are."""

import json
import os
import subprocess
import sys
from importlib import import_module

import pytest
import typer

from kvplan.cli import main
from kvplan.cli.app import COMMANDS
from kvplan.cli.settings import SWITCHES, VALUES, flag_of, variables

MODEL = "llama-3-8b"


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def run(*words, policy=None, **env):
        if policy is not None:
            (tmp_path / "kvplan.yaml").write_text(policy)
        with monkeypatch.context() as patch:
            for name, value in env.items():
                patch.setenv(f"KVPLAN_{name.upper()}", value)
            code = main(list(words))
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def ask(run):
    def ask(*words, **more):
        at = words.index("--") if "--" in words else len(words)
        code, out, err = run(*words[:at], "--json", *words[at:], **more)
        return code, json.loads(out), err

    return ask


def sources(data):
    return {(item["flag"], item["value"]): item["source"] for item in data.get("settings", [])}


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("list", "doctor", "schema")])
def test_the_table_names_the_flags_that_commands_take(command):
    app = typer.Typer()
    import_module(f"kvplan.cli.{COMMANDS[command]}").register(app)
    taken = {flag for option in typer.main.get_command(app).params for flag in option.opts}
    listed = {option for option, takers in (VALUES | SWITCHES).items() if command in takers.split()}
    assert {option for option in VALUES | SWITCHES if flag_of(option) in taken} - listed == (
        # diff's own --engine names two versions.
        {"engine"} if command == "diff" else set()
    )
    assert all(flag_of(option) in taken for option in listed)


def test_flag_over_environment_over_file_over_default(ask):
    policy = "gpu: l4\nbatch: 2\n"
    code, data, _ = ask("fit", MODEL, "--ctx", "4k", policy=policy)
    assert (code, data["devices"][0]["name"], data["workload"]["num_sequences"]) == (0, "l4", 2)
    assert sources(data) == {("--gpu", "l4"): "kvplan.yaml:1", ("--batch", "2"): "kvplan.yaml:2"}
    _, data, _ = ask("fit", MODEL, "--ctx", "4k", gpu="a100-80gb")
    assert data["devices"][0]["name"].startswith("a100")
    assert sources(data)["--gpu", "a100-80gb"] == "KVPLAN_GPU"
    _, data, _ = ask("fit", MODEL, "--ctx", "4k", "--gpu=24GB", "--batch", "1", gpu="a100-80gb")
    assert (data["devices"][0]["name"], data["workload"]["num_sequences"]) == ("24GB", 1)
    assert "settings" not in data


@pytest.mark.parametrize(
    "words",
    [
        ("fit", MODEL, "--ctx", "4k"),
        ("show", MODEL, "--ctx", "4k"),
        ("compare", MODEL, "gemma-3-27b", "--ctx", "4k"),
        ("find", "gemma-3", "--ctx", "4k"),
        ("sweep", MODEL, "--ctx", "4k"),
        ("capacity", MODEL, "--ctx", "4k"),
        ("check", "a.sh"),
        ("diff", "a.sh", "a.sh"),
    ],
    ids=lambda words: words[0],
)
def test_every_command_takes_them(ask, tmp_path, words):
    (tmp_path / "a.sh").write_text(f"vllm serve {MODEL} --max-model-len 4096\n")
    code, by_file, _ = ask(*words, policy="gpu: h100\n")
    assert code == 0
    _, typed, _ = ask(*words, "--gpu", "h100")
    assert sources(by_file) == {("--gpu", "h100"): "kvplan.yaml:1"}
    _, by_variable, _ = ask(*words, policy="gpu: l4\n", gpu="h100")
    assert ("KVPLAN_GPU" in sources(by_variable).values()) is True
    for data in (by_file, by_variable):
        data.pop("settings")
        assert json.dumps(data).replace("gpu: l4", "") == json.dumps(typed)


def test_a_variable_turns_a_switch_off_again(run):
    words = ("fit", MODEL, "--gpu", "rtx-4090", "--ctx", "32k")
    policy = "strict: true\n"
    assert run(*words)[0] == 0
    assert run(*words, policy=policy)[0] == 1
    assert run(*words, policy=policy, strict="0")[0] == 0
    assert run(*words, "--no-strict", policy=policy, strict="1")[0] == 0
    code, _, err = run(*words, strict="maybe")
    assert (code, "KVPLAN_STRICT" in err) == (2, True)


def test_switches_of_a_policy_yield_to_what_is_said_in_check(run, tmp_path):
    (tmp_path / "a.sh").write_text("vllm serve llama-3.1-8b --max-model-len 32768\n")
    words = ("check", "a.sh", "--gpu", "rtx-4090")
    assert run(*words)[0] == 0
    assert run(*words, policy="strict: true\n")[0] == 1
    assert run(*words, policy="strict: true\n", strict="no")[0] == 0
    assert run(*words, "--no-strict", policy="strict: true\n")[0] == 0


def test_unequal_cards_stand_in_the_file_and_one_spelling_in_the_variable(run, ask, tmp_path):
    policy = "gpu: [rtx-3090, rtx-3060-12gb]\n"
    _, data, _ = ask("fit", MODEL, "--ctx", "4k", policy=policy)
    assert [device["name"] for device in data["devices"]] == ["rtx-3090", "rtx-3060-12gb"]
    code, _, err = run("sweep", MODEL, "--ctx", "4k")
    assert (code, err.startswith("error: kvplan.yaml:1: gpu names 2 cards")) == (2, True)
    assert run("sweep", MODEL, "--ctx", "4k", gpu="l4")[0] == 0
    code, _, err = run("fit", MODEL, gpu="rtx-3090,l4")
    assert (code, "--gpu rtx-3090,l4 is from KVPLAN_GPU" in err) == (2, True)
    (tmp_path / "a.sh").write_text(f"vllm serve {MODEL}\n")
    _, data, _ = ask("check", "a.sh", gpu="2xa100-80gb")
    assert sources(data) == {("--gpu", "2xa100-80gb"): "KVPLAN_GPU"}


def test_what_is_said_another_way_makes_the_default_yield(ask):
    _, data, _ = ask("fit", MODEL, "--gpu", "h100", "--", "--max-model-len", "4096", ctx="8k", batch="3")
    assert data["workload"]["context_tokens"] == 4096
    assert sources(data) == {("--batch", "3"): "KVPLAN_BATCH"}
    words = ("capacity", MODEL, "--sessions", "8", "--ctx", "4k", "--instance", "p5.48xlarge")
    _, data, _ = ask(*words, gpu="l4", batch="2")
    assert "settings" not in data
    _, data, _ = ask("fit", MODEL, "--gpu", "h100", "--kv-k", "fp8", "--kv-v", "fp8", kv="bf16")
    assert "settings" not in data


def test_proposed_commands_say_all_of_it(ask):
    _, data, _ = ask("fit", "llama-3-70b", policy="gpu: 48GB\nreserve: 1GiB\n", ctx="8k")
    assert data["suggestions"]
    for proposal in data["suggestions"]:
        assert "--reserve 1GiB" in proposal["command"]
        assert "48GB" in proposal["command"]


def test_every_form_names_them(run):
    words = ("fit", MODEL, "--ctx", "4k")
    assert run(*words, "--format", "plain", gpu="h100")[1].endswith("setting: --gpu h100 from KVPLAN_GPU\n")
    assert run(*words, "--format", "table", gpu="h100")[1].endswith("\nwith --gpu h100 from KVPLAN_GPU\n")
    code, out, err = run("sweep", MODEL, "--ctx", "4k", "--format", "csv", gpu="h100")
    assert (code, err) == (0, "with --gpu h100 from KVPLAN_GPU\n")
    assert "KVPLAN" not in out


def test_a_policy_that_cannot_be_read_is_an_error_and_help_still_comes(run):
    code, _, err = run("fit", MODEL, "--gpu", "h100", policy="gpuu: h100\n")
    assert (code, err.splitlines()[0]) == (2, "error: kvplan.yaml:1: gpuu: unknown key")
    assert run("fit", "--help")[0] == 0
    assert run("list", "engines")[0] == 0


def test_a_variable_may_name_the_policy(ask, run, tmp_path, monkeypatch):
    (tmp_path / "kvplan.yaml").write_text("gpu: l4\n")
    (tmp_path / "other.yaml").write_text("gpu: h100\n")
    monkeypatch.setenv("KVPLAN_POLICY", "other.yaml")
    _, data, _ = ask("fit", MODEL, "--ctx", "4k")
    assert sources(data) == {("--gpu", "h100"): "other.yaml:1"}
    monkeypatch.setenv("KVPLAN_POLICY", "missing.yaml")
    assert run("fit", MODEL, "--ctx", "4k")[0] == 2


def test_variables_are_all_listed():
    assert {"KVPLAN_GPU", "KVPLAN_ALLOW_OFFLOAD", "KVPLAN_SPECS"} <= set(variables())


def test_without_a_file_no_parser_is_imported(tmp_path):
    code = (
        "import sys; from kvplan.cli import main; "
        f"main(['fit', '{MODEL}', '--ctx', '4k', '--json']); "
        "sys.exit(any(name in sys.modules for name in ('yaml', 'tomllib')))"
    )
    env = {name: value for name, value in os.environ.items() if name != "KVPLAN_GPU"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env | {"KVPLAN_GPU": "h100"}, cwd=tmp_path, capture_output=True
    )
    assert done.returncode == 0
