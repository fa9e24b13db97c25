"""The tensors of a GGUF file that was read, as the quantizer sees them: by their own names.

llama.cpp 0c1e57098 src/llama-quant.cpp: tensor_get_category and tensor_allows_quantization; tensors go
through its rules by layer and name.
"""

from math import prod

from kvplan.gguf.names import Category, GgufTensor
from kvplan.model import ModelSpec, StoredTensor
from kvplan.tensors import Tensor


def stored_tensors(model: ModelSpec) -> list[tuple[int, GgufTensor]]:
    """Return (layer, tensor) of a file that was read, by its own names, in the quantizer's order."""
    made = [(_layer_of(stored.name), _of_file(stored)) for stored in model.stored]
    outside = len(made)
    return sorted(made, key=lambda item: (item[0] if item[0] >= 0 else outside, item[1].origin.name))


def _layer_of(name: str) -> int:
    head, _, rest = name.partition(".")
    index = rest.partition(".")[0]
    return int(index) if head == "blk" and index.isdigit() and len(index) < 9 else -1


def is_of_experts(name: str) -> bool:
    """Tell whether a tensor holds routed experts by its name in the file: not their norm (Arctic)."""
    return "exps." in name and "norm" not in name


def _of_file(stored: StoredTensor) -> GgufTensor:
    name, shape = stored.name, stored.shape or (1,)
    rows, matrices = (shape[1] if len(shape) > 1 else 1), prod(shape[2:])
    return GgufTensor(
        origin=Tensor(name, tuple(reversed(shape)), "expert" if is_of_experts(name) else "other"),
        category=_category_of_name(name),
        num_columns=shape[0],
        num_rows=rows,
        num_matrices=matrices,
        is_quantizable=_allows_quantization(name, len([size for size in shape[1:] if size > 1]) > 0),
        is_expert=is_of_experts(name),
        kept_type=stored.dtype,
    )


def _category_of_name(name: str) -> Category:
    """Return the category by name in the file: src/llama-quant.cpp tensor_get_category."""
    if name == "output.weight":
        return "output"
    if name in ("token_embd.weight", "per_layer_token_embd.weight"):
        return "token_embd"
    whole: tuple[tuple[str, Category], ...] = (
        ("attn_qkv.weight", "attn_qkv"),
        ("attn_kv_b.weight", "attn_v"),
        ("attn_v.weight", "attn_v"),
        ("attn_k.weight", "attn_k"),
        ("attn_q.weight", "attn_q"),
        ("attn_output.weight", "attn_output"),
        ("ffn_up", "ffn_up"),
        ("ffn_gate", "ffn_gate"),
        ("ffn_down", "ffn_down"),
    )
    return next((category for part, category in whole if part in name), "other")


# src/llama-quant.cpp tensor_allows_quantization: parts of names that are left as they are.
_KEPT_NAMES = (
    "_norm.weight", "ffn_gate_inp.weight", "ffn_gate_tid2eid.weight", "altup", "laurel",
    "per_layer_model_proj", "position_embd.weight", "token_types.weight", "ssm_conv1d",
    "shortconv.conv.weight",
    "indexer.k_proj.weight", "indexer.q_proj.weight", "time_mix_first.weight", "time_mix_w0.weight",
    "time_mix_w1.weight", "time_mix_w2.weight", "time_mix_v0.weight", "time_mix_v1.weight",
    "time_mix_v2.weight", "time_mix_a0.weight", "time_mix_a1.weight", "time_mix_a2.weight",
    "time_mix_g1.weight", "time_mix_g2.weight", "time_mix_decay_w1.weight", "time_mix_decay_w2.weight",
    "time_mix_lerp_fused.weight", "attn_rel_b.weight",
)  # fmt: skip


def _allows_quantization(name: str, has_rows: bool) -> bool:
    return has_rows and name.endswith("weight") and not any(part in name for part in _KEPT_NAMES)
