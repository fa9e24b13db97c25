"""Which block type llama.cpp's quantizer gives each tensor of a GGUF file.

A mix such as ``q4_k_m`` is a rule, not a width: it looks at what a tensor is, at which layer it is,
at grouped queries and experts, and falls back where a row is not a multiple of 256. The rules are
llama.cpp's ``src/llama-quant.cpp`` (commit 0c1e57098), without an importance matrix unless asked.
"""

from kvplan.dtypes import GGML_TYPES
from kvplan.frozen import dataclass
from kvplan.gguf_names import Category, GgufTensor

# A mix's base type: llama_ftype_get_default_type.
BASE: dict[str, str] = {
    "q2_k": "q2_k", "q2_k_s": "q2_k",
    "q3_k_s": "q3_k", "q3_k_m": "q3_k", "q3_k_l": "q3_k",
    "q4_k_s": "q4_k", "q4_k_m": "q4_k", "q5_k_s": "q5_k", "q5_k_m": "q5_k", "q6_k": "q6_k",
    "iq2_s": "iq2_xs", "iq2_m": "iq2_s", "iq3_xs": "iq3_s", "iq3_m": "iq3_s", "mxfp4_moe": "mxfp4",
    "gguf-f16": "f16", "gguf-bf16": "bf16", "gguf-f32": "f32",
}  # fmt: skip
# What some mixes give queries and keys: the only types below a mix's base.
BELOW_BASE: dict[str, str] = {"iq3_xs": "iq3_xxs", "iq3_xxs": "iq2_s"}
# Mixes in which an importance matrix changes the type of some tensors.
CHANGED_BY_IMATRIX = frozenset(("iq3_xxs", "iq4_nl", "iq4_xs", "q4_0", "q5_0"))
LOW_BIT = frozenset(("iq2_xxs", "iq2_xs", "iq1_s", "iq2_s", "iq2_m", "iq1_m"))
OUTPUT_Q5 = LOW_BIT | {"iq3_xxs"}
# Where a row is not a multiple of the block: tensor_type_fallback.
FALLBACK: dict[str, str] = {
    **dict.fromkeys(("iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s", "iq4_xs"), "iq4_nl"),
    **dict.fromkeys(("q2_k", "q3_k", "tq1_0", "tq2_0"), "q4_0"),
    "q4_k": "q5_0",
    "q5_k": "q5_1",
    "q6_k": "q8_0",
}


@dataclass(slots=True)
class State:
    """What the rules count while they go through a file's tensors in order."""

    mix: str
    arch: str
    num_layers: int
    num_experts: int
    num_gqa: int
    is_70b: bool
    is_tied: bool
    num_attention_v: int
    seen_attention_v: int = 0
    seen_down: int = 0
    seen_gate: int = 0
    seen_up: int = 0
    has_imatrix: bool = False


def smallest_type(mix: str) -> str:
    """Return the smallest block type that a mix gives a tensor it quantizes; fallbacks are larger."""
    return BELOW_BASE.get(mix, BASE.get(mix, mix))


def is_counted(category: Category, mix: str) -> bool:
    """Tell whether a mix gives tensors of a category types by their order or layer; others have one type."""
    if category in ("ffn_gate", "ffn_up"):
        return mix == "iq3_xs"
    return category in ("attn_v", "attn_qkv", "ffn_down")


def _more_bits(index: int, count: int) -> bool:
    return index < count // 8 or index >= 7 * count // 8 or (index - count // 8) % 3 == 2


def _type_of(tensor: GgufTensor, layer: int, state: State) -> str:
    """Return the block type of one quantizable tensor before the fallback by shape."""
    mix, category = state.mix, tensor.category
    base = BASE.get(mix, mix)
    if category == "output" or (state.is_tied and category == "token_embd"):
        return _output_type(tensor, state, base)
    if mix == "mxfp4_moe":
        return "mxfp4" if tensor.num_matrices > 1 else "q8_0"
    if category == "token_embd":
        return _embedding_type(mix, base)
    if mix in LOW_BIT:
        return _low_bit_type(category, state, base)
    match category:
        case "attn_v" | "attn_qkv":
            return _attention_v_type(state, base)
        case "attn_k":
            return _attention_k_type(state, base)
        case "attn_q":
            return BELOW_BASE.get(mix, base)
        case "attn_output":
            return _attention_output_type(state, base)
        case "ffn_down":
            return _down_type(layer, state, base)
        case "ffn_gate" | "ffn_up":
            return _gate_or_up_type(category, layer, state, base)
    return base


def _output_type(tensor: GgufTensor, state: State, base: str) -> str:
    if state.mix == "mxfp4_moe" or state.arch == "falcon" or tensor.num_columns % GGML_TYPES[base].block_size:
        return "q8_0"
    if state.mix in OUTPUT_Q5:
        return "q5_k"
    return "q8_0" if base == "q8_0" else "q6_k"


def _embedding_type(mix: str, base: str) -> str:
    if mix in ("iq2_xxs", "iq2_xs", "iq1_s", "iq1_m"):
        return "q2_k"
    if mix in ("iq2_s", "iq2_m", "iq3_xxs"):
        return "iq3_s"
    return "q4_k" if mix in ("tq1_0", "tq2_0") else base


