"""vLLM: what a rank holds once its weights are loaded ("Model loading took ... GiB").

The rank's share of the checkpoint, and what loading makes of it, each a rule of vLLM or torch:

* MXFP4 experts padded for their kernels (fused_moe/oracle/mxfp4.py: hidden to 256, width to 128)
* rotary tables (model_executor/layers/rotary_embedding: positions x rotary dim, one table a rope)
* MLA's up-projection kept a second time for the absorbed decode (attention/mla_attention.py, W_UK
  and W_UV)
* torch's caching allocator rounding a tensor of 10 MiB or more up to 2 MiB, where less than 1 MiB
  would remain over (c10/cuda/CUDACachingAllocator)
* the MTP layers of a server that drafts with them
"""

from collections.abc import Mapping
from functools import lru_cache
from math import prod

from kvplan.dtypes import DTYPE_BYTES, weight_format
from kvplan.engines.vllm.speculative import Speculation, separate_draft
from kvplan.layers import LatentAttention, SlidingWindow
from kvplan.model import ModelSpec, cache_kinds, num_layers
from kvplan.quantity import Quantity
from kvplan.sharding import (
    pipeline_split,
    rank_share,
    stage_groups,
    stage_tensors,
    stage_weight_bytes,
)
from kvplan.tensors import Tensor
from kvplan.units import round_up
from kvplan.weights import span_bytes, tensor_bytes

MIB = 2**20
LARGE_ALLOCATION_BYTES, ROUNDING_BYTES, REUSABLE_BYTES = 10 * MIB, 2 * MIB, MIB
MXFP4_HIDDEN, MXFP4_WIDTH = 256, 128
MROPE_POSITIONS = 4
# Checkpoint projections that vLLM keeps as one tensor.
FUSED: tuple[tuple[str, str], ...] = (
    ("q_proj", "qkv"),
    ("k_proj", "qkv"),
    ("v_proj", "qkv"),
    ("gate_proj", "gate_up"),
    ("up_proj", "gate_up"),
)
NESTED = ("text_config", "llm_config", "language_config", "thinker_config")
WHY = "the checkpoint's share, rotary tables, absorbed latents, kernel padding, allocator rounding"
# Residuals of the logs: formats repacked for their kernels may come out narrower than padded here.
LOW_PER_MILLE, LOW_PER_MILLE_REPACKED, HIGH_PER_MILLE = 6, 20, 3
HIGH_BYTES = 100 * MIB


