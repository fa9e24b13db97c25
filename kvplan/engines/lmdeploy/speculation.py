"""Speculative decoding and adapters under LMDeploy: its PyTorch backend's, left out by TurboMind.

LMDeploy 0.18 pytorch/spec_decode (proposers eagle, eagle3, deepseek_mtp, hy3_mtp, qwen3_5_mtp, dflash),
pytorch/engine/executor/base.py (_get_num_gpu_blocks: a draft's blocks are as many as the model's own),
pytorch/models/deepseek_mtp.py (every prediction layer has an embedding and a head of its own) and
pytorch/adapter (all adapters' matrices lie beside the model's before memory is measured).
"""

from functools import lru_cache

from kvplan.adapters import divided_adapters_bytes
from kvplan.engines.base import Notice
from kvplan.engines.drafts import (
    EAGLE3_STATES,
    EAGLE_STATES,
    NONE,
    Draft,
    head,
    not_read,
    own_layers,
    unknown,
    vocabulary_bytes,
)
from kvplan.engines.lmdeploy.settings import Settings
from kvplan.model import ModelSpec, num_layers
from kvplan.quantity import ZERO, Quantity
from kvplan.workload import Workload

OWN_LAYERS = ("deepseek_mtp", "hy3_mtp", "qwen3_5_mtp")
# Algorithms whose prediction layers share the model's embeddings.
SHARING = ("qwen3_5_mtp",)
VOCABULARY_WHY = "prediction layers with an embedding and a head of their own, or the model's"
SPLIT_WHY = "LoRA in 16 bits: which matrices, and which of them ranks divide, is the adapter's choice"
IGNORED = "speculative decoding and adapters are the PyTorch backend's: TurboMind leaves them out"


@lru_cache(maxsize=512)
def draft_of(model: ModelSpec, settings: Settings, format_name: str, tensor: int) -> Draft:
    """Return what drafts on a rank."""
    algorithm = settings.speculative_algorithm
    if not algorithm:
        return NONE
    if algorithm in OWN_LAYERS and model.structure.mtp_layers:
        weights = own_layers(model, format_name, tensor)
        if algorithm not in SHARING:
            rows = vocabulary_bytes(model, tensor)
            low, most = weights.low, weights.high + rows
            weights = Quantity(low, most, most, "assumed", VOCABULARY_WHY)
        return Draft(weights, model.structure.mtp_layers, note="prediction layers (MTP)")
    if model.draft is None:
        return unknown(tensor)
    states = EAGLE_STATES if algorithm == "eagle" else EAGLE3_STATES
    note = f"{model.draft.name} ({num_layers(model.draft.structure)} layers)"
    return Draft(head(model, model.draft, tensor, states), model.draft.layers, note=note)


def adapter_bytes(model: ModelSpec, workload: Workload, settings: Settings, tensor: int) -> Quantity:
    """Return a rank's adapters: those of ``--lora``, else as many as ``--adapters`` names."""
    if settings.backend == "turbomind":
        return ZERO
    return divided_adapters_bytes(model, workload.adapters, num_named(workload), tensor, SPLIT_WHY)


def num_named(workload: Workload) -> int:
    """Return how many adapters ``--adapters`` names."""
    named = workload.option("adapters")
    return len(named) if isinstance(named, tuple | list) else int(isinstance(named, str) and named != "")


def beside_notices(model: ModelSpec, workload: Workload, settings: Settings) -> tuple[Notice, ...]:
    """Return what of drafts and adapters is left out or assumed."""
    found: list[Notice] = []
    asked = workload.option("speculative_algorithm")
    if settings.backend == "turbomind" and (asked or workload.adapters or num_named(workload)):
        found.append(Notice("flag-without-effect", IGNORED))
    algorithm = settings.speculative_algorithm
    if algorithm and model.draft is None and not (algorithm in OWN_LAYERS and model.structure.mtp_layers):
        named = workload.option("speculative_draft_model") or "(unnamed)"
        found.append(not_read(str(named)))
    return tuple(found)
