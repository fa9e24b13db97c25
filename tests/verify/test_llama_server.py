"""A real llama-server, loading a GGUF written here: what it answers against the plan.

``xllamacpp`` brings llama.cpp's own HTTP server in a wheel; a ``llama-server`` on the PATH serves as well.
"""

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from contextlib import contextmanager, suppress

import pytest
from small_gguf import written

try:
    import xllamacpp
except ImportError:
    xllamacpp = None
PROGRAM = shutil.which("llama-server")
pytestmark = pytest.mark.skipif(
    PROGRAM is None and xllamacpp is None,
    reason="no llama-server on the PATH, no xllamacpp: pip install -e '.[test,llama-server]'",
)
# Four layers of two heads of 64, keys and values in fp16.
TOKEN_BYTES = 4 * 2 * 64 * 2 * 2


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return written(tmp_path_factory.mktemp("gguf") / "tiny.gguf", has_vocabulary=True)


@contextmanager
def running(model, n_ctx, n_parallel, api_key=""):
    """Serve the model; yields the address."""
    if PROGRAM is None:
        yield from _in_process(model, n_ctx, n_parallel, api_key)
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [PROGRAM, "-m", str(model), "-c", str(n_ctx), "-np", str(n_parallel), "-ngl", "0", "--metrics"]
    words += ["--port", str(port), "--no-warmup", *(["--api-key", api_key] if api_key else [])]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(200):
            with suppress(OSError):
                urllib.request.urlopen(f"{address}/health").close()
                break
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=30)


def _in_process(model, n_ctx, n_parallel, api_key):
    settings = xllamacpp.CommonParams()
    settings.model.path = str(model)
    settings.n_ctx, settings.n_parallel, settings.n_gpu_layers = n_ctx, n_parallel, 0
    settings.warmup, settings.endpoint_metrics = False, True
    if api_key:
        settings.api_keys = [api_key]
    server = xllamacpp.Server(settings)
    try:
        yield server.listening_address
    finally:
        del server


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