@lru_cache(maxsize=2048)
def loaded_weights(
    model: ModelSpec,
    format_name: str,
    tensor: int,
    pipeline: int,
    expert: int,
    stage: int,
    speculation: Speculation,
    *,
    whole_towers: bool = False,
) -> Quantity:
    """Return what a rank of ``stage`` holds after loading.

    ``whole_towers`` is ``--mm-encoder-tp-mode data``: every rank has all of a tower.
    """
    share = stage_weight_bytes(model, format_name, tensor, pipeline, expert, stage)
    if weight_format(format_name).family == "gguf":
        return Quantity(share, share, share + share // 100, "calibrated", WHY)
    held = stage_tensors(model, format_name, tensor, pipeline, expert, stage)
    expected = share + rotary_bytes(model) + _absorbed_bytes(model, tensor, pipeline, stage)
    expected += _rounding_bytes(held, format_name)
    if format_name == "mxfp4":
        expected += _mxfp4_padding(model, tensor, pipeline, expert, stage)
    if stage == pipeline - 1:
        expected += _draft_bytes(model, tensor, expert, speculation)
    split, whole = _tower_bytes(model, format_name, tensor) if stage == 0 else (0, 0)
    if whole_towers:
        expected += whole - split if _tower_is_split(model) else 0
    elif not _tower_is_split(model):
        # vLLM splits towers like the text (--mm-encoder-tp-mode weights); a few loaders keep them whole.
        expected -= whole - split
    is_repacked = weight_format(format_name).family == "fp4"
    per_mille = LOW_PER_MILLE_REPACKED if is_repacked else LOW_PER_MILLE
    low = expected - expected * per_mille // 1000
    high = expected + expected * HIGH_PER_MILLE // 1000 + HIGH_BYTES + (whole - split)
    if format_name == "nvfp4" and not _states_format(model, format_name):
        high += _wide_attention_bytes(model, held, tensor, expert)
    return Quantity(max(0, low), expected, high, "calibrated", WHY)


def _states_format(model: ModelSpec, format_name: str) -> bool:
    """Tell whether the checkpoint's config says itself which modules are in that format."""
    return model.quantization is not None and model.quantization.weights_format == format_name


def _wide_attention_bytes(
    model: ModelSpec, held: tuple[tuple[Tensor, int, int], ...], tensor: int, expert: int
) -> int:
    """Return what attention in the model's own type adds: NVFP4 recipes quantize it or leave it out.

    A GLM-5.2-NVFP4 log under 0.26 has 106.69 GiB a rank where 99.5 would be all modules quantized.
    """
    own = weight_format("bf16")
    return sum(
        max(0, rank_share(part, tensor_bytes(part, own, model.dtype), tensor, expert) - each) * times
        for part, each, times in held
        if part.role == "attention"
    )


def _towers(model: ModelSpec) -> list[Tensor]:
    return [tensor for tensor in model.structure.tensors if tensor.role in ("vision", "audio")]


def _tower_is_split(model: ModelSpec) -> bool:
    return any(tensor.split != "none" for tensor in _towers(model))


def _tower_bytes(model: ModelSpec, format_name: str, tensor: int) -> tuple[int, int]:
    """Return a rank's bytes of the vision and audio towers if they are split, and if they are whole."""
    weight = weight_format(format_name)
    whole = sum(span_bytes(model, weight, part, None, 1) for part in _towers(model))
    return whole // tensor, whole


def without_towers(loaded: Quantity, model: ModelSpec, format_name: str, tensor: int, stage: int) -> Quantity:
    """Return a rank's weights of the language model alone."""
    if stage > 0 or not _towers(model):
        return loaded
    split, whole = _tower_bytes(model, format_name, tensor)
    return Quantity(
        max(0, loaded.low - split),
        max(0, loaded.expected - split),
        max(0, loaded.high - whole),
        loaded.basis,
        loaded.why,
    )


def _text_config(model: ModelSpec) -> Mapping[str, object]:
    config = model.config or {}
    for key in NESTED:
        inner = config.get(key)
        if isinstance(inner, Mapping):
            return inner
    return config


@lru_cache(maxsize=512)
def rotary_bytes(model: ModelSpec) -> int:
    """Return the rotary tables that every rank keeps: cosine and sine of each position.

    A table has as many positions as the config's limit, times a linear, YaRN or multimodal rope's
    factor; windows with a rope of their own have a second table.
    """
    positions = model.context_limit_tokens
    dim = _rotary_dim(model)
    if not positions or not dim:
        return 0
    config = _text_config(model)
    scaling = config.get("rope_scaling")
    scaled = positions
    if isinstance(scaling, Mapping):
        kind = str(scaling.get("rope_type", scaling.get("type", "")))
        factor, original = scaling.get("factor"), scaling.get("original_max_position_embeddings")
        if kind == "linear" and isinstance(factor, int | float):
            scaled = int(positions * factor)
        elif "yarn" in kind and isinstance(factor, int | float) and isinstance(original, int):
            scaled = int(original * factor)
        elif "mrope_section" in scaling:
            scaled = positions * MROPE_POSITIONS
    tables = scaled
    has_windows = any(isinstance(cache, SlidingWindow) for cache, _ in cache_kinds(model))
    if has_windows and scaled != positions:
        tables += positions
    return tables * dim * DTYPE_BYTES.get(model.dtype, 2)


def _rotary_dim(model: ModelSpec) -> int:
    """Return the rotary part of a head; 0 where the model has no rotary positions."""
    share = _text_config(model).get("partial_rotary_factor")
    for cache, _ in cache_kinds(model):
        if isinstance(cache, LatentAttention):
            return cache.qk_rope_head_dim
        head_dim = getattr(cache, "head_dim", 0)
        if head_dim and hasattr(cache, "num_key_value_heads"):
            return int(head_dim * share) if isinstance(share, float) else int(head_dim)
    return 0


def _absorbed_bytes(model: ModelSpec, tensor: int, pipeline: int, stage: int) -> int:
    """Return MLA's W_UK and W_UV, kept in 16 bits beside the projection they come from."""
    sizes = pipeline_split(num_layers(model.structure), pipeline)
    amount = 0
    for group in stage_groups(model.layers, sum(sizes[:stage]), sizes[stage]):
        for cache in group.layer.caches:
            if isinstance(cache, LatentAttention):
                heads = max(1, cache.num_attention_heads // tensor)
                width = cache.qk_nope_head_dim + cache.v_head_dim
                amount += group.count * heads * width * cache.kv_lora_rank * 2
    return amount


def _fused_name(tensor: Tensor) -> str:
    for part, fused in FUSED:
        if f"{part}.weight" in tensor.name:
            return tensor.name.replace(part, fused)
    return tensor.name


def _rounding_bytes(held: tuple[tuple[Tensor, int, int], ...], format_name: str) -> int:
    """Return what torch's allocator cannot use again behind large tensors."""
    packed_experts = weight_format(format_name).family == "fp4"
    fused: dict[tuple[str, int], tuple[int, int]] = {}
    for index, (tensor, each, times) in enumerate(held):
        if packed_experts and tensor.role == "expert":
            continue
        name = _fused_name(tensor)
        key = (name, times if name != tensor.name else -index)
        so_far = fused.get(key, (0, times))[0]
        fused[key] = (so_far + each, times)
    amount = 0
    for size, times in fused.values():
        rest = -size % ROUNDING_BYTES
        if size >= LARGE_ALLOCATION_BYTES and rest <= REUSABLE_BYTES:
            amount += rest * times
    return amount


def _mxfp4_padding(model: ModelSpec, tensor: int, pipeline: int, expert: int, stage: int) -> int:
    """Return what padding the experts' matrices for the MXFP4 kernels adds on a rank."""
    amount = 0
    for part, each, times in stage_tensors(model, "mxfp4", tensor, pipeline, expert, stage):
        if part.role != "expert" or len(part.shape) != 2:
            continue
        split = 1 if expert > 1 else tensor
        rows, columns = part.shape
        width, hidden = (rows, columns) if part.split == "out" else (columns, rows)
        own = width // split or 1
        padded = round_up(own, MXFP4_WIDTH) * round_up(hidden, MXFP4_HIDDEN)
        amount += each * times * (padded - own * hidden) // (own * hidden)
    return amount


def _draft_bytes(model: ModelSpec, tensor: int, expert: int, speculation: Speculation) -> int:
    """Return the MTP layers' weights, or an EAGLE head's: one layer, its inputs' projection, no head."""
    if separate_draft(model, speculation) is not None:
        return 0
    if speculation.uses_mtp:
        # Checkpoints keep their MTP layers in the model's own type.
        weight = weight_format("bf16")
        parts = [(part, group.count) for group in model.structure.mtp_layers for part in group.layer.tensors]
        parts += [(part, 1) for part in model.structure.mtp_tensors]
        return sum(
            rank_share(part, tensor_bytes(part, weight, model.dtype), tensor, expert) * times
            for part, times in parts
        )
    if speculation.uses_eagle and model.layers:
        weight = weight_format("bf16")
        dense = sum(
            rank_share(part, tensor_bytes(part, weight, model.dtype), tensor, expert)
            for part in model.layers[0].layer.tensors
            if part.role != "expert"
        )
        hidden = model.structure.hidden_size
        return dense + prod((3, hidden, hidden, 2)) // tensor
    return 0
