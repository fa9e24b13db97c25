"""The GitHub Action, the pre-commit hook and the snippets of the README, run as far as they go here."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
import yaml
from deploy.shapes import SHAPES
from jsonschema import Draft7Validator

ROOT = Path(__file__).resolve().parent.parent
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
STEPS = {step["name"]: step for step in ACTION["runs"]["steps"]}


def schema(name):
    try:
        vendored = distribution("check-jsonschema").locate_file("check_jsonschema/builtin_schemas/vendor")
    except PackageNotFoundError:
        pytest.skip("pip install 'kvplan[test]'")
    return json.loads(Path(str(vendored), f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture
def step(tmp_path):
    """Run the action's check step as GitHub would; returns (exit code, stdout, summary, outputs)."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    program = bin_ / "kvplan"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m kvplan "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)

    def run(**inputs):
        given = {name: spec.get("default", "") for name, spec in ACTION["inputs"].items()} | inputs
        env = {
            "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}",
            "HF_HUB_OFFLINE": "1",
            "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
            "GITHUB_OUTPUT": str(tmp_path / "output.txt"),
        }
        for name, expression in STEPS["Check"]["env"].items():
            (wanted,) = re.findall(r"\$\{\{ inputs\.(\w+) \}\}", expression)
            env[name] = given[wanted]
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", STEPS["Check"]["run"]],
            capture_output=True,
            text=True,
            env=env,
            cwd=tmp_path,
            timeout=120,
        )
        summary = (tmp_path / "summary.md").read_text()
        return done.returncode, done.stdout, summary, (tmp_path / "output.txt").read_text()

    return run


def test_the_action_is_valid():
    Draft7Validator(schema("github-actions")).validate(ACTION)


def test_the_action_reports_where_people_look(step, tmp_path):
    (tmp_path / "a.yaml").write_text(SHAPES["deployment.yaml"])
    code, out, summary, outputs = step(files="a.yaml\n", gpu="l4", sarif="out.sarif", junit="out.xml")
    assert code == 0, out
    assert out.startswith("::")
    assert "| llm |" in summary
    assert outputs == "exit-code=0\n"
    assert json.loads((tmp_path / "out.sarif").read_text())["version"] == "2.1.0"
    assert "<testsuites" in (tmp_path / "out.xml").read_text()


def test_the_action_fails_as_the_check_does(step, tmp_path):
    text = SHAPES["deployment.yaml"].replace("parallel-size=2", "parallel-size=4")
    (tmp_path / "a.yaml").write_text(text)
    code, out, _, outputs = step(files="a.yaml", offline="true")
    assert (code, outputs) == (1, "exit-code=1\n")
    assert out.startswith("::error file=a.yaml,line=22,")


def test_inputs_are_words_not_script(step, tmp_path):
    (tmp_path / "a.yaml").write_text(SHAPES["deployment.yaml"])
    code, _, _, _ = step(
        files="a.yaml", models="x=$(touch pwned)\ny=`touch pwned`", args="--strict\n--reserve=1GiB"
    )
    assert code in (0, 1)
    assert not (tmp_path / "pwned").exists()
    assert "${{" not in STEPS["Check"]["run"] + STEPS["Install kvplan"]["run"]


def test_the_hook_names_a_command_that_runs(kvplan, tmp_path):
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    (tmp_path / "a.yaml").write_text(SHAPES["deployment.yaml"])
    (tmp_path / "b.yml").write_text(SHAPES["compose.yml"])
    words = hook["entry"].split()
    assert words[0] == "kvplan"
    assert kvplan(*words[1:], "a.yaml", "b.yml", cwd=tmp_path)[0] == 0
    (tmp_path / "c.yaml").write_text(SHAPES["deployment.yaml"].replace("size=2", "size=4"))
    assert kvplan(*words[1:], "c.yaml", cwd=tmp_path)[0] == 1
    pattern = re.compile(hook["files"])
    assert all(pattern.search(name) for name in SHAPES if not name.endswith(".md"))
    assert not pattern.search("main.py")


def git(*words, cwd):
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *who, *words], cwd=cwd, check=True, capture_output=True)


@pytest.mark.skipif(shutil.which("pre-commit") is None, reason="pre-commit is not installed: kvplan[dev]")
def test_pre_commit_builds_the_hook_and_runs_it(tmp_path):
    """As somebody's repository would: pre-commit clones, installs by pip, and hands over the files."""
    hook = tmp_path / "kvplan"
    hook.mkdir()
    for name in ("kvplan", "model_specs"):
        shutil.copytree(ROOT / name, hook / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", ".pre-commit-hooks.yaml"):
        shutil.copy(ROOT / name, hook / name)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "fits.yaml").write_text(SHAPES["deployment.yaml"])
    (theirs / "fails.yaml").write_text(SHAPES["deployment.yaml"].replace("size=2", "size=4"))
    (theirs / "main.py").write_text("print()\n")
    for place in (hook, theirs):
        git("init", "-q", cwd=place)
        git("add", "-A", cwd=place)
        git("commit", "-qm", "x", cwd=place)
    # Its modules are used once: compiling all of them would take longer than the check.
    env = {**os.environ, "PRE_COMMIT_HOME": str(tmp_path / "home"), "PIP_NO_COMPILE": "1"}
    done = subprocess.run(
        ["pre-commit", "try-repo", str(hook), "kvplan-check", "--all-files", "--verbose"],
        cwd=theirs,
        env=env,
        capture_output=True,
        text=True,
    )
    if re.search(
        r"No matching distribution|Connection(Error| refused|\w* failed)", done.stdout + done.stderr
    ):
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "2 engines found: " in done.stdout
    assert "fails.yaml:22: llm: --tensor-parallel-size: it needs 4 GPUs and is given 2" in done.stdout
    assert "main.py" not in done.stdout


def test_the_readmes_snippets_are_yaml_of_their_kind():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
    gitlab = next(block for block in blocks if "kvplan" in block and "script" in (block["kvplan"] or {}))
    Draft7Validator(schema("gitlab-ci")).validate(gitlab)
    pod = next(block for block in blocks if "initContainers" in str(block))
    assert "kvplan" in str(pod["spec"]["initContainers"])
