"""vLLM's budget against start-up logs of real servers: weights, what is left for the cache, tokens."""

import sys
from pathlib import Path
from statistics import median

import pytest
from vllm_logs import available, failed, judged, logs, planned, tokens_of, weights_of

from kvplan.units import GIB

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "calibration"))

import cross_validate_vllm
import fit_vllm_budget

ROWS = logs()
WITH_CARD = [row for row in ROWS if row.get("card")]
# The memory is of one worker and the tokens of the poorest (two machines; an excerpt of several lines);
# a build of DeepSeek-V4 that names no version; vLLM's Ascend fork, whose blocks hold 128 tokens.
TOKENS_NOT_KNOWN = {"log-081", "log-066", "log-074", "log-079"}


def ids(rows):
    return [f"{row['id']}-{row['spec']}" for row in rows]


TOKENS = [
    row
    for row in ROWS
    if row.get("available_kv_gib")
    and (row.get("kv_tokens") or row.get("gpu_blocks"))
    and row.get("max_model_len")
    and row["id"] not in TOKENS_NOT_KNOWN
]


@pytest.mark.parametrize("row", TOKENS, ids=ids(TOKENS))
def test_tokens_follow_from_the_logged_memory(row):
    _, low, high, logged = tokens_of(row)
    assert low <= logged <= high


WEIGHTS = [row for row in WITH_CARD if row.get("weights_gib") and not row.get("weights_unknown")]


@pytest.mark.parametrize("row", WEIGHTS, ids=ids(WEIGHTS))
def test_weights_are_what_the_server_loaded(row):
    result = planned(row)
    amount = weights_of(result)
    logged = row["weights_gib"] * GIB
    assert amount.low - GIB / 200 <= logged <= amount.high + GIB / 200
    assert abs(amount.expected / logged - 1) <= 0.006


def test_what_is_left_for_the_cache():
    errors, inside = [], []
    for row in WITH_CARD:
        if failed(row) or not row.get("available_kv_gib") or not row.get("gpu_memory_utilization"):
            continue
        result = planned(row)
        low, expected, high = available(result)
        logged = row["available_kv_gib"] * GIB
        errors.append(abs(expected - logged) / result.devices[0].device.usable_bytes)
        inside.append(low - GIB / 100 <= logged <= high + GIB / 100)
    assert len(errors) >= 55
    assert median(errors) <= 0.002
    assert sum(inside) / len(inside) >= 0.95


@pytest.mark.parametrize("left_out", ["spec", "card", "release"])
def test_what_is_left_for_the_cache_where_the_fit_never_saw_its_like(left_out):
    found = list(cross_validate_vllm.held_out(left_out))
    assert len(found) >= 55
    for _, part in cross_validate_vllm.groups(found):
        assert median(abs(error) for _, error, _, _ in part) <= 0.01
        assert sum(inside for _, _, inside, _ in part) / len(part) >= 0.9


FAILED = [row for row in WITH_CARD if failed(row)]


@pytest.mark.parametrize("row", FAILED, ids=ids(FAILED))
def test_what_failed_is_never_said_to_fit(row):
    assert judged(row, planned(row)) in ("tight", "does_not_fit", "refused")


def test_the_constants_are_what_the_fit_gives():
    assert fit_vllm_budget.TARGET.read_text(encoding="utf-8") == fit_vllm_budget.generated()
