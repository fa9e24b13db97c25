"""Reading the tables in ``oracles/``: one JSON object a line, the first says where they come from."""

import json
from pathlib import Path

ORACLES = Path(__file__).resolve().parent / "oracles"


def oracle(name):
    """Return the rows of one oracle table, without its header."""
    lines = (ORACLES / name).read_text(encoding="utf-8").splitlines()
    assert "origin" in json.loads(lines[0])
    return [json.loads(line) for line in lines[1:]]
