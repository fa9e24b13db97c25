"""Shared fixtures: the oracle tables, and the program run as a user runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent

# The same examples every time, so that what passed once passes; ``--hypothesis-profile=thorough`` looks
# for new ones.
settings.register_profile(
    "kvplan",
    deadline=None,
    max_examples=60,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.register_profile("thorough", settings.get_profile("kvplan"), derandomize=False, max_examples=1000)
settings.load_profile("kvplan")


# What somebody measured on this machine must not change what the tests expect.
NO_CALIBRATION = ROOT / "tests" / "no-calibration-here.json"


@pytest.fixture(autouse=True)
def no_calibration(monkeypatch):
    """Keep this machine's own measurements out of every test."""
    monkeypatch.setenv("KVPLAN_CALIBRATION", str(NO_CALIBRATION))


@pytest.fixture
def kvplan():
    """Run a command line in a process of its own; returns (exit code, stdout, stderr)."""

    def run(*words, env=None, stdin=None, cwd=None):
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("KVPLAN_", "HF_"))}
        environment |= {
            "KVPLAN_CALIBRATION": str(NO_CALIBRATION),
            "COLUMNS": "80",
            "HF_HUB_OFFLINE": "1",
            **(env or {}),
        }
        done = subprocess.run(
            [sys.executable, "-m", "kvplan", *words],
            capture_output=True,
            text=True,
            encoding="utf-8",
            env={
                **environment,
                "PYTHONPATH": str(ROOT),
                "PYTHONIOENCODING": environment.get("PYTHONIOENCODING", "utf-8"),
            },
            input=stdin,
            cwd=cwd,
            timeout=120,
        )
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.fixture
def answer(capsys):
    """Run a command line in this process with --json; returns (exit code, the JSON)."""
    from kvplan.cli import main

    def run(*words):
        code = main([*words[: _cut(words)], "--json", *words[_cut(words) :]])
        return code, json.loads(capsys.readouterr().out)

    return run


def _cut(words):
    return words.index("--") if "--" in words else len(words)
