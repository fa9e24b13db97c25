"""What each policy wastes: held to a reference, to step-by-step sums, and to PagedAttention's figures."""

import json
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvplan.capacity.allocation import POLICIES, paged_sum, reserved_tokens, shares
from kvplan.capacity.lengths import Lengths, drawn, live_variance, mean_live_tokens, percentile, within
from kvplan.capacity.load import load
from kvplan.capacity.simulation import simulate_all
from kvplan.errors import InvalidValue

TABLE = Path(__file__).parent.parent / "oracles" / "sharegpt_lengths.jsonl"
LINES = [json.loads(line) for line in TABLE.read_text(encoding="utf-8").splitlines()]
SHAREGPT = Lengths(tuple(row[1] for row in LINES[1:]), tuple(row[2] for row in LINES[1:]), "ShareGPT")

requests = st.lists(st.tuples(st.integers(0, 300), st.integers(1, 200)), min_size=1, max_size=12)


@pytest.mark.parametrize("row", LINES[0]["reference"], ids=lambda row: str(row["limit"]))
def test_a_real_trace_wastes_what_the_reference_says(row):
    kept = within(SHAREGPT, row["limit"])
    assert len(kept.prompts) == row["used"]
    assert kept.num_dropped == 300 - row["used"]
    for block_size, paged in row["paged"].items():
        found = {share.policy: share.effective for share in shares(kept, row["limit"], int(block_size))}
        expected = {**{policy: row[policy] for policy in POLICIES[:3]}, "paged": paged}
        assert found == pytest.approx(expected, abs=6e-5)


