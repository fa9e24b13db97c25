"""What a server is set to do at once: chunks, graphs, requests; the default share depends on it.

SGLang 0.5.23 srt/arg_groups/memory_hook.py (defaults by card), cuda_graph_hook.py (which models
capture prefill) and model_overrides/qwen3_vl.py (larger decode graphs on Hopper).
"""

from kvplan.device import Device
from kvplan.engines.sglang.fraction import (
    MAX_PREFILL_TOKENS,
    MLA_MAX_PREFILL_GRAPH,
    Load,
    card_defaults,
    num_prefill_graphs,
)
from kvplan.engines.sglang.kernels import platform_of
from kvplan.engines.sglang.reading import whole_or_none
from kvplan.engines.sglang.traits import Traits
from kvplan.model import ModelSpec
from kvplan.units import MIB
from kvplan.workload import Workload

A2A_WITH_PREFILL_GRAPHS = ("none", "deepep", "megamoe", "flashinfer")
# What a card of no known size is taken for: SGLang then falls back to a share of 0.95.
UNKNOWN_CARD_CHUNK, UNKNOWN_CARD_GRAPH = 4096, 160


def load_of(
    model: ModelSpec,
    traits: Traits,
    workload: Workload,
    device: Device | None,
    tensor: int,
    pipeline: int,
    attention_dp: int,
    draft_tokens: int,
) -> tuple[Load, int]:
    """Return what the reserve depends on, and the chunk before data parallelism divides it."""
    option = workload.option
    chunk, graph = UNKNOWN_CARD_CHUNK, UNKNOWN_CARD_GRAPH
    if device is not None:
        chunk, graph = card_defaults(device.memory_bytes / MIB, tensor)
    asked_chunk = whole_or_none(option("chunked_prefill_size"))
    chunk = chunk if asked_chunk is None else asked_chunk
    max_running = whole_or_none(option("max_running_requests"))
    asked_graph = next(
        (
            value
            for value in (
                whole_or_none(_graph_config(workload, "decode", "max_bs")),
                whole_or_none(option("cuda_graph_max_bs_decode")),
                whole_or_none(option("cuda_graph_max_bs")),
            )
            if value
        ),
        None,
    )
    listed = _graph_sizes(workload, "decode")
    if listed:
        graph = max(listed)
    elif asked_graph:
        graph = asked_graph
    elif max_running is not None:
        graph = _graphs_for_running(graph, max_running, traits, device)
    deepep = option("moe_a2a_backend") == "deepep" or bool(option("enable_deepep_moe"))
    disaggregation = str(option("disaggregation_mode") or "null")
    load = Load(
        tensor=tensor,
        pipeline=pipeline,
        attention_dp=attention_dp,
        chunked_prefill_size=chunk,
        max_prefill_tokens=whole_or_none(option("max_prefill_tokens")) or MAX_PREFILL_TOKENS,
        decode_graph_batch=graph,
        decode_graphs=_captures(workload, "decode") and disaggregation != "prefill",
        prefill_graphs=_captures_prefill(traits, workload, pipeline) and disaggregation != "decode",
        num_prefill_graphs=_prefill_graphs(model, traits, workload, chunk, deepep=deepep),
        max_running_requests=max_running,
        draft_tokens=draft_tokens,
        disaggregation=disaggregation,
        deepep=deepep,
    )
    return load, chunk


def _graphs_for_running(graph: int, max_running: int, traits: Traits, device: Device | None) -> int:
    """Return the largest decode graph once running requests are limited (qwen3_vl.py grows it)."""
    if max_running < graph:
        return max_running
    if is_qwen3_vl_on_hopper(traits, device) and max_running <= 512:
        return max_running
    return graph


def is_qwen3_vl_on_hopper(traits: Traits, device: Device | None) -> bool:
    """Tell whether the serving defaults of Qwen3-VL on large Hopper cards hold (qwen3_vl.py)."""
    return (
        traits.architecture in ("Qwen3VLForConditionalGeneration", "Qwen3VLMoeForConditionalGeneration")
        and traits.is_multimodal
        and device is not None
        and platform_of(device).is_sm90
        and device.memory_bytes / MIB >= 60 * 1024
    )


def _graph_config(workload: Workload, phase: str, key: str) -> object:
    """Return what --cuda-graph-config says of a phase, None where it says nothing."""
    config = workload.option("cuda_graph_config")
    part = config.get(phase) if isinstance(config, dict) else None
    return part.get(key) if isinstance(part, dict) else None


def _graph_sizes(workload: Workload, phase: str) -> tuple[int, ...]:
    """Return the batch sizes a phase is told to capture, none where SGLang makes the list itself."""
    asked = _graph_config(workload, phase, "bs") or workload.option(f"cuda_graph_bs_{phase}")
    sizes = asked if isinstance(asked, list | tuple) else ()
    return tuple(size for size in map(whole_or_none, sizes) if size)


def _captures(workload: Workload, phase: str) -> bool:
    """Tell whether the command line leaves a phase's graphs on; the JSON wins over the switches."""
    backend = _graph_config(workload, phase, "backend")
    if backend is not None:
        return backend != "disabled"
    return not (workload.option("disable_cuda_graph") or workload.option(f"disable_{phase}_cuda_graph"))


def _captures_prefill(traits: Traits, workload: Workload, pipeline: int) -> bool:
    """Tell whether prefill is captured when the reserve is worked out (cuda_graph_hook.py)."""
    option = workload.option
    if not _captures(workload, "prefill"):
        return False
    if pipeline > 1 or traits.is_compressed or (whole_or_none(option("dcp_size")) or 1) > 1:
        return False
    if traits.has_kimi_delta and not traits.architecture.startswith("Glm5Next"):
        return False
    if option("enable_two_batch_overlap") or (whole_or_none(option("attn_cp_size")) or 1) > 1:
        return False
    if str(option("moe_a2a_backend") or "none") not in A2A_WITH_PREFILL_GRAPHS:
        return False
    return not traits.is_multimodal or traits.captures_multimodal


def _prefill_graphs(model: ModelSpec, traits: Traits, workload: Workload, chunk: int, *, deepep: bool) -> int:
    if deepep:
        # Buckets of up to 2,048 tokens, rounded to multiples of 8: 4, 12, 20 and 28 merge upwards.
        return num_prefill_graphs(2048) - 4
    listed = _graph_sizes(workload, "prefill")
    if listed:
        return len(listed)
    limit = whole_or_none(_graph_config(workload, "prefill", "max_bs"))
    if limit is None:
        limit = whole_or_none(workload.option("cuda_graph_max_bs_prefill"))
    if limit is None:
        limit = min(MLA_MAX_PREFILL_GRAPH, chunk) if traits.is_latent else chunk
        total = whole_or_none(workload.option("max_total_tokens"))
        limit = limit if total is None else min(limit, total)
        if "llama-2" in (model.repo or model.name).casefold():
            limit = min(limit, 4096)
    return num_prefill_graphs(limit)
