"""A GGUF file's tensors by role, under the names Hugging Face gives them.

Names are those of gguf-py's tensor_mapping.py. The shape in a header counts columns first; here it is
[rows, columns] as in checkpoints, with stacked experts as a count.
"""

import re
from math import prod

from kvplan.model import StoredTensor
from kvplan.tensors import Role, Split, Tensor

_BLOCK = re.compile(r"blk\.(\d+)\.(.+)")
_LONE_EXPERT = re.compile(r"(ffn_(?:gate|up|down))\.\d+\.(weight|bias)")

# A layer's matrices: name in the file -> (name, role, split).
_NAMES: dict[str, tuple[str, Role, Split]] = {
    "attn_q": ("self_attn.q_proj", "attention", "out"),
    "attn_k": ("self_attn.k_proj", "attention", "kv"),
    "attn_v": ("self_attn.v_proj", "attention", "kv"),
    "attn_qkv": ("self_attn.qkv_proj", "attention", "out"),
    "attn_output": ("self_attn.o_proj", "attention", "in"),
    "attn_q_a": ("self_attn.q_a_proj", "attention", "none"),
    "attn_q_b": ("self_attn.q_b_proj", "attention", "out"),
    "attn_kv_a_mqa": ("self_attn.kv_a_proj_with_mqa", "attention", "none"),
    "attn_kv_b": ("self_attn.kv_b", "attention", "out"),
    "attn_k_b": ("self_attn.k_b", "attention", "out"),
    "attn_v_b": ("self_attn.v_b", "attention", "out"),
    "ffn_gate": ("mlp.gate_proj", "mlp", "out"),
    "ffn_up": ("mlp.up_proj", "mlp", "out"),
    "ffn_down": ("mlp.down_proj", "mlp", "in"),
    "ffn_gate_exps": ("mlp.experts.*.gate_proj", "expert", "out"),
    "ffn_up_exps": ("mlp.experts.*.up_proj", "expert", "out"),
    "ffn_gate_up_exps": ("mlp.experts.*.gate_up_proj", "expert", "out"),
    "ffn_down_exps": ("mlp.experts.*.down_proj", "expert", "in"),
    "ffn_gate_chexps": ("mlp.chunk_experts.*.gate_proj", "expert", "out"),
    "ffn_up_chexps": ("mlp.chunk_experts.*.up_proj", "expert", "out"),
    "ffn_down_chexps": ("mlp.chunk_experts.*.down_proj", "expert", "in"),
    "ffn_gate_shexp": ("mlp.shared_experts.gate_proj", "shared_expert", "out"),
    "ffn_up_shexp": ("mlp.shared_experts.up_proj", "shared_expert", "out"),
    "ffn_down_shexp": ("mlp.shared_experts.down_proj", "shared_expert", "in"),
    "ffn_gate_inp": ("mlp.gate", "router", "none"),
    "ffn_gate_inp_shexp": ("mlp.shared_expert_gate", "router", "none"),
    "exp_probs_b": ("mlp.gate.e_score_correction_bias", "router", "none"),
}
_OUTSIDE: dict[str, tuple[str, Role, Split]] = {
    "token_embd": ("model.embed_tokens", "embedding", "vocab"),
    "output": ("lm_head", "lm_head", "vocab"),
    "output_norm": ("model.norm", "norm", "none"),
    "position_embd": ("model.embed_positions", "position_embedding", "none"),
}
_RECURRENT = ("ssm_", "shortconv.", "time_mix_", "channel_mix_")


def block_index(name: str) -> int:
    """Return the layer a tensor belongs to, -1 for those outside."""
    match = _BLOCK.fullmatch(name)
    # No model has a billion layers: a longer number is a name of its own.
    return int(match.group(1)) if match is not None and len(match.group(1)) <= 9 else -1


def is_loaded(name: str, num_layers: int) -> bool:
    """Tell whether llama.cpp loads the tensor without speculation: not those behind the last layer."""
    return block_index(name) < num_layers and not name.startswith("nextn.")


def tensor_of(stored: StoredTensor, num_key_value_heads: int, num_active_experts: int) -> Tensor:
    """Return a header's entry as a tensor with its role."""
    shape = tuple(reversed(stored.shape)) or (1,)
    match = _BLOCK.fullmatch(stored.name)
    inner = match.group(2) if match is not None else stored.name
    lone = _LONE_EXPERT.fullmatch(inner)
    stem, _, ending = (f"{lone.group(1)}_exps.{lone.group(2)}" if lone else inner).rpartition(".")
    if ending not in ("weight", "bias"):
        stem, ending = inner, "weight"
    name, role, split = _place(stem, match is not None)
    if role == "expert" and len(shape) > 1 + (ending == "weight"):
        active = min(shape[0], num_active_experts or shape[0])
        rest = shape[1:]
        return Tensor(f"{name}.{ending}", rest, role, shape[0], active, split)
    heads = num_key_value_heads if split == "kv" else 0
    return Tensor(
        f"{name}.{ending}", shape, role, split=split if prod(shape) > 1 else "none", num_heads=heads
    )


def _place(stem: str, in_layer: bool) -> tuple[str, Role, Split]:
    known = (_NAMES if in_layer else _OUTSIDE).get(stem)
    if known is not None:
        return known
    if "norm" in stem:
        return stem, "norm", "none"
    if stem.startswith(_RECURRENT):
        return stem, "recurrent", "none"
    if stem.startswith("indexer"):
        return stem, "indexer", "none"
    if stem.startswith("nextn."):
        return stem, "mtp", "none"
    if stem.startswith("attn_"):
        return f"self_attn.{stem.removeprefix('attn_')}", "attention", "none"
    return stem, "other", "none"
