"""transformers' own caches, run here and now: small random models, and the classes of real configs."""

import pytest
from oracle_tables import oracle

from kvplan.engines import engine_named
from kvplan.errors import CannotTell
from kvplan.plan import plan
from kvplan.sources.config_model import model_from_config
from kvplan.verify.reduced_config import layers_needed, reduced
from kvplan.verify.transformers_cache import forward, random_model, sum_bytes
from kvplan.workload import Workload

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install -e '.[test,verify]' transformers"
)
pytest.importorskip("torch", reason="torch is not installed: pip install -e '.[test,verify]'")
pytestmark = pytest.mark.filterwarnings("ignore")

ROWS = [row for row in oracle("transformers_cache.jsonl") if row["model_class"].endswith("ForCausalLM")]
# What the installed release must be able to run for the test to mean something.
LEAST_CLASSES = 30


def planned(model, tokens, batch, *words):
    workload = Workload(context_tokens=tokens, num_sequences=batch, engine_options=words)
    return plan(model, workload, (), engine_named("transformers"))


def test_small_random_models_cache_what_is_planned():
    """Every causal class the installed release can build, at two lengths and batches."""
    equal, wrong, unbuilt = [], {}, {}
    for row in ROWS:
        config = dict(row["config"], torch_dtype="float32")
        model = model_from_config(config, name=row["model_class"], source="test")
        try:
            built = random_model(config, model.model_type, "cpu")
            held = [(shape, forward(built, *shape, "cpu")) for shape in ((1, 2), (17, 1), (40, 3))]
        except (CannotTell, IndexError, RuntimeError) as problem:
            # Classes that need keys the trimmed configs lack, or hand out no cache.
            unbuilt[row["model_class"]] = str(problem)
            continue
        for shape, one in held:
            cache = planned(model, *shape).cache
            if one.held_bytes != cache.total.expected:
                wrong[row["model_class"], shape] = (one.held_bytes, cache.total.expected)
        equal.append(row["model_class"])
    assert wrong == {}
    assert len(set(equal)) >= LEAST_CLASSES, unbuilt


@pytest.mark.parametrize("name", ["llama-3-8b", "gemma-3-4b", "deepseek-v2-lite", "qwen3-next-80b-a3b"])
@pytest.mark.parametrize("static", [False, True])
def test_the_classes_of_real_configs_keep_what_is_planned(name, static, answer):
    words = ("--", "--cache-implementation", "static") if static else ()
    code, said = answer(
        "verify",
        name,
        "--against",
        "transformers",
        "--device",
        "cpu",
        "--ctx",
        "1100",
        "--batch",
        "2",
        *words,
    )
    assert (code, said["verdict"]) == (0, "agrees"), said
    rows = {row["name"]: row for row in said["comparisons"]}
    assert rows["whole_cache"]["planned"]["expected"] == rows["whole_cache"]["measured"]
    assert rows["storage_at_peak"]["status"] == "agrees"


def test_a_window_is_cut_by_the_class_itself():
    config = {
        "model_type": "mistral", "architectures": ["MistralForCausalLM"], "hidden_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64,
        "vocab_size": 128,
        "sliding_window": 16, "torch_dtype": "float32", "head_dim": 16,
    }  # fmt: skip
    held = forward(random_model(config, "mistral", "cpu"), 50, 1, "cpu")
    # 15 tokens of 2 heads of 16, keys and values, 4 bytes, 2 layers.
    assert held.held_bytes == 15 * 2 * 16 * 2 * 4 * 2
    assert held.classes == {"DynamicSlidingWindowLayer": 2}


def test_a_reduced_model_runs(answer):
    code, said = answer("verify", "llama-3-8b", "--forward", "--device", "cpu", "--ctx", "64", "--batch", "2")
    assert (code, said["verdict"]) == (0, "agrees")
    assert "1 of 32 layers" in said["warnings"][-1]["message"]


def test_reducing_keeps_every_kind_of_layer():
    config = {
        "num_hidden_layers": 4, "layer_types": ["a", "a", "a", "b"], "vocab_size": 150_000,
        "hidden_size": 2048,
        "text_config": {"num_hidden_layers": 4, "layer_types": ["a", "a", "a", "b"]}, "pad_token_id": 149_999,
    }  # fmt: skip
    small = reduced(config, 4, 2)
    assert small["num_hidden_layers"] == 2
    assert small["layer_types"] == ["a", "a"]
    assert small["text_config"] == {"num_hidden_layers": 2, "layer_types": ["a", "a"]}
    assert (small["hidden_size"], small["vocab_size"]) == (2048, 1024)
    assert "pad_token_id" not in small


def test_enough_layers_are_kept_for_every_kind():
    from cache_kinds import FULL, KINDS, model_of

    assert layers_needed(model_of(KINDS["sliding"], 5)) == 2
    assert layers_needed(model_of(FULL, 5)) == 1


def test_another_engine_is_refused(answer):
    code, said = answer("verify", "llama-3-8b", "--against", "transformers", "--engine", "vllm")
    assert (code, said["error"]["code"]) == (2, "option-clash")
    code, said = answer("verify", "llama-3-8b", "--against", "nothing")
    assert (code, said["error"]["code"]) == (2, "invalid-value")


def test_an_unknown_type_cannot_be_built(answer):
    code, said = answer(
        "verify", "baichuan2-7b", "--against", "transformers", "--device", "cpu", "--ctx", "64"
    )
    assert (code, said["error"]["code"]) == (3, "cannot-tell")


def test_counters_are_not_counted():
    import torch

    assert sum_bytes({"keys": torch.zeros(2, 3), "position": torch.tensor([5]), "length": 7}) == 24
