"""``kvplan show``: a model read aloud, and the pool that an engine's flags fix."""

import json

import pytest


def lines_of(kvplan, *words):
    code, out, err = kvplan("show", *words)
    assert code == 0, err
    return dict(line.split(": ", 1) for line in out.splitlines())


def test_a_hybrid_reads_like_a_sentence(kvplan):
    assert lines_of(kvplan, "qwen3-next-80b-a3b")["layers"] == (
        "48 layers: 12 full attention (2 KV heads × 256), 36 gated DeltaNet (state 2.0 MiB a sequence, fp32)"
    )


@pytest.mark.parametrize(
    ("model", "layers"),
    [
        (
            "zamba2-7b",
            "81 layers: 13 Mamba-2 (state 1.8 MiB a sequence, fp32) beside full attention "
            "(32 KV heads × 224), 68 Mamba-2 (state 1.8 MiB a sequence, fp32)",
        ),
        (
            "falcon-h1-7b",
            "44 layers: 44 full attention (2 KV heads × 128) beside Mamba-2 (state 3.0 MiB a sequence, fp32)",
        ),
        (
            "whisper-tiny",
            "4 layers: 4 full attention (6 KV heads × 64) beside cross attention to the encoder "
            "(6 KV heads × 64)",
        ),
        (
            "minimax-m3",
            "60 layers: 3 full attention (4 KV heads × 128), 57 full attention (4 KV heads × 128, index 128)",
        ),
        (
            "gemma-4-e4b",
            "42 layers: 20 sliding window 512 (2 KV heads × 256), 4 full attention (2 KV heads × 512), "
            "18 sharing another layer's cache",
        ),
    ],
)
def test_a_layer_is_named_by_all_it_caches(kvplan, model, layers):
    assert lines_of(kvplan, model)["layers"] == layers


def test_an_encoder_caches_nothing(kvplan):
    told = lines_of(kvplan, "bge-m3")
    assert told["layers"] == "24 layers: 24 without a cache"
    assert told["KV a sequence"].startswith("0 B")


def test_an_encoder_decoder_is_asked_for_both_lengths(kvplan):
    words = "t5-base --engine transformers --weights fp32 --ctx 17 --encoder-ctx 9 --json"
    code, out, _ = kvplan("show", *words.split())
    assert code == 0
    # 12 layers, 12 heads of 64, keys and values of 17 own tokens and 9 of the encoder's.
    assert json.loads(out)["kv_cache"]["total_bytes"] == 12 * 2 * 12 * 64 * 4 * (17 + 9)


def test_a_pool_that_flags_fix_has_limits(kvplan):
    words = "qwen3-8b --engine vllm --ctx 8k --json -- --kv-cache-memory-bytes 10737418240"
    code, out, _ = kvplan("show", *words.split())
    assert code == 0
    limits = json.loads(out)["limits"]
    # 36 layers x 64 KiB a block of 16 tokens in 10 GiB.
    num_blocks = 10 * 2**30 // (36 * 2**16)
    assert limits["kv_cache_tokens"] == num_blocks * 16
    assert limits["max_sequences"] == num_blocks * 16 // 8192
    assert limits["max_context_tokens"] == 40_960
    assert limits["binding"] == "kv_pool"


def test_an_unknown_architecture_says_what_it_saw(kvplan, tmp_path):
    config = tmp_path / "config.json"
    config.write_text(
        '{"model_type": "mystery", "num_hidden_layers": 32, "hidden_size": 4096, '
        '"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32000}',
        encoding="utf-8",
    )
    code, out, err = kvplan("show", str(config))
    assert (code, out) == (3, "")
    assert "32 layers, 8 KV heads × 128" in err
    assert "131,072 B a token" in err
    assert "--assume full-attention" in err


def test_what_is_assumed_of_an_unknown_architecture_is_marked_in_every_number(kvplan, tmp_path):
    config = tmp_path / "config.json"
    config.write_text(
        '{"model_type": "mystery", "num_hidden_layers": 2, "hidden_size": 256, "num_attention_heads": 4, '
        '"vocab_size": 1000, "torch_dtype": "bfloat16"}',
        encoding="utf-8",
    )
    words = ("--assume", "full-attention", "--gpu", "24GB", "--ctx", "1k", "--json")
    code, out, _ = kvplan("fit", str(config), *words)
    answer = json.loads(out)
    assert (code, answer["verdict"]) == (0, "tight")
    assert {part["basis"] for device in answer["devices"] for part in device["components"]} == {"assumed"}
    told = lines_of(kvplan, str(config), "--assume", "full-attention")
    assert told["weights"].endswith("as bf16 (assumed)")
    assert told["context limit"] == "none stated"
