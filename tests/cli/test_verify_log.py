"""``kvplan verify --log`` as a user runs it: planned against printed, with what explains it."""

import json

import pytest
from jsonschema import Draft202012Validator

# A real start of Llama-3.1-8B's shape cannot be shipped whole: these are the lines that matter, with
# figures that vLLM 0.19's own arithmetic gives for 40 GiB of KV memory.
VLLM = """\
INFO non-default args: {{'model': 'llama-3-8b', 'max_model_len': 8192, 'gpu_memory_utilization': 0.9}}
INFO vLLM API server version 0.19.0
INFO worker init memory snapshot: free_memory=78.68GiB, total_memory=79.19GiB
INFO worker requested memory: 71.27GiB
INFO Model loading took {weights} GiB memory and 3.1 seconds
INFO Available KV cache memory: 40.00 GiB
INFO GPU KV cache size: {tokens} tokens
INFO Maximum concurrency for 8,192 tokens per request: {concurrency}x
"""
# 40 GiB over 131,072 bytes a token, 16 a block.
TOKENS = 40 * 2**30 // (131072 * 16) * 16


@pytest.fixture
def log(tmp_path):
    def write(text, name="server.log"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def vllm_log(weights="14.96", tokens=f"{TOKENS:,}", concurrency=f"{TOKENS / 8192:.2f}"):
    return VLLM.format(weights=weights, tokens=tokens, concurrency=concurrency)


def rows_of(said):
    return {row["name"]: row for row in said["comparisons"]}


def test_tokens_and_concurrency_are_exact_for_the_printed_memory(answer, log):
    code, said = answer("verify", "--log", log(vllm_log()))
    rows = rows_of(said)
    assert said["model"]["id"] == "llama-3-8b"
    assert (said["engine"]["name"], said["engine"]["version"]) == ("vllm", "0.19")
    assert rows["kv_cache_tokens"]["planned"]["expected"] == TOKENS == rows["kv_cache_tokens"]["measured"]
    assert rows["kv_cache_tokens"]["status"] == "agrees"
    assert rows["max_concurrency"]["status"] == "agrees"
    assert rows["weights"]["status"] == "agrees"
    assert rows["budget"]["status"] == "agrees"
    # 40 GiB is less than this server would have had: the log is put together.
    assert rows["kv_cache_available"]["status"] == "below"
    assert (code, said["verdict"]) == (1, "differs")
    assert any("available KV memory -" in line for line in said["explanation"])


def test_the_answer_is_valid_under_the_schema_that_ships(answer, log, kvplan):
    schema = json.loads(kvplan("schema")[1])
    _, said = answer("verify", "--log", log(vllm_log()))
    Draft202012Validator(schema).validate(said)


def test_a_wrong_token_count_differs(answer, log):
    _, said = answer("verify", "--log", log(vllm_log(tokens=f"{TOKENS + 160:,}")))
    assert rows_of(said)["kv_cache_tokens"]["status"] == "above"


def test_standard_input_and_a_model_by_hand(kvplan):
    lines = "\n".join(line for line in vllm_log().split("\n") if "non-default" not in line)
    code, out, err = kvplan("verify", "--log", "-", stdin=lines)
    assert (code, out) == (2, "")
    assert "does not name its model" in err
    code, out, err = kvplan(
        "verify", "llama-3-8b", "--log", "-", "--", "--gpu-memory-utilization", "0.9", stdin=lines
    )
    assert code == 1, err
    assert "kv cache tokens: planned" in out


def test_a_llama_cpp_log(answer, log):
    text = """\
llama_model_loader: loaded meta data with 29 key-value pairs and 291 tensors
print_info: file type   = Q4_K - Medium
print_info: general.name     = Llama 3 8B
load_tensors: offloaded 33/33 layers to GPU
load_tensors:   CPU_Mapped model buffer size =   281.81 MiB
load_tensors:        CUDA0 model buffer size =  4403.49 MiB
llama_context: n_seq_max     = 1
llama_context: n_ctx         = 8192
llama_context: n_batch       = 2048
llama_context: n_ubatch      = 512
llama_kv_cache:      CUDA0 KV buffer size =  1024.00 MiB
llama_kv_cache: size = 1024.00 MiB (  8192 cells,  32 layers,  1/1 seqs)
llama_kv_cache: K (f16):  512.00 MiB, V (f16):  512.00 MiB
"""
    code, said = answer("verify", "llama-3-8b", "--log", log(text))
    rows = rows_of(said)
    assert rows["kv_cache"]["planned"]["expected"] == 2**30
    assert {row["status"] for row in said["comparisons"] if row["name"] == "kv_cache"} == {"agrees"}
    assert rows["weights"]["status"] == "agrees"
    assert (code, said["verdict"]) == (0, "agrees")
    code, said = answer("verify", "llama-3-8b", "--log", log(text.replace("1024.00", "1088.00")))
    assert (code, said["verdict"]) == (1, "differs")


def test_a_log_that_cannot_be_read(kvplan, tmp_path):
    code, out, err = kvplan("verify", "--log", str(tmp_path / "none.log"))
    assert (code, out) == (2, "")
    assert err.startswith("error: cannot read ")
    code, out, err = kvplan("verify", "--log", "-", stdin="hello\n")
    assert (code, out) == (3, "")
    assert len(err.splitlines()) == 3


def test_the_size_of_the_card_must_be_known(kvplan):
    text = "Model loading took 14.96 GiB memory\nAvailable KV cache memory: 40.00 GiB\n"
    code, out, err = kvplan("verify", "llama-3-8b", "--log", "-", stdin=text)
    assert (code, out) == (3, "")
    assert "--gpu" in err
    code, out, _ = kvplan("verify", "llama-3-8b", "--gpu", "h100", "--log", "-", stdin=text)
    assert code in (0, 1)
    assert "weights" in out


def test_vllms_loader_counts_what_drafts(answer, log):
    arguments = (
        "{'model': 'llama-3-8b', 'max_model_len': 8192, 'compilation_config': CompilationConfig(level=3), "
        "'enable_lora': True, 'speculative_config': {'method': 'eagle', 'model': 'head', "
        "'num_speculative_tokens': 2}}"
    )
    _, alone = answer("verify", "--log", log(vllm_log()))
    text = vllm_log(weights="15.46").replace(
        "{'model': 'llama-3-8b', 'max_model_len': 8192, 'gpu_memory_utilization': 0.9}", arguments
    )
    text += "INFO Starting: vllm serve llama-3-8b --speculative-config.method eagle --spec-tokens 2\n"
    _, drafted = answer("verify", "--log", log(text, "drafted.log"))
    more = (
        rows_of(drafted)["weights"]["planned"]["expected"] - rows_of(alone)["weights"]["planned"]["expected"]
    )
    assert more > 400 * 2**20


def test_the_memory_tables_host_row_is_not_counted_twice(answer, tmp_path):
    """Without a GPU llama.cpp prints the CPU's buffers, and at its end a table with the host again."""
    log = tmp_path / "server.log"
    log.write_text(
        "llama_context: n_seq_max     = 1\n"
        "llama_context: n_ctx         = 8192\n"
        "load_tensors:   CPU_Mapped model buffer size =  4685.30 MiB\n"
        "llama_kv_cache: size = 1024.00 MiB (  8192 cells,  32 layers,  1/1 seqs)\n"
        "llama_memory_breakdown_print: |   - Host |  6269 = 4685 + 1024 + 560 |\n",
        encoding="utf-8",
    )
    _, said = answer("verify", "llama-3-8b", "--weights", "q4_k_m", "--log", str(log))
    weights = next(row for row in said["comparisons"] if row["name"] == "weights")
    assert weights["measured"] == round(4685.30 * 2**20)
