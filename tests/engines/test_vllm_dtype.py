"""fp32 checkpoints are loaded in 16 bits unless --dtype asks for 32 (vLLM 0.33 config/model.py)."""

import pytest


@pytest.mark.parametrize(
    ("model", "flags", "weights", "kv", "num_bytes"),
    [
        ("whisper-medium", (), "bf16", "bfloat16", 2),
        ("whisper-medium", ("--dtype", "float32"), "fp32", "float32", 4),
        ("whisper-medium", ("--dtype", "half"), "fp16", "float16", 2),
        ("bge-m3", (), "fp16", None, 2),
        ("llama-3-8b", (), "bf16", "bfloat16", 2),
    ],
)
def test_what_an_fp32_checkpoint_is_served_in(answer, model, flags, weights, kv, num_bytes):
    _, data = answer("fit", model, "--gpu", "48GB", "--engine", "vllm", *(("--", *flags) if flags else ()))
    assert data["model"]["weights_format"] == weights
    assert data["model"]["weights_bytes"] == data["model"]["num_parameters"] * num_bytes
    if kv:
        assert data["workload"]["kv_cache_dtype"]["k"] == kv
