"""What is on the screen: lines, widths, symbols, colours."""

import pytest

MAIN = ("fit", "llama-3-70b", "--gpu", "48GB", "--ctx", "32k", "--format", "table")


def test_the_main_screen_is_twenty_lines_of_eighty(kvplan):
    code, out, err = kvplan(*MAIN)
    assert (code, err) == (1, "")
    lines = out.splitlines()
    assert len(lines) <= 20
    assert max(len(line) for line in lines) <= 80
    assert lines[0].startswith("DOES NOT FIT")
    assert "131.42 GiB" in out
    assert "trained for 8,192 tokens" in out
    assert "llama-3.1-70b (131,072)" in out


@pytest.mark.parametrize("width", [40, 60, 120, 200])
def test_any_width_keeps_to_the_screen(kvplan, width):
    _, out, _ = kvplan(*MAIN, env={"COLUMNS": str(width)})
    text = [line for line in out.splitlines() if "kvplan fit" not in line]
    assert max(len(line) for line in text) <= width
    assert "DOES NOT FIT" in out


def test_a_narrow_screen_keeps_the_amounts_on_one_line(kvplan):
    _, out, _ = kvplan(*MAIN, env={"COLUMNS": "40"})
    amounts = [line for line in out.splitlines() if line.endswith((" exact", " calibrated", " assumed"))]
    assert len(amounts) == 5
    assert "70.55 B" not in out


def test_a_machine_of_unknown_memory_has_no_limits(kvplan):
    code, out, _ = kvplan("fit", "llama-3-8b", "--gpu", "none")
    assert code == 3
    assert "depends on the memory: give --cpu-memory" in out


def test_commands_are_never_broken(kvplan):
    _, out, _ = kvplan(*MAIN, env={"COLUMNS": "40"})
    commands = [line for line in out.splitlines() if "kvplan fit" in line]
    assert commands
    assert all("--ctx" in line for line in commands)


def test_ascii_where_the_stream_cannot_encode(kvplan):
    _, out, err = kvplan(*MAIN, env={"PYTHONIOENCODING": "ascii"})
    assert out.isascii()
    assert err == ""
    assert "#" in out


def test_no_color_and_force_color(kvplan):
    assert "\x1b" not in kvplan(*MAIN, env={"NO_COLOR": "1", "FORCE_COLOR": "1"})[1]
    assert "\x1b" in kvplan(*MAIN, env={"FORCE_COLOR": "1"})[1]
    assert "\x1b" not in kvplan(*MAIN)[1]


def test_a_pipe_gets_plain_lines(kvplan):
    _, out, _ = kvplan(*MAIN[:-2])
    assert out.splitlines()[0].startswith("DOES NOT FIT: llama-3-70b")
    assert not any(symbol in out for symbol in "█▓▒┃")
    assert all(": " in line for line in out.splitlines())


def test_show_reads_like_a_sentence(kvplan):
    _, out, _ = kvplan("show", "gemma-3-27b", "--engine", "ideal", "--ctx", "128k")
    assert (
        "62 layers: 52 sliding window 1,024 (16 KV heads × 128), 10 full attention (16 KV heads × 128)" in out
    )
    _, out, _ = kvplan("show", "llama-3-70b")
    assert "8 of 64 heads are stored: 8× less" in out
    _, out, _ = kvplan("show", "llama-2-7b")
    assert "fp32" in out


def test_show_prints_both_totals_and_why(kvplan):
    _, out, _ = kvplan("show", "deepseek-v3")
    assert "671,026,404,352" in out
    assert "684,531,386,000: the checkpoint holds multi-token-prediction layers" in out


def test_lists_filter(kvplan):
    _, out, _ = kvplan("list", "models", "qwen3", "a3b")
    rows = out.splitlines()[1:]
    assert rows
    assert all("qwen3" in row.casefold() for row in rows)
    assert "h100-sxm" in kvplan("list", "gpus", "hopper")[1]
    assert "q4_k_m" in kvplan("list", "formats", "q4")[1]
    assert kvplan("list", "engines")[1].count("\n") >= 4
