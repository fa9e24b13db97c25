"""Published models' shapes under settings drawn at random: every part equals llama.cpp's own breakdown."""

import pytest
from gguf_tables import model_of
from llama_cpp_runs import settings_of, shares_of
from oracle_tables import oracle

from kvplan.engines.llama_cpp.compute import compute_buffers
from kvplan.engines.llama_cpp.converted import is_causal
from kvplan.engines.llama_cpp.placement import place
from kvplan.engines.llama_cpp.settings import settings_of as settings_of_load
from kvplan.engines.llama_cpp.use import cells_for
from kvplan.sources.config_model import model_from_config
from kvplan.workload import Workload

# Norms of whole rows of queries and keys that are copied to a card: 20 kB.
A_LITTLE_OFF = ("minimax-m2",)
TABLES = oracle("llama_cpp_trials.jsonl")


@pytest.mark.parametrize("table", TABLES, ids=[table["model"] for table in TABLES])
def test_every_part_is_llama_cpps_own(table):
    model = model_of(table)
    for values in table["rows"]:
        row = dict(zip(table["columns"], values, strict=True))
        settings, cards = settings_of(row), row["num_cards"]
        shares = shares_of(row, settings) if cards else ()
        placed = place(model, table["mix"], settings, shares, "cuda" if cards else "cpu")
        buffers = compute_buffers(model, table["mix"], settings, cells_for(model, settings), shares)
        held = (*placed.devices, placed.host)
        assert [each.weight_bytes for each in held] == row["weights"], row
        assert [each.cache_bytes + each.state_bytes for each in held] == row["caches"], row
        planned = [each.expected for each in (*buffers.cards, buffers.host)]
        printed = [*row["cards"], row["host"]]
        if row["n_gpu_layers"] < 999 and table["model"] in A_LITTLE_OFF:
            assert planned == pytest.approx(printed, rel=0.001), row
        else:
            assert planned == printed, row


# Configs of embedding models, and what llama.cpp 0c1e57098 prints for their fp16 files over one card at 512
# tokens: weights on the card and the host, then compute buffers.
ENCODERS = {
    "bge-large": (
        {
            "model_type": "bert", "architectures": ["BertModel"], "hidden_size": 1024,
            "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096,
            "vocab_size": 30522, "max_position_embeddings": 512, "type_vocab_size": 2,
        },
        [605265920, 64614400], [13111424, 6819872],
    ),
    "nomic-embed": (
        {
            "model_type": "nomic_bert", "architectures": ["NomicBertModel"], "hidden_size": 768,
            "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
            "vocab_size": 30522, "max_position_embeddings": 2048, "type_vocab_size": 2,
        },
        [226646016, 46887936], [22549632, 3674144],
    ),
    "modernbert-large": (
        {
            "model_type": "modernbert", "architectures": ["ModernBertModel"], "hidden_size": 1024,
            "num_hidden_layers": 28, "num_attention_heads": 16, "intermediate_size": 2624,
            "vocab_size": 50368, "max_position_embeddings": 8192, "local_attention": 128,
            "global_attn_every_n_layers": 3,
        },
        [686526464, 103153664], [21366912, 5247008],
    ),
    "embeddinggemma": (
        {
            "model_type": "gemma3_text", "architectures": ["Gemma3TextModel"],
            "use_bidirectional_attention": True, "hidden_size": 768, "num_hidden_layers": 24,
            "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 256, "intermediate_size": 1152,
            "vocab_size": 262144, "max_position_embeddings": 2048, "sliding_window": 512,
        },
        [605899776, 402653184], [13371520, 4198432],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ENCODERS)
def test_embedding_models_are_planned_from_their_configs(name):
    config, weights, compute = ENCODERS[name]
    model = model_from_config(config, name=name, source="test")
    settings = settings_of_load(Workload(), 512, "f16", "f16", is_causal=is_causal(model))
    placed = place(model, "gguf-f16", settings, (1,), "cuda")
    buffers = compute_buffers(model, "gguf-f16", settings, cells_for(model, settings), (1,))
    held = (*placed.devices, placed.host)
    assert [each.weight_bytes for each in held] == weights
    assert [each.cache_bytes + each.state_bytes for each in held] == [0, 0]
    assert [each.expected for each in (*buffers.cards, buffers.host)] == compute
    assert buffers.host.basis == "calibrated"
