"""vLLM: the LoRA slots that ``--enable-lora`` allocates before any adapter is loaded.

vLLM 0.33 lora/layers: every linear layer keeps ``max_loras`` pairs of matrices of ``max_lora_rank``, in
the model's type. The first of a pair is whole on every rank where the layer splits its outputs, the
second where it splits its inputs.
"""

from kvplan.engines.vllm.settings import whole
from kvplan.model import ModelSpec
from kvplan.quantity import Quantity
from kvplan.sharding import pipeline_split, stage_groups
from kvplan.tensors import Tensor
from kvplan.workload import Workload

DEFAULT_MAX_LORAS, DEFAULT_MAX_LORA_RANK = 1, 16
ADAPTED_ROLES = ("attention", "mlp", "shared_expert", "recurrent")
WHY = "max_loras slots of max_lora_rank on every linear layer"


def adapter_bytes(model: ModelSpec, workload: Workload, tensor: int, pipeline: int, stage: int) -> Quantity:
    """Return the slots of one rank under ``--enable-lora``.

    Experts take slots too where their kernels support adapters: the upper bound counts them.
    """
    slots = whole(workload.option("max_loras"), DEFAULT_MAX_LORAS)
    rank = whole(workload.option("max_lora_rank"), DEFAULT_MAX_LORA_RANK)
    is_sharded = bool(workload.option("fully_sharded_loras"))
    sizes = pipeline_split(sum(group.count for group in model.layers), pipeline)
    dense = experts = 0
    for group in stage_groups(model.layers, sum(sizes[:stage]), sizes[stage]):
        for part in group.layer.tensors:
            if len(part.shape) != 2 or "conv" in part.name:
                continue
            amount = slots * rank * 2 * group.count * _row(part, tensor, is_sharded=is_sharded)
            if part.role in ADAPTED_ROLES:
                dense += amount
            elif part.role == "expert":
                experts += amount * part.count
    return Quantity(dense, dense, dense + experts, "assumed", WHY)


def _row(part: Tensor, tensor: int, *, is_sharded: bool) -> int:
    """Return the elements of a rank-1 pair on one rank; ``--fully-sharded-loras`` splits both halves."""
    num_out, num_in = part.shape
    if part.split == "none":
        return num_in + num_out
    if is_sharded:
        return num_in // tensor + num_out // tensor
    return num_in // tensor + num_out if part.split == "in" else num_in + num_out // tensor
