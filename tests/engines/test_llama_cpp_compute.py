"""llama.cpp's compute buffers equal its own breakdown, on cards and on the host."""

import pytest
from llama_cpp_runs import compared, tables

TABLES = tables()


@pytest.fixture(scope="module")
def buffers():
    return [buffer for table in TABLES for buffer in compared(table)]


def test_all_buffers_are_within_five_percent(buffers):
    assert [buffer for buffer in buffers if abs(buffer.error) > 0.05] == []


def test_no_buffer_is_planned_too_small(buffers):
    assert [buffer for buffer in buffers if buffer.error < -0.03] == []


def test_nearly_all_buffers_are_equal_in_bytes(buffers):
    equal = sum(buffer.planned.expected == buffer.printed for buffer in buffers)
    assert equal >= 0.97 * len(buffers), f"{equal} of {len(buffers)}"


def test_intervals_hold_what_was_printed(buffers):
    for buffer in buffers:
        assert buffer.planned.low <= buffer.printed <= buffer.planned.high, buffer


@pytest.mark.parametrize("table", TABLES, ids=[table["model"] for table in TABLES])
def test_one_card_with_everything_is_exact(table):
    for buffer in compared(table):
        row = buffer.row
        whole = row["num_cards"] == 1 and row["n_gpu_layers"] >= 999 and row["kv_offload"]
        if whole and not row["cpu_moe"] and row["type_v"] != "iq4_nl":
            assert buffer.planned.expected == buffer.printed, row
