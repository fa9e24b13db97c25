"""vLLM: how a model is spread over GPUs, and the layouts it refuses in its own words.

vLLM 0.33 config/model.py (heads and layers), model_executor/layers/vocab_parallel_embedding.py
(vocabulary rows padded to 64), config/parallel.py (ranks).
"""

from kvplan.engines.base import Parallel, Refusal
from kvplan.engines.ranks import divides, layout_of, within_layers
from kvplan.engines.vllm.settings import whole
from kvplan.layers import AttentionCache, LatentAttention, SharedCache
from kvplan.model import ModelSpec, cache_kinds
from kvplan.sharding import VOCAB_PADDING
from kvplan.units import round_up
from kvplan.workload import Workload


def parallel_of(
    model: ModelSpec, workload: Workload, num_devices: int
) -> tuple[Parallel, tuple[Refusal, ...]]:
    """Return the layout: what was asked, else TP over all GPUs if the model divides, else PP.

    Raises OptionClash when data-parallel replicas do not divide the GPUs.
    """
    data = max(1, whole(workload.option("data_parallel_size"), 1))
    tensor, pipeline = layout_of(
        model, workload, num_devices, data, f"--data-parallel-size {data} does not divide"
    )
    refusals = _refusals(model, workload, tensor)
    pipeline, too_many = within_layers(model, pipeline)
    expert = tensor * data if workload.option("enable_expert_parallel") else 1
    return Parallel(tensor, pipeline, data, expert), (*refusals, *too_many)


def _refusals(model: ModelSpec, workload: Workload, tensor: int) -> tuple[Refusal, ...]:
    found: list[Refusal] = []
    heads = model.structure.num_attention_heads
    works = max((n for n in range(1, tensor + 1) if divides(model, n)), default=1)
    rows = round_up(model.structure.vocab_size, VOCAB_PADDING)
    if heads and heads % tensor:
        found.append(
            Refusal(
                "heads-not-divisible",
                f"Total number of attention heads ({heads}) must be divisible by "
                f"tensor parallel size ({tensor}).",
                f"--tp {works}",
            )
        )
    elif rows % tensor:
        found.append(
            Refusal("vocabulary-not-divisible", f"{rows} is not divisible by {tensor}", f"--tp {works}")
        )
    if workload.option("enable_expert_parallel") and not _has_experts(model):
        found.append(
            Refusal(
                "no-experts",
                "Number of experts in the model must be greater than 0 when expert parallelism is enabled.",
            )
        )
    dcp = whole(workload.option("decode_context_parallel_size"), 1)
    if dcp > 1:
        found += _dcp_refusals(model, tensor, dcp)
    return tuple(found)


def _has_experts(model: ModelSpec) -> bool:
    return any(tensor.role == "expert" for group in model.layers for tensor in group.layer.tensors)


def _dcp_refusals(model: ModelSpec, tensor: int, dcp: int) -> list[Refusal]:
    """Decode context parallelism lives inside tensor parallelism (config/parallel.py, config/model.py)."""
    if tensor % dcp:
        return [
            Refusal(
                "dcp-not-divisible",
                f"tp_size={tensor} must be divisible by dcp_size={dcp}.",
                f"-- --decode-context-parallel-size {tensor}",
            )
        ]
    kv_heads = _kv_heads(model)
    if not kv_heads:
        return []
    if tensor <= kv_heads:
        return [
            Refusal(
                "dcp-needs-more-ranks",
                "Decode context parallelism for GQA/MQA requires `--tensor-parallel-size` "
                f"({tensor}) to be greater than the model's total number of KV heads ({kv_heads}).",
                "-- --decode-context-parallel-size 1",
            )
        ]
    if dcp > tensor // kv_heads:
        return [
            Refusal(
                "dcp-too-large",
                f"`--decode-context-parallel-size` ({dcp}) exceeds the maximum supported value "
                f"({tensor // kv_heads}) for `--tensor-parallel-size` ({tensor}) and "
                f"{kv_heads} model KV heads.",
                f"-- --decode-context-parallel-size {tensor // kv_heads}",
            )
        ]
    return []


def _kv_heads(model: ModelSpec) -> int:
    """Return the KV heads of the model's attention, 0 where it keeps latents or none."""
    for cache, _ in cache_kinds(model):
        if isinstance(cache, LatentAttention):
            return 0
        if isinstance(cache, AttentionCache) and not isinstance(cache, SharedCache):
            return int(getattr(cache, "num_key_value_heads", 0))
    return 0
