"""``kvplan show``: a model read aloud, and the pool that an engine's flags fix."""

import json


def lines_of(kvplan, *words):
    code, out, err = kvplan("show", *words)
    assert code == 0, err
    return dict(line.split(": ", 1) for line in out.splitlines())


def test_a_hybrid_reads_like_a_sentence(kvplan):
    assert lines_of(kvplan, "qwen3-next-80b-a3b")["layers"] == (
        "48 layers: 12 full attention (2 KV heads × 256), 36 gated DeltaNet (state 2.0 MiB a sequence, fp32)"
    )


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
