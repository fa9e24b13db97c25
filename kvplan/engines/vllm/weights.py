"""vLLM: what a rank holds once its weights are loaded ("Model loading took ... GiB").

The rank's share of the checkpoint, and what loading makes of it, each a rule of vLLM or torch:

* MXFP4 experts, and rows on AMD cards, as their kernels keep them (see ``kernels``)
* rotary tables (model_executor/layers/rotary_embedding: positions x rotary dim, one table a rope; in
  fp32 for gpt-oss, models/gpt_oss.py)
* a quantized MLA up-projection kept a second time in 16 bits (attention/mla_attention.py, W_UK and
  W_UV; from a 16-bit one they are views)
* the workspace that importing FlashInfer's MLA backend takes (v1/attention/backends/mla/
  flashinfer_mla.py, ``g_fi_workspace``), which 0.12 to 0.24 import for every latent model
* torch's caching allocator rounding a tensor of 10 MiB or more up to 2 MiB, where less than 1 MiB
  would remain over (c10/cuda/CUDACachingAllocator)
* the MTP layers of a server that drafts with them
"""

from functools import lru_cache
from math import prod

from kvplan.engines.vllm.kernels import amd_row_padding, expert_layouts, is_biased, mxfp4_experts
from kvplan.engines.vllm.rotary import rotary_bytes
from kvplan.engines.vllm.speculative import Speculation, separate_draft
from kvplan.layers import LatentAttention
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
from kvplan.weight_formats import weight_format
from kvplan.weights import span_bytes, tensor_bytes

