"""Sizes and token counts read exactly what is written, or say how to write it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvplan.errors import InvalidValue
from kvplan.units import MAX_SIZE_BYTES, MAX_TOKENS, format_gib, parse_size, parse_tokens, round_up


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [
        ("48GB", 48_000_000_000),
        ("48GiB", 51_539_607_552),
        ("49140MiB", 51_527_024_640),
        ("1.5gib", 1_610_612_736),
        ("512 MB", 512_000_000),
        ("7b", 7),
    ],
)
def test_sizes(text, num_bytes):
    assert parse_size(text).num_bytes == num_bytes


@pytest.mark.parametrize(
    "text", ["48", "48G", "", "-1GB", "GB", "1e9GB", "0GB", "99999999999TB", "4 8GB", "12parsecs"]
)
def test_sizes_refused(text):
    with pytest.raises(InvalidValue) as error:
        parse_size(text)
    assert error.value.hint


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("32k", 32_768), ("32K", 32_768), ("32000", 32_000), ("1m", 1_048_576), ("0.5k", 512)],
)
def test_tokens(text, tokens):
    assert parse_tokens(text) == tokens


@pytest.mark.parametrize("text", ["0", "-1", "32x", "10^12", "1000000000000", "", "k", "1e3", "32 k"])
def test_tokens_refused(text):
    with pytest.raises(InvalidValue):
        parse_tokens(text)


@given(st.integers(1, MAX_SIZE_BYTES))
def test_bytes_read_back_exactly(num_bytes):
    assert parse_size(f"{num_bytes}B").num_bytes == num_bytes


@given(st.text(max_size=20))
def test_any_text_is_a_size_or_an_error(text):
    try:
        assert 0 < parse_size(text).num_bytes <= MAX_SIZE_BYTES
    except InvalidValue as error:
        assert error.message


@given(st.text(max_size=20))
def test_any_text_is_a_length_or_an_error(text):
    try:
        assert 0 < parse_tokens(text) <= MAX_TOKENS
    except InvalidValue as error:
        assert error.message


@given(st.integers(0, 2**50), st.integers(1, 2**20))
def test_rounding_up_is_the_next_multiple(amount, unit):
    rounded = round_up(amount, unit)
    assert rounded % unit == 0
    assert 0 <= rounded - amount < unit


def test_gib_on_screen_has_two_decimals():
    assert format_gib(10_737_418_240) == "10.00 GiB"
