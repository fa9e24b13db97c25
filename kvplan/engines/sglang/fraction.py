"""SGLang's default ``mem_fraction_static``: what it leaves beside weights and pools, by card.

SGLang 0.5.23 srt/arg_groups/memory_hook.py. The share is worked out from the memory that nvidia-smi
reports in MiB; it is applied to what is free before the weights load.
"""

from kvplan.engines.sglang.traits import Traits
from kvplan.frozen import dataclass

# (memory below, chunked prefill, decode graphs up to this batch with fewer than four ranks, with more)
TIERS: tuple[tuple[int, int, int, int], ...] = (
    (20 * 1024, 2048, 8, 8),
    (35 * 1024, 4096, 48, 160),
    (60 * 1024, 4096, 32, 160),
    (160 * 1024, 8192, 256, 512),
)
LARGEST_TIER = (16384, 512, 512)
MAX_PREFILL_TOKENS = 16384
MLA_MAX_PREFILL_GRAPH = 8192
FLOOR_ABOVE_MIB = 60 * 1024


def card_defaults(memory_mib: float, tensor: int) -> tuple[int, int]:
    """Return (chunked_prefill_size, largest decode graph) of a card with ``memory_mib``."""
    for below, chunk, few, many in TIERS:
        if memory_mib < below:
            return chunk, few if tensor < 4 else many
    chunk, few, many = LARGEST_TIER
    return chunk, few if tensor < 4 else many


def num_prefill_graphs(max_tokens: int) -> int:
    """Return how many token counts a prefill graph is captured for, up to ``max_tokens``.

    Steps of 4 to 32, 16 to 256, 32 to 512, 64 to 1,024, 256 to 4,096, then 512
    (cuda_graph_hook.py generate_prefill_cuda_graph_batch_sizes).
    """
    steps = ((4, 33, 4), (48, 257, 16), (288, 513, 32), (576, 1025, 64), (1280, 4097, 256))
    count = sum(len(range(first, min(stop, max_tokens + 1), step)) for first, stop, step in steps)
    return count + len(range(4608, max_tokens + 1, 512))


@dataclass(frozen=True, slots=True)
class Load:
    """What the reserve depends on. ``chunked_prefill_size`` is before data parallelism divides it.

    ``disaggregation`` is ``null``, ``prefill`` or ``decode``.
    """

    tensor: int
    pipeline: int
    attention_dp: int
    chunked_prefill_size: int
    max_prefill_tokens: int
    decode_graph_batch: int
    decode_graphs: bool
    prefill_graphs: bool
    num_prefill_graphs: int
    max_running_requests: int | None
    draft_tokens: int
    disaggregation: str
    deepep: bool


def reserved_mib(load: Load, traits: Traits, memory_mib: float) -> float:
    """Return the MiB kept beside weights and pools: activations, graphs, communication."""
    if load.disaggregation == "decode":
        requests = load.max_running_requests or load.decode_graph_batch or 1
        tokens = requests * (load.draft_tokens or 1)
    else:
        chunk = load.chunked_prefill_size
        tokens = chunk if chunk > 0 else load.max_prefill_tokens
    reserved = 512 + max(tokens, 2048) * 1.5
    reserved += load.tensor * load.pipeline / 8 * 1024
    reserved += _graphs_mib(load, traits)
    if memory_mib > FLOOR_ABOVE_MIB:
        reserved = max(reserved, 10 * 1024)
    if load.deepep and load.decode_graphs and load.disaggregation != "prefill":
        reserved += 2 * 1024
    return reserved


def _graphs_mib(load: Load, traits: Traits) -> float:
    reserved = 0.0
    if load.disaggregation != "prefill":
        if load.decode_graphs:
            reserved += load.decode_graph_batch * 2
        if load.attention_dp > 1:
            reserved += load.decode_graph_batch * load.attention_dp * 3
            if load.decode_graph_batch > 300:
                reserved += load.decode_graph_batch * load.attention_dp * 1.5
    if load.disaggregation != "decode" and load.prefill_graphs:
        reserved += 1.5 * 1024 if traits.is_latent else load.num_prefill_graphs * 8
        if load.deepep:
            reserved += 1024
    return reserved


def default_mem_fraction(load: Load, traits: Traits, memory_mib: float) -> float:
    """Return the default share; it can be negative where the reserve exceeds the card."""
    share = round((memory_mib - reserved_mib(load, traits, memory_mib)) / memory_mib, 3)
    if traits.is_multimodal and load.disaggregation != "decode":
        return share * vision_factor(traits)
    return share


def vision_factor(traits: Traits) -> float:
    """Return what a vision tower leaves of the share: 0.95 for one of ViT-L/14's size.

    Every doubling in layers x hidden size squared costs a tenth, within 0.8 and 1.05.
    """
    if traits.vision is None:
        return 1.0
    layers, hidden_size = traits.vision
    ratio = (layers * hidden_size**2) / (24 * 1024**2)
    return 0.95 * max(0.8, min(1.05, 1.0 - 0.1 * (ratio - 1.0)))
