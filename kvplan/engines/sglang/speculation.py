"""Speculative decoding under SGLang: tokens drafted at once, and layers a draft head adds to the pool.

SGLang 0.5.23 srt/arg_groups/speculative_hook.py and
srt/model_executor/model_runner_components/spec_aux_hidden_state.py.
"""

from kvplan.engines.sglang.reading import whole_or_none
from kvplan.engines.sglang.traits import Traits
from kvplan.model import ModelSpec, num_layers
from kvplan.workload import Workload

MAX_RUNNING = 48
# _auto_choose_speculative_params: 5 steps of 4 branches, 8 tokens, for these; else a chain of 3 and one more.
TREE_CLASSES = ("LlamaForCausalLM", "Grok1ForCausalLM", "Grok1VForCausalLM")
TREE_TOKENS, CHAIN_TOKENS = 8, 4
DRAFT_TOKENS: dict[str, int] = {"NGRAM": 12, "DFLASH": 16}


def algorithm_of(workload: Workload) -> str:
    """Return the algorithm in capitals, empty without one; NEXTN is EAGLE's other name."""
    name = str(workload.option("speculative_algorithm") or "").upper()
    return "EAGLE" if name == "NEXTN" else name


def draft_tokens(workload: Workload, algorithm: str, traits: Traits) -> int:
    """Return speculative_num_draft_tokens: the flag, the steps and one more, or the class's default."""
    if not algorithm:
        return 0
    asked = whole_or_none(workload.option("speculative_num_draft_tokens"))
    steps = whole_or_none(workload.option("speculative_num_steps"))
    eagle = algorithm in ("EAGLE", "EAGLE3")
    if eagle and steps and whole_or_none(workload.option("speculative_eagle_topk")) == 1:
        return steps + 1
    if asked:
        return asked
    if algorithm in DRAFT_TOKENS:
        return DRAFT_TOKENS[algorithm]
    if steps:
        return steps + 1
    return TREE_TOKENS if eagle and traits.architecture in TREE_CLASSES else CHAIN_TOKENS


def draft_layers(model: ModelSpec, workload: Workload, traits: Traits, algorithm: str) -> int:
    """Return the layers that drafting adds to the pool: a draft model's own, one where it is not known."""
    if algorithm not in ("EAGLE", "EAGLE3", "STANDALONE"):
        return 0
    if workload.option("speculative_draft_model_path"):
        return num_layers(model.draft.structure) if model.draft else 1
    return traits.num_nextn_predict_layers
