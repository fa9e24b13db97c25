"""Models that draft beside the one that vLLM serves: weights, cache, refusals, held to hand-made figures."""

from dataclasses import replace

import pytest

from kvplan.engines import engine_named
from kvplan.hardware.parse import parse_gpus
from kvplan.judge import judge
from kvplan.plan import plan
from kvplan.sources import catalog
from kvplan.sources.config_model import model_from_config
from kvplan.workload import Workload

# Llama-3.2-1B: 1,235,814,400 parameters, its config's head tied.
SMALL_BYTES = 2 * 1_235_814_400
SMALL_TOKEN, LARGE_TOKEN = 2 * 16 * 8 * 64 * 2, 2 * 32 * 8 * 128 * 2
# config.json of yuhuili/EAGLE3-LLaMA3.1-Instruct-8B.
EAGLE3 = {
    "architectures": ["LlamaForCausalLMEagle3"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 1,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 2048,
    "vocab_size": 128256,
    "draft_vocab_size": 32000,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
}
# Queries, keys and values over 8192 inputs, output, MLP, joining projection, output rows: its file is
# 850 MB.
EAGLE3_BYTES = 2 * (
    8192 * (4096 + 1024 + 1024) + 4096 * 4096 + 3 * 4096 * 14336 + 3 * 4096 * 4096 + 32000 * 4096
)


def planned(draft=None, *, gpus=("h100",), tensor=1, name="llama-3.1-8b", **config):
    model = catalog.find(name)
    if draft is not None:
        found = catalog.find(draft) if isinstance(draft, str) else draft
        model = replace(model, draft=found)
        config.setdefault("model", "draft")
    options = (("speculative_config", {"num_speculative_tokens": 3} | config),) if config else ()
    workload = Workload(
        context_tokens=8192, context_source="flag", tensor_parallel=tensor, engine_options=options
    )
    return plan(model, workload, parse_gpus(gpus), engine_named("vllm"))


def part(result, name):
    return next((each.bytes for each in result.devices[0].components if each.name == name), None)


def test_a_draft_model_is_whole_and_its_layers_join_the_pool():
    alone, drafted = planned(), planned("llama-3.2-1b")
    draft = part(drafted, "draft_model")
    # Rotary tables and the allocator's rounding come on top.
    assert SMALL_BYTES < draft.expected < SMALL_BYTES * 1.02
    assert part(drafted, "weights") == part(alone, "weights")
    blocks = 8192 // 16 + 1
    assert part(drafted, "kv_cache").expected == blocks * 16 * (LARGE_TOKEN + SMALL_TOKEN)
    assert part(drafted, "cuda_graphs").expected > part(alone, "cuda_graphs").expected


def test_a_draft_model_is_split_like_the_served_one():
    one, four = planned("llama-3.2-1b"), planned("llama-3.2-1b", gpus=("4xh100",), tensor=4)
    assert part(four, "draft_model").expected < part(one, "draft_model").expected / 3.5
    assert part(four, "kv_cache").expected == part(one, "kv_cache").expected // 4


def test_a_model_without_a_draft_flag_is_served_alone():
    assert part(planned(), "draft_model") is None
    ngram = planned("llama-3.2-1b", method="ngram")
    assert part(ngram, "draft_model") is None
    assert part(ngram, "kv_cache") == part(planned(), "kv_cache")


def test_other_vocabularies_are_refused_in_vllms_words():
    refused = planned("qwen2.5-0.5b")
    assert judge(refused).status == "refused"
    assert "same vocabulary size. Target model vocab_size=128256. Draft model vocab_size=151936" in (
        refused.refusals[0].message
    )
    assert judge(planned("qwen2.5-0.5b", use_heterogeneous_vocab=True)).status != "refused"


def test_a_draft_on_fewer_ranks_is_refused():
    refused = planned("llama-3.2-1b", gpus=("2xh100",), tensor=2, draft_tensor_parallel_size=1)
    assert "must be the same. Got 1 and 2." in refused.refusals[0].message


def test_an_eagle3_head_is_its_own_layer_projection_and_output_rows():
    head = model_from_config(EAGLE3, name="eagle3", source="published config")
    draft = part(planned(head), "draft_model")
    assert EAGLE3_BYTES < draft.expected < EAGLE3_BYTES * 1.02
    # Its own embeddings only where they differ from the model's.
    assert draft.high - draft.expected >= 128256 * 4096 * 2
    blocks = 8192 // 16 + 1
    assert part(planned(head), "kv_cache").expected == blocks * 16 * LARGE_TOKEN * 33 // 32


@pytest.mark.parametrize("method", ["draft_model", "dflash", "medusa"])
def test_a_draft_that_was_not_read_is_a_wide_interval(method):
    result = planned(method=method, model="/models/nobody")
    draft = part(result, "draft_model")
    assert draft.basis == "assumed"
    assert draft.high >= 8 * draft.expected > 8 * draft.low
    assert [notice.code for notice in result.warnings if "draft" in notice.code] == ["draft-assumed"]
    has_cache = part(result, "kv_cache").high > part(planned(), "kv_cache").high
    assert has_cache is (method != "medusa")


def test_the_models_own_layers_draft_before_a_separate_model():
    alone = planned(name="deepseek-v3", gpus=("8xh200",), tensor=8, method="mtp")
    named = planned("deepseek-v3", name="deepseek-v3", gpus=("8xh200",), tensor=8, method="deepseek_mtp")
    assert part(named, "draft_model") is None
    assert part(named, "weights") == part(alone, "weights")
