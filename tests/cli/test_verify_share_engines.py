"""``kvplan verify --log`` on real start-ups of TensorRT-LLM, LMDeploy and TGI."""

import pytest
from oracle_tables import oracle

ROWS = oracle("server_startups.jsonl")


@pytest.fixture
def verified(answer, tmp_path):
    def run(row):
        path = tmp_path / "server.log"
        path.write_text("\n".join(row["lines"]), encoding="utf-8")
        words = ("verify", row["model"], "--log", str(path), "--gpu", row["gpu"], *row["arguments"])
        return answer(*words)

    return run


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['engine']}-{row['model']}")
def test_real_start_ups_agree_with_the_plan(row, verified):
    code, said = verified(row)
    rows = {each["name"]: each for each in said["comparisons"]}
    assert said["engine"]["name"] == row["engine"]
    assert [name for name in row["agrees"] if rows.get(name, {}).get("status") != "agrees"] == [], rows
    assert (code, said["verdict"]) == (0, "agrees"), rows
    if row["tokens"]:
        assert rows["kv_cache_tokens"]["measured"] == row["tokens"]


def test_engines_built_ahead_of_time_are_not_held_against_the_plan(kvplan, tmp_path):
    lines = (
        "[TensorRT-LLM][INFO] Loaded engine size: 6282 MiB",
        "[TensorRT-LLM][INFO] Allocated 1192.03 MiB for execution context memory.",
        "[TensorRT-LLM][INFO] [MemUsageChange] Allocated 9.71 GiB for max tokens in paged KV cache (63616).",
    )
    path = tmp_path / "triton.log"
    path.write_text("\n".join(lines), encoding="utf-8")
    code, _, stderr = kvplan("verify", "llama-3.1-8b", "--log", str(path), "--gpu", "h100")
    assert code == 3
    assert "ahead of time" in stderr


def test_a_pool_of_another_size_differs_and_it_is_explained(answer, tmp_path):
    lines = (
        "[TRT-LLM] [I] Peak memory during memory usage profiling (torch + non-torch): 60.00 GiB, available "
        "KV cache memory when calculating max tokens: 10.00 GiB, fraction is set 0.9, kv size is 131072. "
        "device total memory 79.10 GiB, , tmp kv_mem 0.10 GiB",
        "[TensorRT-LLM][INFO] [MemUsageChange] Allocated 10.00 GiB for max tokens in paged KV cache (81920).",
    )
    path = tmp_path / "trtllm.log"
    path.write_text("\n".join(lines), encoding="utf-8")
    code, said = answer("verify", "llama-3.1-8b", "--log", str(path), "--gpu", "h100")
    rows = {each["name"]: each for each in said["comparisons"]}
    assert (code, said["verdict"]) == (1, "differs")
    assert rows["kv_cache_available"]["status"] == "below"
    assert rows["bytes_per_token"]["status"] == rows["kv_cache"]["status"] == "agrees"
    assert rows["kv_cache_tokens"]["planned"]["expected"] == 10 * 2**30 // 131072
    assert any("available KV memory -" in line for line in said["explanation"])


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (
            "lmdeploy serve api_server llama-3.1-8b --session-len 16384",
            "[TM] [BlockManager] max_block_count = 6214",
        ),
        (
            "trtllm-serve serve llama-3.1-8b --max_seq_len 16384",
            "[TensorRT-LLM] Number of tokens per block: 32.",
        ),
    ],
)
def test_the_command_s_own_length_is_the_context(answer, tmp_path, command, line):
    path = tmp_path / "server.log"
    path.write_text(f"{command}\n{line}\n", encoding="utf-8")
    _, said = answer("verify", "--log", str(path), "--gpu", "a100-80gb")
    assert said["model"]["id"] == "llama-3.1-8b"
    assert "16,384 tokens" in said["subject"]
