"""``kvplan verify`` as a user meets it, torch or not."""

import importlib.util

import pytest

HAS_TORCH = importlib.util.find_spec("torch") is not None


@pytest.mark.skipif(HAS_TORCH, reason="torch is installed")
def test_without_torch_it_says_how_to_get_it(kvplan):
    code, out, err = kvplan("verify", "llama-3-8b")
    assert (code, out) == (3, "")
    assert err.splitlines() == [
        "error: torch is not installed",
        "  verify allocates the cache's real tensors with it",
        "  pip install 'kvplan[verify]', or read a log instead: kvplan verify --log server.log",
    ]


def test_without_a_model_it_says_what_to_type(kvplan):
    code, out, err = kvplan("verify")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 3
