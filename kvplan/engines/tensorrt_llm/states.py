"""Recurrent states under TensorRT-LLM: slots for every sequence of a full batch, taken at start.

TensorRT-LLM 1.0 to 1.3 _torch/pyexecutor/mamba_cache_manager.py (MambaCacheManager: convolutions and
matrices of ``max_batch_size`` x pipeline ranks, the matrices in ``mamba_ssm_cache_dtype``; drafting adds
a matrix for each token that may be taken back). The second cache manager of later versions keeps states
in the pool, as many as run.
"""

from kvplan.engines.base import Parallel
from kvplan.engines.tensorrt_llm.settings import Settings
from kvplan.layers import RECURRENT_STATES
from kvplan.model import ModelSpec
from kvplan.quantity import ZERO, Quantity
from kvplan.sharding import stage_caches
from kvplan.textbook import state_bytes

WHY = "slots for max_batch_size sequences; the second cache manager keeps those that run"


def state_slots(
    model: ModelSpec, settings: Settings, parallel: Parallel, stage: int, num_sequences: int
) -> Quantity:
    """Return what a rank of ``stage`` sets aside for states: the load's at least, a full batch's."""
    ranks = 1 if settings.attention_dp else parallel.tensor
    one = sum(
        state_bytes(cache, "bfloat16") // ranks * count
        for cache, count in stage_caches(model, parallel.pipeline, stage)
        if isinstance(cache, RECURRENT_STATES)
    )
    if not one:
        return ZERO
    slots = settings.max_batch_size * parallel.pipeline
    # Matrices in 16 bits are half of those in 32, which the textbook takes where the model does.
    return Quantity(
        min(num_sequences, slots) * one // 2,
        slots * one,
        2 * slots * one * (1 + settings.speculation.num_tokens),
        "assumed",
        WHY,
    )
