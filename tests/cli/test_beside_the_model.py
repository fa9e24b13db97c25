"""--draft and --lora: what is loaded beside a model, held to figures worked out by hand."""

import pytest

# Llama-3.2-1B: 1,235,814,400 parameters, 16 layers of 8 KV heads x 64 (its config.json).
DRAFT_BF16 = 2 * 1_235_814_400
DRAFT_TOKEN = 2 * 16 * 8 * 64 * 2
# Adapters of rank 16 on every projection of Llama-3.1-8B have 41,943,040 parameters, as PEFT's
# print_trainable_parameters says of them.
ADAPTER_RANK_16 = 41_943_040
ASKED = ("fit", "llama-3.1-8b", "--gpu", "80GB", "--ctx", "8k")


def part(data, name):
    found = [each["bytes"] for each in data["devices"][0]["components"] if each["name"] == name]
    return found[0] if found else None


def test_a_draft_is_its_weights_and_its_own_cache(answer):
    alone = answer(*ASKED, "--engine", "ideal")[1]
    code, data = answer(*ASKED, "--engine", "ideal", "--draft", "llama-3.2-1b")
    draft = part(data, "draft_model")
    assert code == 0
    assert draft["low"] == draft["expected"] == draft["high"] == DRAFT_BF16 + 8192 * DRAFT_TOKEN
    lost = alone["devices"][0]["headroom_bytes"] - data["devices"][0]["headroom_bytes"]
    assert lost == draft["expected"]


def test_llama_cpp_keeps_a_draft_in_the_served_format_with_a_cache_in_f16(answer):
    words = (*ASKED, "--weights", "q8_0", "--kv", "q8_0", "--draft", "llama-3.2-1b")
    data = answer(*words)[1]
    alone = answer("fit", "llama-3.2-1b", "--gpu", "80GB", "--ctx", "8k", "--weights", "q8_0")[1]
    own = sum(part(alone, name)["expected"] for name in ("weights", "kv_cache", "activations"))
    assert part(alone, "kv_cache")["expected"] == 8192 * DRAFT_TOKEN
    assert part(data, "draft_model")["expected"] == own
    eighth = answer(*words, "--", "-ctkd", "q8_0", "-ctvd", "q8_0")[1]
    fewer = part(data, "draft_model")["expected"] - part(eighth, "draft_model")["expected"]
    # 34 bytes for 32 values instead of 64; quantized caches need scratch in the compute buffer.
    assert 0 < fewer <= 8192 * DRAFT_TOKEN * 30 // 64


def test_sglang_takes_draft_layers_at_the_models_size_a_layer(answer):
    data = answer(*ASKED, "--engine", "sglang", "--draft", "llama-3.2-1b")[1]
    a_layer = 2 * 8 * 128 * 2
    assert part(data, "draft_model")["expected"] == DRAFT_BF16 + 8192 * 16 * a_layer


def test_more_tokens_with_a_draft_never_fit_than_without(answer):
    for engine in ("ideal", "llama.cpp", "sglang", "transformers", "vllm"):
        words = ("fit", "llama-3.1-8b", "--gpu", "24GB", "--ctx", "4k", "--engine", engine)
        without = answer(*words)[1]["limits"]["max_context_tokens"]
        assert answer(*words, "--draft", "llama-3.2-1b")[1]["limits"]["max_context_tokens"] <= without


def test_an_engine_flag_that_names_a_known_draft_counts_it(answer):
    flags = ("--", "-md", "llama-3.2-1b")
    named = answer(*ASKED, "--weights", "q8_0", *flags)[1]
    asked = answer(*ASKED, "--weights", "q8_0", "--draft", "llama-3.2-1b")[1]
    assert part(named, "draft_model") == part(asked, "draft_model")


def test_an_engine_flag_that_names_an_unknown_draft_is_an_interval(answer):
    data = answer(*ASKED, "--weights", "q8_0", "--", "-md", "/models/nobody.gguf")[1]
    draft = part(data, "draft_model")
    assert draft["low"] < draft["expected"] < draft["high"]


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_slots_for_adapters_are_in_sixteen_bits(answer, engine):
    data = answer(*ASKED, "--engine", engine, "--lora", "4x16")[1]
    assert part(data, "adapters")["expected"] == 4 * 2 * ADAPTER_RANK_16


@pytest.mark.parametrize("engine", ["ideal", "transformers", "llama.cpp"])
def test_adapters_without_slots_are_at_most_every_projection_in_fp32(answer, engine):
    data = answer(*ASKED, "--engine", engine, "--lora", "2x16")[1]
    adapters = part(data, "adapters")
    # Queries [4096, 4096] and values [1024, 4096] of 32 layers in 16 bits.
    assert adapters["low"] == 2 * 2 * 16 * 32 * (4096 + 4096 + 1024 + 4096)
    assert adapters["high"] == 2 * 4 * ADAPTER_RANK_16


def test_vllm_rounds_a_rank_up_to_one_it_takes(answer):
    assert part(answer(*ASKED, "--engine", "vllm", "--lora", "9")[1], "adapters") == part(
        answer(*ASKED, "--engine", "vllm", "--lora", "16")[1], "adapters"
    )


def test_suggestions_keep_draft_and_adapters(answer):
    words = (
        "fit",
        "llama-3.1-70b",
        "--gpu",
        "48GB",
        "--ctx",
        "8k",
        "--draft",
        "llama-3.2-1b",
        "--lora",
        "16",
    )
    for suggestion in answer(*words)[1]["suggestions"]:
        assert "--draft llama-3.2-1b --lora 16" in suggestion["command"]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--lora", "x"), 2, "--lora"),
        (("--lora", "0x16"), 2, "--lora"),
        (("--lora", "600"), 2, "max_lora_rank"),
        (("--draft", "llama-3.2-1b", "--engine", "tgi"), 3, "--reserve"),
        (("--draft", "llama-3.2-1b", "--engine", "lmdeploy"), 3, "--speculative-algorithm"),
        (("--draft", "llama-3.2-1x"), 2, "llama-3.2-1b"),
        (("--draft", "llama-3.2-1b", "--weights", "q8_0", "--", "-md", "x.gguf"), 2, "x.gguf"),
    ],
)
def test_what_cannot_be_is_said(kvplan, words, code, says):
    status, _, stderr = kvplan(*ASKED, *words)
    assert status == code
    assert says in stderr
    assert len(stderr.splitlines()) == 3
