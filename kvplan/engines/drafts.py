"""What drafts tokens beside a model, for engines whose cache is a share of what is free after loading.

Its weights are loaded before that share is taken, its layers have rows in the same pool. Heads take the
served model's embeddings where their checkpoint has none (EAGLE, EAGLE-3); the checkpoint's own
prediction layers are known exactly. Shared by TensorRT-LLM and LMDeploy: each says which of these it has.
"""

from collections.abc import Iterable
from functools import lru_cache

from kvplan.engines.base import Notice
from kvplan.frozen import dataclass
from kvplan.layers import LayerGroup
from kvplan.model import ModelSpec
from kvplan.quantity import ZERO, Quantity, exact
from kvplan.sharding import rank_share, stage_weight_bytes
from kvplan.tensors import Tensor
from kvplan.units import GIB, MIB, ceil_div
from kvplan.weight_formats import weight_format
from kvplan.weights import format_name_of, tensor_bytes

# EAGLE-3's head joins the hidden states of three layers, EAGLE's the state and the embedding.
EAGLE3_STATES, EAGLE_STATES = 3, 2
UNKNOWN = Quantity(100 * MIB, 2 * GIB, 16 * GIB, "assumed", "the draft model was not read")
# What a token of a draft that was not read may keep: one layer's latent, 32 layers of 8 heads of 128.
UNKNOWN_TOKEN_BYTES = Quantity(1024, 4096, 128 * 1024, "assumed", "the draft model was not read")


@dataclass(frozen=True, slots=True)
class Draft:
    """What drafts on one rank: its weights, the layers that share the pool, what is not known.

    ``token_bytes`` are a token's rows where no layers describe them. ``note`` says what it is, empty
    where nothing drafts with weights of its own.
    """

    weights: Quantity = ZERO
    layers: tuple[LayerGroup, ...] = ()
    token_bytes: Quantity = ZERO
    note: str = ""


NONE = Draft()


@lru_cache(maxsize=512)
def own_layers(model: ModelSpec, format_name: str, tensor: int) -> Quantity:
    """Return a rank's bytes of the checkpoint's own prediction layers, embedding and head shared."""
    weight = weight_format(format_name)
    parts = [(part, group.count) for group in model.structure.mtp_layers for part in group.layer.tensors]
    parts += [(part, 1) for part in model.structure.mtp_tensors]
    amount = sum(
        rank_share(part, tensor_bytes(part, weight, model.dtype), tensor, 1) * count for part, count in parts
    )
    return exact(amount, "the checkpoint's own prediction layers")


@lru_cache(maxsize=512)
def vocabulary_bytes(model: ModelSpec, tensor: int) -> int:
    """Return a rank's bytes of one embedding and one output projection in 16 bits."""
    rows = Tensor(
        "rows", (model.structure.vocab_size, model.structure.hidden_size), "embedding", split="vocab"
    )
    return 2 * rank_share(rows, 2 * rows.num_elements, tensor, 1)


@lru_cache(maxsize=512)
def separate(draft: ModelSpec, tensor: int) -> Quantity:
    """Return a rank's bytes of a whole model that drafts, in the format it is published in."""
    format_name = format_name_of(draft, None)
    return exact(stage_weight_bytes(draft, format_name, tensor, 1, 1, 0), f"{draft.name} in {format_name}")


@lru_cache(maxsize=512)
def head(model: ModelSpec, draft: ModelSpec, tensor: int, states: int) -> Quantity:
    """Return a rank's bytes of a head that was read: between its layers alone and all it may hold.

    Expected are its layers, the projection that joins ``states`` hidden states (whole on every rank),
    its first layer's wider inputs and output rows of its own vocabulary.
    """
    format_name = format_name_of(draft, None)
    whole = stage_weight_bytes(draft, format_name, tensor, 1, 1, 0)
    outside = sum(
        rank_share(part, tensor_bytes(part, weight_format("bf16"), draft.dtype), tensor, 1)
        for part in draft.structure.tensors
        if part.role in ("embedding", "lm_head")
    )
    hidden = draft.structure.hidden_size
    joined = 2 * states * model.structure.hidden_size * hidden
    wider = _wider_inputs(draft, format_name, tensor) if states == EAGLE3_STATES else 0
    rows = (draft.config or {}).get("draft_vocab_size")
    kept = 2 * (rows if isinstance(rows, int) else draft.structure.vocab_size) * hidden // tensor
    layers = max(0, whole - outside)
    return Quantity(
        layers + joined,
        layers + joined + wider + kept,
        max(whole, layers + kept) + joined + wider + kept,
        "assumed",
        f"{draft.name} in {format_name}: the served model's embeddings serve it, or its own",
    )


def _wider_inputs(draft: ModelSpec, format_name: str, tensor: int) -> int:
    """Return what the first layer's projections weigh more for reading embedding and state together."""
    weight = weight_format(format_name)
    first = draft.layers[0].layer.tensors if draft.layers else ()
    return sum(
        rank_share(part, tensor_bytes(part, weight, draft.dtype), tensor, 1)
        for part in first
        if part.name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight", "qkv_proj.weight"))
    )


def unknown(tensor: int) -> Draft:
    """Return a draft that nobody read: wide intervals for weights and rows, divided over the ranks."""
    low, expected, high = (
        ceil_div(amount, tensor) for amount in (UNKNOWN.low, UNKNOWN.expected, UNKNOWN.high)
    )
    return Draft(
        Quantity(low, expected, high, UNKNOWN.basis, UNKNOWN.why),
        token_bytes=UNKNOWN_TOKEN_BYTES,
        note="a draft model that was not read",
    )


def not_read(named: str) -> Notice:
    """Return the warning of a draft that nobody read."""
    text = (
        f"the draft {named or '(unnamed)'} was not read: its weights and cache are wide intervals; "
        "--draft MODEL reads it"
    )
    return Notice("draft-assumed", text)


def per_layer(groups: Iterable[LayerGroup], count: int) -> tuple[LayerGroup, ...]:
    """Return ``count`` layers like the first that a checkpoint has: one module replayed, or several."""
    first = next(iter(groups), None)
    return (LayerGroup(first.layer, count),) if first is not None and count else ()