def _low_bit_type(category: Category, state: State, base: str) -> str:
    wider = state.mix in ("iq2_s", "iq2_m")
    if category in ("attn_v", "attn_qkv"):
        state.seen_attention_v += 1
        if state.num_gqa >= 4 or state.num_experts >= 4:
            return "q4_k"
        return "iq3_s" if wider else "q2_k"
    if state.num_experts == 8 and category == "attn_k":
        return "q4_k"
    if category == "ffn_down":
        state.seen_down += 1
        if state.seen_down - 1 < state.num_layers // 8:
            return "iq3_s" if wider else "q2_k"
    elif category == "attn_output":
        if state.num_experts == 8:
            return "q5_k"
        if state.mix in ("iq1_s", "iq1_m"):
            return "iq2_xxs"
        if wider:
            return "iq3_s"
    return base


def _attention_v_type(state: State, base: str) -> str:
    mix, index = state.mix, state.seen_attention_v
    grouped = state.num_gqa >= 4
    chosen = base
    match mix:
        case "q2_k":
            chosen = "q4_k" if grouped else "q3_k"
        case "q2_k_s":
            chosen = "q4_k" if grouped else base
        case "iq3_xxs":
            chosen = "q4_k" if grouped else ("iq3_xxs" if state.has_imatrix else "iq3_s")
        case "iq3_xs" | "iq3_s":
            chosen = "q4_k" if grouped else base
        case "iq3_m":
            chosen = "q4_k"
        case "q3_k_m":
            chosen = "q5_k" if index < 2 else "q4_k"
        case "q3_k_l":
            chosen = "q5_k"
        case "iq4_nl" | "iq4_xs":
            chosen = "q5_k" if grouped else base
        case "q4_k_m" | "q5_k_m":
            chosen = "q6_k" if _more_bits(index, state.num_attention_v) else base
        case "q4_k_s":
            chosen = "q5_k" if index < 4 else base
    if state.is_70b and chosen in ("q3_k", "q4_k"):
        chosen = "q5_k"
    if state.num_experts == 8:
        chosen = "q8_0"
    state.seen_attention_v += 1
    return chosen


def _attention_k_type(state: State, base: str) -> str:
    if state.num_experts == 8:
        return "q8_0"
    return BELOW_BASE.get(state.mix, base)


def _attention_output_type(state: State, base: str) -> str:
    mix = state.mix
    if state.arch == "falcon":
        return "q4_k" if mix == "q3_k_l" else base
    if state.num_experts == 8:
        raised = (
            "q2_k", "iq3_xs", "iq3_xxs", "q3_k_s", "q3_k_m", "iq4_nl",
            "q4_k_s", "q4_k_m", "iq3_s", "iq3_m", "iq4_xs",
        )  # fmt: skip
        return "q5_k" if mix in raised else base
    return {"q2_k": "q3_k", "iq3_xxs": "iq3_s", "q3_k_m": "q4_k", "q3_k_l": "q5_k", "iq3_m": "q4_k"}.get(
        mix, base
    )


def _down_type(layer: int, state: State, base: str) -> str:
    count = state.num_layers
    # With experts the layer is read from the tensor's name, otherwise its order counts.
    index = layer if state.num_experts > 1 else state.seen_down
    state.seen_down += 1
    early, falcon = index < count // 8, state.arch == "falcon"
    match state.mix:
        case "q2_k":
            return "q3_k"
        case "q2_k_s":
            return "q4_k" if early else base
        case "iq3_xxs" if not state.has_imatrix:
            return "q4_k" if early else "q3_k"
        case "q3_k_m":
            if index < count // 16:
                return "q5_k"
            return "q4_k" if not falcon or _more_bits(index, count) else "q3_k"
        case "iq3_m":
            return "q4_k" if early or (state.num_experts == 8 and _more_bits(index, count)) else base
        case "q3_k_l":
            return "q4_k" if falcon else "q5_k"
        case "q4_k_m":
            if falcon:
                return "q6_k" if index < count // 16 else ("q5_k" if _more_bits(index, count) else "q4_k")
            return "q6_k" if _more_bits(index, count) else base
        case "iq4_nl" | "iq4_xs" if not state.has_imatrix:
            return "q5_k" if early else base
        case "q4_0" | "q5_0" if state.has_imatrix and early:
            return {"q4_0": "q4_1", "q5_0": "q5_1"}[base]
        case "q5_k_m":
            return "q6_k" if _more_bits(index, count) else base
        case "q4_k_s":
            return "q5_k" if early and not falcon else base
    return base


def _gate_or_up_type(category: Category, layer: int, state: State, base: str) -> str:
    if category == "ffn_gate":
        index = layer if state.num_experts > 1 else state.seen_gate
        state.seen_gate += 1
    else:
        index = layer if state.num_experts > 1 else state.seen_up
        state.seen_up += 1
    count = state.num_layers
    if state.mix == "iq3_xs" and count // 8 <= index < 7 * count // 8:
        return "iq3_xxs"
    return base


def stored_type(tensor: GgufTensor, layer: int, state: State) -> str:
    """Return the type a tensor of ``layer`` is written in; ``state`` counts along."""
    if not tensor.is_quantizable:
        if tensor.kept_type:
            return tensor.kept_type
        return "f16" if tensor.keeps_half and state.mix != "gguf-f32" else "f32"
    base = BASE.get(state.mix, state.mix)
    if base in ("f16", "bf16", "f32"):
        return base
    chosen = _type_of(tensor, layer, state)
    if tensor.num_columns % GGML_TYPES[chosen].block_size:
        chosen = FALLBACK.get(chosen, chosen)
        if tensor.num_columns % GGML_TYPES[chosen].block_size:
            return "f16"
    return chosen