MIB = 2**20
LARGE_ALLOCATION_BYTES, ROUNDING_BYTES, REUSABLE_BYTES = 10 * MIB, 2 * MIB, MIB
# What importing FlashInfer's MLA backend takes, and the versions that import it for every latent model.
FLASHINFER_MLA_BYTES, FLASHINFER_MLA_IMPORTED = 128 * MIB, ((0, 12), (0, 25))
# Checkpoint projections that vLLM keeps as one tensor.
FUSED: tuple[tuple[str, str], ...] = (
    ("q_proj", "qkv"),
    ("k_proj", "qkv"),
    ("v_proj", "qkv"),
    ("gate_proj", "gate_up"),
    ("up_proj", "gate_up"),
)
WHY = "the checkpoint's share, rotary tables, absorbed latents, kernel padding, allocator rounding"
# Residuals of the logs: formats repacked for their kernels may come out narrower than padded here.
LOW_PER_MILLE, LOW_PER_MILLE_REPACKED, HIGH_PER_MILLE = 6, 20, 3
HIGH_BYTES = 100 * MIB
# What else a recipe that nothing states may leave in the model's own type.
UNSTATED_PER_MILLE = 20


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
    version: tuple[int, int],
    kernels: str = "",
    whole_towers: bool = False,
) -> Quantity:
    """Return what a rank of ``stage`` holds after loading.

    ``kernels`` is the card's class (``kernels_of``; empty where it changes nothing or is unknown);
    ``whole_towers`` is ``--mm-encoder-tp-mode data``: every rank has all of a tower.
    """
    share = stage_weight_bytes(model, format_name, tensor, pipeline, expert, stage)
    if weight_format(format_name).family == "gguf":
        return Quantity(share, share, share + share // 100, "calibrated", WHY)
    held = stage_tensors(model, format_name, tensor, pipeline, expert, stage)
    expected = share + _anywhere_bytes(model, format_name, tensor, pipeline, expert, stage)
    if FLASHINFER_MLA_IMPORTED[0] <= version < FLASHINFER_MLA_IMPORTED[1] and kernels != "amd":
        expected += FLASHINFER_MLA_BYTES if _has_latents(model) else 0
    narrower, wider = 0, 0
    if format_name == "mxfp4":
        added = _mxfp4_bytes(model, held, (tensor, pipeline, expert, stage), kernels, version)
        expected += added[0]
        narrower, wider = added[0] - min(added), max(added) - added[0]
    elif kernels == "amd":
        narrower = amd_row_padding(held, weight_format(format_name).family, tensor, version)
        expected += narrower
    if stage == pipeline - 1:
        expected += _draft_bytes(model, tensor, expert, speculation)
    split, whole = _tower_bytes(model, format_name, tensor) if stage == 0 else (0, 0)
    if whole_towers:
        expected += whole - split if _tower_is_split(model) else 0
    elif not _tower_is_split(model):
        # vLLM splits towers like the text (--mm-encoder-tp-mode weights); a few loaders keep them whole.
        expected -= whole - split
    per_mille = LOW_PER_MILLE_REPACKED if format_name == "nvfp4" else LOW_PER_MILLE
    low = expected - expected * per_mille // 1000 - narrower
    high = expected + expected * HIGH_PER_MILLE // 1000 + HIGH_BYTES + (whole - split) + wider
    if format_name == "nvfp4" and not _states_format(model, format_name):
        wide = _wide_attention_bytes(model, held, tensor, expert)
        high += wide + expected * UNSTATED_PER_MILLE // 1000
        # Recipes for latent attention leave it alone: its projections are small beside the experts.
        expected += wide if _has_latents(model) else 0
    return Quantity(max(0, low), expected, high, "calibrated", WHY)


@lru_cache(maxsize=2048)
def _anywhere_bytes(
    model: ModelSpec, format_name: str, tensor: int, pipeline: int, expert: int, stage: int
) -> int:
    """Return what loading adds to a rank's share whatever the card and the version."""
    held = stage_tensors(model, format_name, tensor, pipeline, expert, stage)
    return rotary_bytes(model) + _absorbed_bytes(model, held, tensor) + _rounding_bytes(held, format_name)


def _states_format(model: ModelSpec, format_name: str) -> bool:
    """Tell whether the checkpoint's config says itself which modules are in that format."""
    return model.quantization is not None and model.quantization.weights_format == format_name


def _wide_attention_bytes(
    model: ModelSpec, held: tuple[tuple[Tensor, int, int], ...], tensor: int, expert: int
) -> int:
    """Return what attention in the model's own type adds: NVFP4 recipes quantize it or leave it out.

    A GLM-5.2-NVFP4 log under 0.26 has 106.69 GiB a rank where 99.5 would be all modules quantized and
    105.1 all but attention.
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


def _has_latents(model: ModelSpec) -> bool:
    return any(isinstance(cache, LatentAttention) for cache, _ in cache_kinds(model))


def _absorbed_bytes(model: ModelSpec, held: tuple[tuple[Tensor, int, int], ...], tensor: int) -> int:
    """Return MLA's W_UK and W_UV in 16 bits, a second copy where the projection itself is quantized."""
    if not _has_latents(model):
        return 0
    own = weight_format("bf16")
    amount = 0
    for part, each, times in held:
        if "kv_b_proj.weight" in part.name:
            wide = rank_share(part, tensor_bytes(part, own, model.dtype), tensor, 1)
            amount += wide * times if each < wide else 0
    return amount


def _fused_name(tensor: Tensor) -> str:
    if "_proj.weight" not in tensor.name:
        return tensor.name
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
    return sum(_left_over(size) * times for size, times in fused.values())


def _left_over(size: int) -> int:
    """Return what stays unused behind one allocation of ``size`` bytes."""
    rest = -size % ROUNDING_BYTES
    return rest if size >= LARGE_ALLOCATION_BYTES and rest <= REUSABLE_BYTES else 0


def _mxfp4_bytes(
    model: ModelSpec,
    held: tuple[tuple[Tensor, int, int], ...],
    place: tuple[int, int, int, int],
    kernels: str,
    version: tuple[int, int],
) -> list[int]:
    """Return what a rank's experts take beyond the checkpoint's bytes, in each layout they may have.

    ``place`` is (tensor, pipeline and expert ranks, stage).
    """
    tensor, pipeline, expert, stage = place
    sizes = pipeline_split(num_layers(model.structure), pipeline)
    groups = stage_groups(model.layers, sum(sizes[:stage]), sizes[stage])
    stored = sum(each * times for part, each, times in held if part.role == "expert")
    biased = any(is_biased(group.layer.tensors) for group in groups)
    return [
        sum(
            (size + _left_over(size)) * times for size, times in mxfp4_experts(groups, tensor, expert, layout)
        )
        - stored
        for layout in expert_layouts(kernels, version, biased=biased)
    ]


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
