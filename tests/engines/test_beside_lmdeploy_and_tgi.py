"""Drafts and adapters beside the model under LMDeploy and TGI: counted, or said to be left out."""

import pytest

from kvplan.deploy.adapters import with_adapters
from kvplan.deploy.drafting import draft_options
from kvplan.deploy.flags import read_flags
from kvplan.engines import engine_named
from kvplan.engines.lmdeploy.blocks import slot_bytes
from kvplan.frozen import replace
from kvplan.hardware.parse import parse_gpus
from kvplan.layers import GatedDeltaState
from kvplan.plan import plan
from kvplan.sources.catalog import find
from kvplan.workload import Workload

# Elements that one rank of LoRA has over all of a layer of Llama 3.1 8B: q, o, k, v, gate, up, down.
LLAMA_LAYER = 2 * 8192 + 2 * 5120 + 3 * 18432
QUERY_AND_VALUE = 8192 + 5120


def planned(engine, name, gpu="h100", words=(), draft=None, adapters=(), context=8192):
    model = find(name)
    if draft is not None:
        model = replace(model, draft=find(draft))
    options = read_flags(engine, words).options
    if draft is not None:
        options = draft_options(engine, draft, options)
    workload = Workload(context_tokens=context, engine_options=options)
    if adapters:
        workload = with_adapters(workload, engine, adapters)
    return plan(model, workload, parse_gpus((gpu,)), engine_named(engine))


def part(result, name):
    return next((one.bytes for one in result.devices[0].components if one.name == name), None)


def codes(result):
    return [notice.code for notice in result.warnings]


def test_prediction_layers_are_blocks_and_weights():
    plain = planned("lmdeploy", "deepseek-v3", "8xh200")
    drafted = planned("lmdeploy", "deepseek-v3", "8xh200", ["--speculative-algorithm", "deepseek_mtp"])
    block = 64 * 576 * 2
    assert plain.cache.page_size_bytes == 61 * block
    assert drafted.cache.page_size_bytes == 62 * block
    weights = part(drafted, "draft_model")
    # An embedding and a head of 129,280 rows of 7,168 in 16 bits, an eighth of both on each rank.
    assert weights.high - weights.low == 2 * 2 * 129_280 * 7168 // 8
    assert "draft-assumed" not in codes(drafted)


def test_states_are_kept_for_each_token_that_may_be_taken_back():
    state = GatedDeltaState(num_v_heads=32, num_k_heads=16, head_k_dim=128, head_v_dim=128, conv_kernel=4)
    channels, matrix = 2 * 16 * 128 + 32 * 128, 32 * 128 * 128
    assert slot_bytes([(state, 3)], 1) == 3 * 2 * (4 * channels + matrix)
    assert slot_bytes([(state, 3)], 1, 2) == 3 * 2 * (6 * channels + 3 * matrix)


def test_a_draft_that_was_not_read_is_said_and_wide():
    words = ["--backend", "pytorch", "--speculative-algorithm", "eagle3", "--speculative-draft-model", "a/b"]
    result = planned("lmdeploy", "llama-3.1-8b", words=words)
    assert "draft-assumed" in codes(result)
    assert part(result, "draft_model").high > 10 * part(result, "draft_model").low
    assert part(result, "kv_cache").low < part(result, "kv_cache").expected < part(result, "kv_cache").high


def test_a_head_that_was_read_is_between_its_layers_and_all_it_may_hold():
    words = ["--backend", "pytorch", "--speculative-algorithm", "eagle3"]
    result = planned("lmdeploy", "llama-3.1-8b", words=words, draft="llama-3.2-1b")
    # Blocks of 64 tokens: 32 layers of 4,096 B a token, 16 of 2,048.
    assert result.cache.page_size_bytes == 64 * (32 * 4096 + 16 * 2048)
    weights = part(result, "draft_model")
    layers = 2 * (1_235_814_400 - 128_256 * 2048)
    assert weights.low == layers + 2 * 3 * 4096 * 2048
    assert weights.low < weights.expected < weights.high


def test_turbomind_leaves_drafts_and_adapters_out_and_it_is_said():
    words = ["--speculative-algorithm", "eagle3", "--speculative-draft-model", "a/b"]
    for result in (
        planned("lmdeploy", "llama-3.1-8b", words=words),
        planned("lmdeploy", "llama-3.1-8b", adapters=(16,)),
        planned("lmdeploy", "llama-3.1-8b", words=["--adapters", "a=x", "b=y"]),
    ):
        assert "flag-without-effect" in codes(result)
        assert part(result, "draft_model") is None
        assert part(result, "adapters") is None


@pytest.mark.parametrize(("engine", "words"), [("lmdeploy", ["--backend", "pytorch"]), ("tgi", [])])
def test_adapters_lie_beside_the_model_in_16_bits(engine, words):
    one = part(planned(engine, "llama-3.1-8b", words=words, adapters=(16,) * 4), "adapters")
    assert one.expected == one.high == 2 * 16 * 4 * 32 * LLAMA_LAYER
    assert one.low == 2 * 16 * 4 * 32 * QUERY_AND_VALUE
    two = part(planned(engine, "llama-3.1-8b", "2xh100", words, adapters=(16,) * 4), "adapters")
    assert (two.low, two.high) == (one.low // 2, one.high)


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ("lmdeploy", ["--backend", "pytorch", "--adapters", "a=one/a", "b=one/b"]),
        ("tgi", ["--lora-adapters", "one/a,one/b"]),
    ],
)
def test_adapters_that_are_only_named_are_an_interval_of_ranks(engine, words):
    named = part(planned(engine, "llama-3.1-8b", words=words), "adapters")
    assert named.low == 2 * 8 * 2 * 32 * QUERY_AND_VALUE
    assert named.high == 2 * 128 * 2 * 32 * LLAMA_LAYER


def test_n_grams_keep_no_memory():
    plain, drafted = (
        planned("tgi", "llama-3.1-8b"),
        planned("tgi", "llama-3.1-8b", words=["--speculate", "3"]),
    )
    assert codes(drafted) == ["draft-by-ngrams"]
    assert part(drafted, "draft_model") is None
    assert part(drafted, "weights") == part(plain, "weights")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--dp", "2"], "--dp: data-parallel attention"),
        (["--hf-overrides", '{"a": 1}'], "--hf-overrides: a changed config"),
        (["--role", "Prefill"], "--role: a server that prefills"),
    ],
)
def test_lmdeploy_s_flags_that_are_not_planned_are_said(words, says):
    found = planned("lmdeploy", "llama-3.1-8b", words=words).warnings
    assert any(notice.message.startswith(says) for notice in found if notice.code == "flag-not-planned")
    assert not planned("lmdeploy", "llama-3.1-8b", words=["--dp", "1", "--role", "Hybrid"]).warnings


def test_turbomind_s_lines_by_version():
    workload = Workload(context_tokens=8192)
    for version, begins in (
        ("0.9.2", "[BlockManager] block_size = 8.000 MB"),
        ("0.17.0", "Object cache budget: "),
    ):
        result = plan(
            find("llama-3.1-8b"), workload, parse_gpus(("h100",)), engine_named(f"lmdeploy@{version}")
        )
        assert result.startup_lines[0].startswith(begins)
