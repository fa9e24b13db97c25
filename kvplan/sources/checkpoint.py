"""What a checkpoint's own table of tensors adds to a model that was read from its config.

The bytes that engines load: all tensors but those of multi-token prediction (loaded only to
speculate), a tied head stored a second time, and buffers that are computed. The publisher's count
takes all of them, so where it differs the reason is told.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from math import prod

from kvplan.dtypes import format_of_dtype
from kvplan.model import ModelSpec, StoredTensor, num_layers, num_parameters
from kvplan.sources.config_model import DTYPE_ASSUMED

TORCH_DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
PACKED = frozenset(("U8", "I8", "I32", "U32", "F8_E4M3", "F8_E5M2", "F4", "F8_E4M3FNUZ", "F8_E5M2FNUZ"))
_LAYER = re.compile(r"(?:^|\.)layers\.(\d{1,6})\.")
_OTHER_STACKS = ("vision", "visual", "audio", "encoder", "image", "tower")
_BUFFERS = (".rotary_emb.inv_freq", ".masked_bias", ".position_ids", "embeddings.position_ids")


def with_checkpoint(model: ModelSpec, tensors: Iterable[StoredTensor]) -> ModelSpec:
    """Return the model with its checkpoint's tensors, count and dtype.

    The table becomes the weights where it is what engines keep: not where a plain checkpoint is
    stored in another dtype than the one it is loaded in.
    """
    every = tuple(tensors)
    loaded, left_out = _loaded(model, every)
    stored_dtype = _main_dtype(loaded)
    notes = list(model.notes)
    if DTYPE_ASSUMED in model.assumptions and stored_dtype is not None:
        kept = tuple(text for text in model.assumptions if text != DTYPE_ASSUMED)
        model = replace(model, dtype=stored_dtype, assumptions=kept)
        if model.quantization is None:
            model = replace(model, weights_format=format_of_dtype(stored_dtype))
    use = True
    if model.quantization is None:
        use = stored_dtype is not None and format_of_dtype(stored_dtype) == model.weights_format
        if stored_dtype is not None and not use:
            notes.append(f"stored as {stored_dtype}, loaded as {model.dtype} as the config says")
        counted = sum(prod(tensor.shape) for tensor in loaded)
        if counted != num_parameters(model.structure):
            notes.append(
                f"the checkpoint holds {counted:,} parameters, the config describes "
                f"{num_parameters(model.structure):,}: weights follow the checkpoint"
            )
    elif not any(tensor.dtype in PACKED for tensor in loaded):
        use = False
        notes.append(f"stored unpacked, quantized to {model.weights_format} when it is loaded")
    total = sum(prod(tensor.shape) for tensor in every)
    return replace(
        model,
        stored=loaded if use else (),
        published_total=total,
        published_relation=_relation(model, loaded, left_out),
        notes=tuple(notes),
        provenance=(*model.provenance, ("weights", "the checkpoint's own header")),
    )


def _loaded(
    model: ModelSpec, tensors: tuple[StoredTensor, ...]
) -> tuple[tuple[StoredTensor, ...], Counter[str]]:
    depth = num_layers(model.structure)
    names = {tensor.name for tensor in tensors}
    left_out: Counter[str] = Counter()
    loaded = []
    for tensor in tensors:
        reason = _reason(tensor, depth, names, tied=model.structure.tie_word_embeddings)
        if reason:
            left_out[reason] += tensor.num_bytes
        else:
            loaded.append(tensor)
    return tuple(loaded), left_out


def _reason(tensor: StoredTensor, depth: int, names: set[str], *, tied: bool) -> str:
    name = tensor.name
    match = _LAYER.search(name)
    if not any(stack in name for stack in _OTHER_STACKS) and (
        (match is not None and int(match.group(1)) >= depth) or re.search(r"(?:^|\.)mtp(?:\.|_)", name)
    ):
        return "mtp"
    if tied and name.endswith("lm_head.weight") and any("embed" in other for other in names):
        return "tied"
    if name.endswith(_BUFFERS) or (
        name.endswith((".attn.bias", ".attention.bias")) and len(tensor.shape) == 4
    ):
        return "buffers"
    return ""


def _main_dtype(tensors: Iterable[StoredTensor]) -> str | None:
    """Return the float dtype most bytes are in, None where there is none."""
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        if tensor.dtype in TORCH_DTYPES:
            sizes[tensor.dtype] += tensor.num_bytes
    return TORCH_DTYPES[sizes.most_common(1)[0][0]] if sizes else None


def _relation(model: ModelSpec, loaded: tuple[StoredTensor, ...], left_out: Counter[str]) -> str:
    reasons = []
    if left_out["mtp"]:
        reasons.append("the checkpoint holds multi-token-prediction layers, loaded only to speculate")
    if left_out["tied"]:
        reasons.append("the checkpoint stores the tied lm_head twice")
    if left_out["buffers"]:
        reasons.append("the checkpoint holds buffers that engines compute")
    if model.quantization is not None and any(tensor.dtype in PACKED for tensor in loaded):
        reasons.append("packed elements and their scales are counted as they are stored")
    return "; ".join(reasons)