@given(requests, st.sampled_from([1, 8, 16, 64]))
def test_sums_are_those_of_every_single_step(pairs, block_size):
    limit = 512
    held = [
        (prompt + step, reserved_tokens(policy, prompt, output, limit), -(-(prompt + step) // block_size))
        for policy in ("maximum",)
        for prompt, output in pairs
        for step in range(1, output + 1)
    ]
    lengths = Lengths(*map(tuple, zip(*pairs, strict=True)), "test")
    found = {share.policy: share for share in shares(lengths, limit, block_size)}
    used = sum(tokens for tokens, _, _ in held)
    assert mean_live_tokens(lengths) == pytest.approx(used / len(held))
    assert found["maximum"].effective == pytest.approx(used / (limit * len(held)))
    assert found["paged"].effective == pytest.approx(used / sum(blocks * block_size for *_, blocks in held))
    squares = sum(tokens**2 for tokens, _, _ in held) / len(held)
    assert live_variance(lengths) == pytest.approx(squares - (used / len(held)) ** 2, abs=1e-6)


@given(st.integers(0, 500), st.integers(1, 500), st.integers(1, 64))
def test_blocks_held_are_counted_without_stepping(prompt, output, block_size):
    stepped = sum(-(-(prompt + step) // block_size) for step in range(1, output + 1)) * block_size
    assert paged_sum(prompt, output, block_size) == stepped


def generated(seed, kind):
    """Return a small trace: chats with long answers, code with short ones, or long documents."""
    random = Random(seed)
    means = {"chat": (1000, 220), "code": (2000, 30), "documents": (9000, 340)}[kind]
    pairs = [(1 + int(random.expovariate(1 / mean_in)), 1 + int(random.expovariate(1 / mean_out)))
             for mean_in, mean_out in [means] * 1500]  # fmt: skip
    return Lengths(*map(tuple, zip(*pairs, strict=True)), kind)


@pytest.mark.parametrize("kind", ["chat", "code", "documents"])
def test_paged_beats_exact_beats_power_of_two_beats_maximum(kind):
    limit = 131_072 if kind == "documents" else 8192
    lengths = within(generated(7, kind), limit)
    by_length = [share.effective for share in shares(lengths, limit)]
    in_pool = [usage.in_use for usage in simulate_all(lengths, 40 * 8192, limit)]
    assert by_length == sorted(by_length)
    assert len(set(by_length)) == 4
    # In a pool gaps are a matter of luck between the two that reserve by output.
    assert in_pool[0] < min(in_pool[1:3]) <= max(in_pool[1:3]) < in_pool[3]


def test_drawn_to_the_papers_means_waste_what_the_paper_measured():
    # OPT-13B's pool on an A100-40GB: 12 GiB of 819,200 bytes a token; limit 2,048.
    lengths = drawn(161.31, 337.99, 2048, seed=0)
    by_length = {share.policy: share.effective for share in shares(lengths, 2048)}
    usage = {each.policy: each for each in simulate_all(lengths, 15_729, 2048)}
    assert abs(by_length["maximum"] - 0.204) < 0.05
    assert by_length["paged"] >= 0.96
    assert abs(usage["maximum"].in_use - 0.204) < 0.05
    assert usage["paged"].in_use >= 0.96
    assert usage["maximum"].mean_running == 7.0


def test_shares_of_the_pool_add_up():
    for usage in simulate_all(generated(3, "chat"), 30_000, 8192):
        parts = (usage.in_use, usage.reserved_for_later, usage.internal_waste, usage.external_waste)
        assert sum(parts) == pytest.approx(1)
        assert min(parts) >= 0


def test_drawing_is_repeatable_and_follows_its_seed():
    assert drawn(100, 50, 4096, seed=1) == drawn(100, 50, 4096, seed=1)
    assert drawn(100, 50, 4096, seed=1).prompts != drawn(100, 50, 4096, seed=2).prompts
    lengths = drawn(100, 50, 100_000, seed=5)
    assert sum(lengths.prompts) / 4000 == pytest.approx(100, rel=0.05)
    assert sum(lengths.outputs) / 4000 == pytest.approx(50, rel=0.05)
    for means in ((0, 5), (5, 0.2), (3000, 3000)):
        with pytest.raises(InvalidValue):
            drawn(*means, 4096, seed=0)


def test_a_cap_on_running_requests_holds():
    for usage in simulate_all(generated(3, "chat"), 500_000, 8192, max_running=20):
        assert usage.mean_running <= 20
    _, _, _, paged = simulate_all(generated(3, "chat"), 500_000, 8192, max_running=20)
    assert paged.num_preemptions == 0


def test_an_overfull_pool_preempts():
    _, _, _, paged = simulate_all(generated(3, "chat"), 20_000, 8192, max_running=64)
    assert paged.num_preemptions > 0
    assert 0 < paged.preempted_share <= 1


def test_requests_larger_than_the_pool_are_counted():
    lengths = Lengths((10, 5000, 10), (10, 10, 10), "test")
    assert [usage.num_refused for usage in simulate_all(lengths, 1600, 8192)] == [3, 1, 1, 1]


def test_overflow_grows_with_sessions():
    lengths = generated(5, "chat")
    mean = shares(lengths, 8192)[-1].mean_reserved_tokens
    pool = int(100 * mean)
    found = [load(lengths, pool, sessions) for sessions in (50, 90, 100, 110, 200)]
    shares_of_time = [each.overflow_share for each in found]
    assert shares_of_time == sorted(shares_of_time)
    assert shares_of_time[0] < 1e-6
    assert shares_of_time[2] == pytest.approx(0.5, abs=0.01)
    assert shares_of_time[-1] > 0.999
    quiet = found[0].sessions_without
    assert load(lengths, pool, quiet).overflow_share < 0.001 <= load(lengths, pool, quiet + 1).overflow_share
    assert found[0].sessions_half in (99, 100)


@given(st.lists(st.integers(0, 1000), min_size=1), st.sampled_from([50, 95, 99]))
def test_percentiles_are_values_that_enough_do_not_exceed(values, percent):
    found = percentile(values, percent)
    assert found in values
    assert sum(value <= found for value in values) * 100 >= percent * len(values)
    assert sum(value < found for value in values) * 100 < percent * len(values)
