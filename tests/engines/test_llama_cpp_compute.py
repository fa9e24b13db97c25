"""llama.cpp's compute buffers equal its own breakdown, on cards and on the host."""

import pytest
from llama_cpp_runs import compared, tables

TABLES = tables()


@pytest.fixture(scope="module")
def buffers():
    return [buffer for table in TABLES for buffer in compared(table)]


def test_all_buffers_are_equal_in_bytes(buffers):
    assert [buffer for buffer in buffers if buffer.planned.expected != buffer.printed] == []


def test_intervals_hold_what_was_printed(buffers):
    for buffer in buffers:
        assert buffer.planned.low <= buffer.printed <= buffer.planned.high, buffer
