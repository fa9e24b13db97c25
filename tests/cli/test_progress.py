"""The progress bar: on a terminal and for what lasts, nowhere else."""

import os
import pty
import subprocess
import sys

WORDS = "sweep llama-3.1-8b --gpu h100 --format csv --batch 1..64+1 --ctx"


def run(span, stderr):
    return subprocess.Popen(
        [sys.executable, "-m", "kvplan", *WORDS.split(), span],
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        env={**os.environ, "TERM": "xterm"},
    )


def read_all(descriptor):
    seen = b""
    while True:
        try:
            part = os.read(descriptor, 65_536)
        except OSError:
            return seen
        if not part:
            return seen
        seen += part


def test_a_terminal_sees_how_far_it_is():
    parent, child = pty.openpty()
    process = run("1024..524288+1024", child)
    os.close(child)
    seen = read_all(parent)
    assert process.wait() == 0
    assert b"planning" in seen
    assert b"%" in seen


def test_a_pipe_sees_nothing():
    process = run("1024..32768+1024", subprocess.PIPE)
    _, complaints = process.communicate()
    assert (process.returncode, complaints) == (0, b"")
