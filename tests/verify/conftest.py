"""Fixtures for what needs torch: skipped with the reason where it is not installed."""

import pytest


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="torch is not installed: pip install -e '.[test,verify]'")
