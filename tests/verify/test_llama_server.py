"""A real llama-server, loading a GGUF written here: what it answers against the plan.

``xllamacpp`` brings llama.cpp's own HTTP server in a wheel; a ``llama-server`` on the PATH serves as well.
"""

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, suppress
from importlib.util import find_spec

import pytest
from small_gguf import written

PROGRAM = shutil.which("llama-server")
pytestmark = pytest.mark.skipif(
    PROGRAM is None and find_spec("xllamacpp") is None,
    reason="no llama-server on the PATH, no xllamacpp: pip install -e '.[test,llama-server]'",
)
# Four layers of two heads of 64, keys and values in fp16.
TOKEN_BYTES = 4 * 2 * 64 * 2 * 2
# llama.cpp's own server in a process of its own, with the flags that a llama-server would get.
IN_A_WHEEL = """
import sys, time, xllamacpp
settings = xllamacpp.CommonParams()
settings.model.path = sys.argv[1]
settings.n_ctx, settings.n_parallel, settings.port = int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
settings.n_gpu_layers, settings.warmup, settings.fit_params, settings.verbosity = 0, False, False, 4
settings.endpoint_metrics = True
if sys.argv[5]:
    settings.api_keys = [sys.argv[5]]
server = xllamacpp.Server(settings)
time.sleep(120)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return written(tmp_path_factory.mktemp("gguf") / "tiny.gguf", has_vocabulary=True)


@contextmanager
def running(model, n_ctx, n_parallel, api_key="", log=subprocess.DEVNULL):
    """Serve the model; yields the address once it answers. What it prints goes to ``log``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    if PROGRAM is None:
        words = [
            sys.executable,
            "-c",
            IN_A_WHEEL,
            str(model),
            str(n_ctx),
            str(n_parallel),
            str(port),
            api_key,
        ]
    else:
        words = [PROGRAM, "-m", str(model), "-c", str(n_ctx), "-np", str(n_parallel), "--port", str(port)]
        words += ["-ngl", "0", "--metrics", "--no-warmup", "--fit", "off", "-lv", "4"]
        words += ["--api-key", api_key] if api_key else []
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            assert process.poll() is None, "the server ended"
            with suppress(OSError), urllib.request.urlopen(f"{address}/health"):
                break
            time.sleep(0.1)
        yield address
    finally:
        process.kill()
        process.wait(timeout=30)


def complete(address, prompt):
    """Have it write four tokens; returns how many tokens prompt and answer are."""
    body = json.dumps({"prompt": prompt, "n_predict": 4, "cache_prompt": True, "ignore_eos": True}).encode()
    request = urllib.request.Request(
        f"{address}/completion", data=body, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        said = json.load(answer)
    return said["tokens_evaluated"] + said["tokens_predicted"]


def test_a_real_server_against_the_plan(model, answer):
    with running(model, 1024, 2) as address:
        num_tokens = complete(address, "hello there, how are you")
        code, said = answer("verify", str(model), "--url", address)
    rows = {row["name"]: row for row in said["comparisons"]}
    assert (code, said["verdict"], said["engine"]["name"]) == (0, "agrees", "llama.cpp")
    # The file's tensors to the byte.
    assert rows["weights"]["planned"]["expected"] == rows["weights"]["measured"]
    assert said["engine"]["options"]["n_ctx"] == 1024
    assert said["measured"]["n_parallel"] == 2
    assert said["measured"]["cache_bytes"] == 1024 * TOKEN_BYTES
    # The last token is written but not yet read.
    assert said["measured"]["cache_used_bytes"] in (num_tokens * TOKEN_BYTES, (num_tokens - 1) * TOKEN_BYTES)


def test_a_real_server_names_the_model_that_it_serves(model, answer):
    with running(model, 512, 1) as address:
        code, said = answer("verify", "--url", address)
    assert (code, said["error"]["code"]) == (3, "cannot-tell")
    assert "tiny.gguf" in said["error"]["message"]


def test_a_real_server_wants_its_key(model, answer):
    with running(model, 512, 1, api_key="s3cret") as address:
        code, said = answer("verify", str(model), "--url", address)
        assert (code, said["error"]["code"]) == (3, "cannot-tell")
        assert "wants a key" in said["error"]["message"]
        code, said = answer("verify", str(model), "--url", address, "--api-key", "s3cret")
    assert (code, said["verdict"]) == (0, "agrees")


@pytest.mark.parametrize(("n_ctx", "n_parallel"), [(512, 1), (4096, 4), (1024, 2)])
def test_a_real_servers_log_against_the_plan(n_ctx, n_parallel, model, answer, tmp_path):
    log = tmp_path / "server.log"
    with log.open("wb") as file, running(model, n_ctx, n_parallel, log=file):
        pass
    _, said = answer("verify", str(model), "--log", str(log))
    rows = {row["name"]: row for row in said["comparisons"]}
    assert rows["kv_cache"]["planned"]["expected"] == n_ctx * TOKEN_BYTES
    # The graph of a build that is newer than the rules may need another compute buffer.
    for name in ("weights", "kv_cache"):
        assert rows[name]["status"] == "agrees", rows[name]
        assert abs(rows[name]["measured"] - rows[name]["planned"]["expected"]) <= rows[name]["rounding"]
    assert "activations" in rows
