"""What one decode step reads, and from where: weights, experts, caches, and what crosses the bus."""

from functools import lru_cache

from kvplan.engines.base import Plan, Reads
from kvplan.model import ModelSpec, layer_kinds, num_layers, tensors_of
from kvplan.weights import tensor_table

# Kinds of cache that stop growing; the others are read at every length.
WINDOWED = ("sliding_window", "chunked_attention")
COMPUTES_ON_HOST = ("llama.cpp", "ollama")


@lru_cache(maxsize=1024)
def expert_share(model: ModelSpec, num_sequences: int) -> float:
    """Return the part of the routed experts that a step with ``num_sequences`` tokens reads."""
    for layer, _ in layer_kinds(model):
        for tensor in layer.tensors:
            if tensor.role == "expert" and tensor.count > 1 and tensor.num_active:
                return float(1 - (1 - tensor.num_active / tensor.count) ** num_sequences)
    return 1.0


@lru_cache(maxsize=1024)
def model_reads(model: ModelSpec, format_name: str) -> tuple[int, int, int]:
    """Return (dense, expert, looked-up) weight bytes of the whole model in a format.

    The looked-up part is the token embedding of an untied model and other tables by position.
    """
    dense = expert = looked_up = 0
    tied = model.structure.tie_word_embeddings
    for tensor, times, num_bytes in tensor_table(model, format_name):
        if tensor.role == "expert":
            expert += times * num_bytes
        elif tensor.role == "position_embedding" or (tensor.role == "embedding" and not tied):
            looked_up += times * num_bytes
        elif tensor.role not in ("vision", "audio", "encoder", "projector", "mtp"):
            dense += times * num_bytes
    return dense, expert, looked_up


def device_reads(plan: Plan, index: int) -> Reads:
    """Return what a step reads on one device: the engine's own figures, or an even share."""
    device = plan.devices[index]
    if device.reads is not None:
        return device.reads
    dense, expert, _ = model_reads(plan.model, plan.weights_format)
    stages = max(1, plan.parallel.pipeline)
    ranks = max(1, len(plan.devices) // stages)
    held = sum(part.bytes.expected for part in device.components if part.name == "weights")
    # What lies in system memory is not read here.
    whole = max(1, plan.weights.expected)
    stays = min(1.0, held * len(plan.devices) / whole) if plan.offloaded else 1.0
    return Reads(
        dense_bytes=int(dense * stays) // len(plan.devices),
        expert_bytes=int(expert * stays) // len(plan.devices),
        cache_bytes=plan.cache.total.expected // (ranks * stages),
        num_layers=num_layers(plan.model.structure) // stages,
    )


def host_reads(plan: Plan) -> Reads:
    """Return what a step reads from system memory: the engine's figures, or a share by what is there."""
    if plan.host_reads is not None:
        return plan.host_reads
    if plan.devices and not plan.offloaded:
        return Reads(0, 0, 0, 0)
    dense, expert, _ = model_reads(plan.model, plan.weights_format)
    weights = sum(part.bytes.expected for part in plan.host if part.name == "weights")
    cache = sum(part.bytes.expected for part in plan.host if part.name in ("kv_cache", "recurrent_state"))
    share = min(1.0, weights / max(1, plan.weights.expected))
    layers = 0 if plan.devices else num_layers(plan.model.structure)
    return Reads(int(dense * share), int(expert * share), cache, layers)


def read_bytes(reads: Reads, share: float, held: float) -> float:
    """Return the bytes of a step with this share of the experts and of the cache."""
    return reads.dense_bytes + reads.expert_bytes * share + reads.cache_bytes * held


def cache_share(plan: Plan, context_tokens: int) -> float:
    """Return how much of the planned cache a sequence of ``context_tokens`` reads."""
    planned = read = 0
    for group in plan.cache.groups:
        planned += group.bytes_per_sequence
        if not group.bytes_per_token:
            read += group.bytes_per_sequence
            continue
        grown = group.bytes_per_token * context_tokens
        stops = group.kind in WINDOWED or context_tokens <= plan.context_tokens
        read += min(grown, group.bytes_per_sequence) if stops else grown
    return read / planned if planned else 0.0


def crossing_bytes(plan: Plan) -> int:
    """Return the weight bytes that a prompt brings over the bus; 0 where the memory is one."""
    if not plan.offloaded or plan.devices[0].device.unified_memory:
        return 0
    reads = host_reads(plan)
    return reads.dense_bytes + reads.expert_bytes


@lru_cache(maxsize=1024)
def flops_per_token(model: ModelSpec, context_tokens: int, seen_share: float) -> float:
    """Return the operations of one token that sees ``seen_share`` of the context."""
    active = 0
    tied = model.structure.tie_word_embeddings
    for tensor, times in tensors_of(model.structure):
        if tensor.role in ("position_embedding", "vision", "audio", "encoder", "projector"):
            continue
        if tensor.role == "embedding" and not tied:
            continue
        active += tensor.num_active_elements * times
    attended = 0
    for layer, count in layer_kinds(model):
        for cache in layer.caches:
            heads = getattr(cache, "num_attention_heads", 0)
            width = getattr(cache, "head_dim", 0) or getattr(cache, "kv_lora_rank", 0)
            window = getattr(cache, "sliding_window", 0) or getattr(cache, "attention_chunk_size", 0)
            seen = context_tokens * seen_share
            attended += int(4 * heads * width * (min(seen, window) if window else seen)) * count
    return float(2 * active + attended)


def computes_on_host(plan: Plan) -> bool:
    """Tell whether what lies in system memory is computed there."""
    return not plan.devices or plan.engine_name in COMPUTES_ON_HOST
