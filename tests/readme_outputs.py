"""The outputs that README.md shows: which commands, and what the program prints for them now."""

import re
import shlex
import subprocess
import sys
from os import environ
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"```console\n\$ (kvplan [^\n]*)\n(.*?)```", re.DOTALL)


def printed(command):
    """Return what ``command`` prints on a terminal of 80 columns, without colour."""
    words = shlex.split(command)[1:]
    done = subprocess.run(
        [sys.executable, "-m", "kvplan", *words, "--format", "table"],
        capture_output=True,
        encoding="utf-8",
        check=False,
        cwd=ROOT,
        env={**environ, "COLUMNS": "80", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"},
    )
    return done.stdout


def filled(text):
    """Return the README with every shown output as the program prints it."""
    return BLOCK.sub(lambda match: f"```console\n$ {match.group(1)}\n{printed(match.group(1))}```", text)
