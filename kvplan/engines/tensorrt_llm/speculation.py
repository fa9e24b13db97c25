"""Speculative decoding under TensorRT-LLM: what ``speculative_config`` loads and keeps.

TensorRT-LLM 1.0 to 1.4 llmapi/llm_args.py (the ``decoding_type`` of each config, their aliases),
_torch/speculative/utils.py (get_num_spec_layers, get_num_extra_kv_tokens), _torch/pyexecutor/_util.py
(_get_kv_size_per_token: a draft's rows are planned with the model's own, on the last pipeline rank;
_get_token_num_for_estimation: tokens a sequence is given beyond its own).
"""

from kvplan.engines.base import Notice
from kvplan.engines.drafts import (
    EAGLE3_STATES,
    EAGLE_STATES,
    NONE,
    Draft,
    head,
    not_read,
    own_layers,
    per_layer,
    separate,
    unknown,
)
from kvplan.frozen import dataclass
from kvplan.layers import LayerGroup
from kvplan.model import ModelSpec, num_layers
from kvplan.quantity import Quantity
from kvplan.workload import Workload

# Types without weights and cache of their own.
WITHOUT_MODEL = frozenset(("ngram", "sa", "user_provided", "auto", "lookahead", "save_state"))
EAGLES = frozenset(("eagle", "eagle3"))
# The key that names the draft, by version.
DRAFT_KEYS = ("speculative_model", "speculative_model_dir")
MODULES_WHY = "one prediction layer replayed, or as many as num_nextn_predict_layers, by version"


@dataclass(frozen=True, slots=True)
class Speculation:
    """The drafting asked for: its type in small letters, tokens a step, prediction layers, its model."""

    kind: str = ""
    num_tokens: int = 0
    num_modules: int = 1
    named: str = ""

    @property
    def extra_tokens(self) -> int:
        """Tokens a sequence is given beyond its own: drafts of two steps in flight and the extra rows."""
        return 3 * self.num_tokens - 1 if self.num_tokens else 0


def speculation_of(workload: Workload) -> Speculation:
    """Return the drafting that ``speculative_config`` asks for."""
    asked = workload.option("speculative_config")
    config: dict[str, object] = dict(asked) if isinstance(asked, dict) else {}
    named = next((str(config[key]) for key in DRAFT_KEYS if config.get(key)), "")
    kind = str(config.get("decoding_type") or "").casefold()
    if not kind:
        return Speculation()
    modules = _whole(config.get("num_nextn_predict_layers"), 1)
    tokens = _whole(config.get("max_draft_len"), modules if kind == "mtp" else 1)
    return Speculation(kind, tokens, modules, named)


def draft_of(model: ModelSpec, speculation: Speculation, format_name: str, tensor: int) -> Draft:
    """Return what drafts on a rank of the last stage."""
    kind = speculation.kind
    if not kind or kind in WITHOUT_MODEL:
        return NONE
    if kind == "mtp" and model.structure.mtp_layers:
        weights = own_layers(model, format_name, tensor)
        layers = per_layer(model.structure.mtp_layers, speculation.num_modules)
        return Draft(weights, layers, note="prediction layers (MTP)")
    if model.draft is None:
        return unknown(tensor)
    note = f"{model.draft.name} ({num_layers(model.draft.structure)} layers)"
    if kind in EAGLES:
        states = EAGLE3_STATES if kind == "eagle3" or _is_eagle3(model.draft) else EAGLE_STATES
        return Draft(head(model, model.draft, tensor, states), model.draft.layers, note=note)
    return Draft(separate(model.draft, tensor), model.draft.layers, note=note)


def draft_notices(model: ModelSpec, speculation: Speculation) -> tuple[Notice, ...]:
    """Return what of the drafting is assumed."""
    kind = speculation.kind
    if not kind or kind in WITHOUT_MODEL or (kind == "mtp" and model.structure.mtp_layers):
        return ()
    if model.draft is None:
        return (not_read(speculation.named),)
    if kind in EAGLES:
        text = "the head's embeddings are the served model's or its own: its weights are an interval"
        return (Notice("draft-assumed", text),)
    return ()


def bounded(amount: Quantity, speculation: Speculation) -> Quantity:
    """Return the rows of prediction layers: one layer at least where several may be one replayed."""
    if speculation.kind != "mtp" or speculation.num_modules < 2:
        return amount
    least = amount.low // speculation.num_modules
    return Quantity(least, amount.expected, amount.high, "assumed", MODULES_WHY)


def draft_groups(model: ModelSpec, speculation: Speculation) -> tuple[LayerGroup, ...]:
    """Return the layers that draft, planned with the model's own."""
    return draft_of(model, speculation, model.weights_format, 1).layers


def _is_eagle3(draft: ModelSpec) -> bool:
    return "eagle3" in f"{draft.architecture} {draft.name}".casefold()


def _whole(value: object, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else default
