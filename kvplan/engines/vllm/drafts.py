"""vLLM: the weights of a separate model that drafts, on the ranks of the last stage.

vLLM 0.33 v1/spec_decode/draft_model.py (a whole model: embeddings and output rows are its own, sharded
like the served one), llm_base_proposer.py (heads take the served model's embeddings and output rows where
their checkpoint has none or equal ones), model_executor/models/llama_eagle.py and llama_eagle3.py (the
projection that joins their inputs, replicated; queries, keys and values over both inputs).
"""

from collections.abc import Mapping

from kvplan.engines.vllm.formats import check_weights, weights_format_of
from kvplan.engines.vllm.speculative import NONE, Speculation, separate_draft
from kvplan.engines.vllm.weights import loaded_weights
from kvplan.model import ModelSpec
from kvplan.quantity import Quantity
from kvplan.sharding import rank_share
from kvplan.units import GIB, MIB, ceil_div
from kvplan.weight_formats import weight_format
from kvplan.weights import tensor_bytes
from kvplan.workload import Workload

AUX_HIDDEN_STATES, EAGLE_INPUTS = 3, 2
ATTENTION_INPUTS = ("q_proj", "k_proj", "v_proj")
UNKNOWN = Quantity(100 * MIB, 2 * GIB, 16 * GIB, "assumed", "the draft model was not read")


def draft_bytes(
    model: ModelSpec, speculation: Speculation, tensor: int, expert: int, version: tuple[int, int]
) -> Quantity | None:
    """Return a rank's bytes of the separate draft; None where none drafts.

    Raises UnknownFormat for a draft in a format that vLLM does not load.
    """
    if speculation.is_unknown:
        low, middle, high = (
            ceil_div(amount, tensor) for amount in (UNKNOWN.low, UNKNOWN.expected, UNKNOWN.high)
        )
        return Quantity(low, middle, high, UNKNOWN.basis, UNKNOWN.why)
    draft = separate_draft(model, speculation)
    if draft is None:
        return None
    format_name = weights_format_of(draft, Workload())
    check_weights(format_name)
    whole = loaded_weights(draft, format_name, tensor, 1, expert, 0, NONE, version=version)
    if speculation.method == "draft_model":
        return Quantity(whole.low, whole.expected, whole.high, whole.basis, f"{draft.name} in {format_name}")
    return _head_bytes(model, draft, speculation, format_name, whole, tensor)


def _head_bytes(
    model: ModelSpec,
    draft: ModelSpec,
    speculation: Speculation,
    format_name: str,
    whole: Quantity,
    tensor: int,
) -> Quantity:
    """Price a head: expected with the served model's embeddings, between that and all of its own."""
    own = weight_format("bf16")
    rows = [part for part in draft.structure.tensors if part.role == "embedding"]
    embeddings = sum(rank_share(part, tensor_bytes(part, own, draft.dtype), tensor, 1) for part in rows)
    heads = [part for part in draft.structure.tensors if part.role == "lm_head"]
    output = sum(rank_share(part, tensor_bytes(part, own, draft.dtype), tensor, 1) for part in heads)
    config = draft.config or {}
    kept = _draft_rows(config, draft) * draft.structure.hidden_size * 2 // tensor
    joined = _joining_bytes(config, model, draft, speculation)
    joined += _wider_inputs_bytes(draft, format_name, tensor) if speculation.method == "eagle3" else 0
    layers = whole.expected - embeddings - output
    least = max(0, layers - (whole.expected - whole.low)) + joined
    expected = layers + joined + (kept if speculation.method == "eagle3" else 0)
    most = whole.high + joined + kept
    return Quantity(
        least, max(least, expected), max(most, expected), "assumed", f"{draft.name} in {format_name}"
    )


def _draft_rows(config: Mapping[str, object], draft: ModelSpec) -> int:
    """Return the output rows of a head: its own shortened vocabulary, else the whole one."""
    rows = config.get("draft_vocab_size")
    return rows if isinstance(rows, int) else draft.structure.vocab_size


def _joining_bytes(
    config: Mapping[str, object], model: ModelSpec, draft: ModelSpec, speculation: Speculation
) -> int:
    """Return the projection of a head's inputs to its hidden size, the same on every rank."""
    hidden = draft.structure.hidden_size
    if speculation.method in ("eagle3", "dflash", "dspark"):
        target = config.get("target_hidden_size")
        width = (target if isinstance(target, int) else model.structure.hidden_size) * AUX_HIDDEN_STATES
    else:
        width = hidden * EAGLE_INPUTS
    return width * hidden * 2


def _wider_inputs_bytes(draft: ModelSpec, format_name: str, tensor: int) -> int:
    """Return what the first layer's projections weigh more for reading embedding and state together."""
    weight = weight_format(format_name)
    first = draft.layers[0].layer.tensors if draft.layers else ()
    return sum(
        rank_share(part, tensor_bytes(part, weight, draft.dtype), tensor, 1)
        for part in first
        if any(name in part.name for name in ATTENTION_INPUTS) and len(part.shape) == 2
    )
