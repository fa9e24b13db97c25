"""What llama.cpp's and Ollama's answers say on a screen: both cards, the price of spilling, the command."""

import pytest

MAC = ("fit", "llama-3-70b", "--gpu", "m3-max-64gb", "--weights", "q4_k_m", "--ctx", "8k")
SPILLED = (
    *("fit", "qwen3-32b", "--gpu", "rtx-4090", "--weights", "q5_k_m", "--ctx", "32k"),
    *("--cpu-memory", "64GiB"),
)
UNEQUAL = (
    *("fit", "llama-3-70b", "--gpu", "rtx-3090", "--gpu", "rtx-3060-12gb", "--weights", "q3_k_m"),
    *("--ctx", "8k", "--cpu-memory", "64GiB"),
)


def screen(kvplan, words, width):
    code, out, _ = kvplan(*words, "--format", "table", env={"COLUMNS": str(width)})
    return code, out


@pytest.mark.parametrize("width", [60, 160])
def test_unequal_cards_are_named_with_what_they_hold(kvplan, width):
    code, out = screen(kvplan, UNEQUAL, width)
    assert code == 1
    text = " ".join(out.split())
    assert text.startswith("FITS BUT SLOW")
    assert "rtx-3090 " in text
    assert "of 23.68 GiB; rtx-3060-12gb" in text
    copied = ("llama-server", "kvplan fit")
    assert all(len(line) <= width for line in out.splitlines() if not any(one in line for one in copied))


def test_the_price_of_spilling_stands_next_to_the_verdict(kvplan):
    code, out = screen(kvplan, SPILLED, 80)
    assert code == 1
    assert "tokens/s on the card → " in out
    assert "in system memory of 64.00 GiB" in out
    assert "llama-server -m qwen3-32b-q5_k_m.gguf -c 32768 -np 1 -ngl " in out
    assert len(out.splitlines()) <= 20


def test_without_the_machines_memory_the_way_out_is_named_not_counted(kvplan):
    code, out = screen(kvplan, SPILLED[:-2], 80)
    assert code == 1
    assert out.startswith("DOES NOT FIT")
    assert "say --cpu-memory" in " ".join(out.split())


def test_a_mac_says_what_macos_gives_the_gpu(kvplan):
    code, out = screen(kvplan, MAC, 80)
    assert code == 0
    assert "48.00 GiB of 64 GiB, newer ones 51.84 GiB" in " ".join(out.split())
    assert "iogpu.wired_limit_mb" in out


def test_speed_and_offload_in_json(answer):
    _, spilled = answer(*SPILLED)
    rate = spilled["speed"]["decode_tokens_per_second"]
    assert 0 < rate["low"] < rate["expected"] < rate["high"]
    assert rate["expected"] < spilled["speed"]["decode_on_devices_tokens_per_second"]["low"]
    assert spilled["offload"] is None
    _, not_counted = answer(*SPILLED[:-2])
    assert not_counted["verdict"] == "does_not_fit"
    assert not_counted["speed"]["decode_tokens_per_second"] is None
    assert not_counted["offload"]["host_bytes"]["expected"] > 2**30
    assert "-ngl" in not_counted["offload"]["command_lines"][0]
