"""The bytes of a GGUF file's tensors: which block type llama.cpp's quantizer gives each one.

A mix such as ``q4_k_m`` is a rule, not a width: it looks at what a tensor is, at which layer it is,
at grouped queries and experts, and falls back where a row is not a multiple of 256. The rules are
llama.cpp's ``src/llama-quant.cpp`` without an importance matrix (commit 0c1e57098); the tensors a
file has are those of its converter: experts stacked, a tied head absent, MLA's joint projection
split in two, vision towers in a file of their own.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal

from kvplan.dtypes import GGML_TYPES
from kvplan.gguf_names import (
    Category,
    GgufTensor,
    file_name,
    gguf_tensors,
    llama_cpp_arch,
    num_experts_of,
    num_gqa,
)
from kvplan.gguf_stored import stored_tensors
from kvplan.model import ModelSpec, num_layers
from kvplan.tensors import Tensor
from kvplan.units import round_up

# A mix's base type: llama_ftype_get_default_type.
BASE: dict[str, str] = {
    "q2_k": "q2_k", "q2_k_s": "q2_k",
    "q3_k_s": "q3_k", "q3_k_m": "q3_k", "q3_k_l": "q3_k",
    "q4_k_s": "q4_k", "q4_k_m": "q4_k", "q5_k_s": "q5_k", "q5_k_m": "q5_k", "q6_k": "q6_k",
    "iq2_s": "iq2_xs", "iq2_m": "iq2_s", "iq3_xs": "iq3_s", "iq3_m": "iq3_s", "mxfp4_moe": "mxfp4",
    "gguf-f16": "f16", "gguf-bf16": "bf16", "gguf-f32": "f32",
}  # fmt: skip
CPU_ALIGNMENT = 32
CUDA_ALIGNMENT = 128
CUDA_ROW_PADDING = 512
LOW_BIT = frozenset(("iq2_xxs", "iq2_xs", "iq1_s", "iq2_s", "iq2_m", "iq1_m"))
OUTPUT_Q5 = LOW_BIT | {"iq3_xxs"}
# Tables that stay in system memory: llama.cpp src/llama-arch.cpp LLM_TENSOR_LAYER_INPUT.
INPUT_TABLES = frozenset(("position_embd", "token_types", "per_layer_token_embd"))
# Where a row is not a multiple of the block: tensor_type_fallback.
FALLBACK: dict[str, str] = {
    **dict.fromkeys(("iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s", "iq4_xs"), "iq4_nl"),
    **dict.fromkeys(("q2_k", "q3_k", "tq1_0", "tq2_0"), "q4_0"),
    "q4_k": "q5_0",
    "q5_k": "q5_1",
    "q6_k": "q8_0",
}


@dataclass(slots=True)
class _State:
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


def _more_bits(index: int, count: int) -> bool:
    return index < count // 8 or index >= 7 * count // 8 or (index - count // 8) % 3 == 2


def _type_of(tensor: GgufTensor, layer: int, state: _State) -> str:
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
            return {"iq3_xs": "iq3_xxs", "iq3_xxs": "iq2_s"}.get(mix, base)
        case "attn_output":
            return _attention_output_type(state, base)
        case "ffn_down":
            return _down_type(layer, state, base)
        case "ffn_gate" | "ffn_up":
            return _gate_or_up_type(category, layer, state, base)
    return base


def _output_type(tensor: GgufTensor, state: _State, base: str) -> str:
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


def _low_bit_type(category: Category, state: _State, base: str) -> str:
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


def _attention_v_type(state: _State, base: str) -> str:
    mix, index = state.mix, state.seen_attention_v
    grouped = state.num_gqa >= 4
    chosen = base
    match mix:
        case "q2_k":
            chosen = "q4_k" if grouped else "q3_k"
        case "q2_k_s":
            chosen = "q4_k" if grouped else base
        case "iq3_xxs":
            chosen = "q4_k" if grouped else "iq3_s"
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


def _attention_k_type(state: _State, base: str) -> str:
    if state.num_experts == 8:
        return "q8_0"
    return {"iq3_xs": "iq3_xxs", "iq3_xxs": "iq2_s"}.get(state.mix, base)


def _attention_output_type(state: _State, base: str) -> str:
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


def _down_type(layer: int, state: _State, base: str) -> str:
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
        case "iq3_xxs":
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
        case "iq4_nl" | "iq4_xs":
            return "q5_k" if early else base
        case "q5_k_m":
            return "q6_k" if _more_bits(index, count) else base
        case "q4_k_s":
            return "q5_k" if early and not falcon else base
    return base


def _gate_or_up_type(category: Category, layer: int, state: _State, base: str) -> str:
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


def _stored_type(tensor: GgufTensor, layer: int, state: _State) -> str:
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


def tensors_of(model: ModelSpec) -> tuple[tuple[int, GgufTensor], ...]:
    """Return (layer, tensor) in the quantizer's order: the file's own where one was read."""
    if model.gguf_metadata and model.stored:
        return tuple(stored_tensors(model))
    return tuple(gguf_tensors(model))


@lru_cache(maxsize=64)
def _contents(model: ModelSpec) -> tuple[tuple[tuple[int, GgufTensor], ...], _State]:
    """Return the file's tensors in order and what the rules need to know before they start."""
    tensors = tensors_of(model)
    arch = llama_cpp_arch(model)
    layers = num_layers(model.structure)
    state = _State(
        mix="",
        arch=arch,
        num_layers=layers,
        num_experts=max(1, num_experts_of(model)),
        num_gqa=num_gqa(model),
        # llama.cpp knows a "70B" by its layers: src/models/llama.cpp, qwen2.cpp, deci.cpp.
        is_70b=layers == 80 and arch in ("llama", "qwen2", "deci", "olmo") and num_gqa(model) != 1,
        is_tied=not any(tensor.category == "output" for _, tensor in tensors),
        num_attention_v=sum(tensor.category in ("attn_v", "attn_qkv") for _, tensor in tensors),
    )
    return tensors, state


@lru_cache(maxsize=1024)
def _sized(model: ModelSpec, mix: str) -> tuple[tuple[int, GgufTensor, str, int], ...]:
    """Return every tensor of the file in order: its layer, itself, its type and its bytes."""
    tensors, before = _contents(model)
    state = replace(before, mix=mix)
    sized = []
    # Layers of a kind share their tensor objects, which live as long as ``tensors``.
    sizes: dict[tuple[int, str], int] = {}
    for layer, tensor in tensors:
        stored = _stored_type(tensor, layer, state)
        key = (id(tensor), stored)
        num_bytes = sizes.get(key)
        if num_bytes is None:
            row_bytes = GGML_TYPES[stored].row_bytes(tensor.num_columns)
            num_bytes = sizes[key] = row_bytes * tensor.num_rows * tensor.num_matrices
        sized.append((layer, tensor, stored, num_bytes))
    return tuple(sized)


Layout = Literal["file", "cpu", "cuda"]
"""How tensors are laid out: as the file counts them, or as a buffer of a backend allocates them.

CPU buffers align to 32 bytes (ggml-impl.h TENSOR_ALIGNMENT), CUDA's to 128 and add a partial row where a
quantized row is not a multiple of 512 (ggml-cuda.cu ggml_backend_cuda_buffer_type_get_alloc_size).
"""


@dataclass(frozen=True, slots=True)
class MixBytes:
    """Where a file's bytes lie: the token embedding, each layer (experts apart), the output.

    ``output_bytes`` is 0 for a tied model, whose embedding serves as the head. ``input_bytes`` are
    other tables that are only looked up (positions, token types); ``shared_bytes`` what every
    device with a layer gets a copy of (rope frequencies).
    """

    embedding_bytes: int
    layer_bytes: tuple[int, ...]
    expert_bytes: tuple[int, ...]
    output_bytes: int
    output_norm_bytes: int
    total_bytes: int
    input_bytes: int = 0
    shared_bytes: int = 0


@lru_cache(maxsize=2048)
def mix_bytes(model: ModelSpec, mix: str, layout: Layout = "file") -> MixBytes:
    """Return the bytes of a file by place, for offloading layer by layer.

    Where a GGUF's own header was read and ``mix`` is what it holds, its tensors are the answer.
    """
    if model.gguf_metadata and model.stored and mix == model.weights_format:
        return _stored_bytes(model, layout)
    count = num_layers(model.structure)
    places = _Places([0] * count, [0] * count)
    sizes: dict[tuple[int, str], int] = {}
    for layer, tensor, stored, file_bytes in _sized(model, mix):
        num_bytes = file_bytes
        if layout != "file":
            key = (id(tensor), stored)
            num_bytes = sizes.get(key, -1)
            if num_bytes < 0:
                num_bytes = sizes[key] = allocated_bytes(stored, tensor.num_columns, file_bytes, layout)
        if layer >= 0:
            places.layers[layer] += num_bytes
            if tensor.is_expert and (tensor.num_matrices > 1 or tensor.kept_type):
                places.experts[layer] += num_bytes
        else:
            places.add(_place_outside(tensor), num_bytes)
    return places.summed()


def allocated_bytes(type_name: str, num_columns: int, num_bytes: int, layout: Layout) -> int:
    """Return what a backend's buffer allocates for a tensor of ``num_bytes``."""
    if layout == "file":
        return num_bytes
    if layout == "cpu":
        return round_up(num_bytes, CPU_ALIGNMENT)
    block = GGML_TYPES[type_name]
    if block.block_size > 1 and num_columns % CUDA_ROW_PADDING:
        num_bytes += block.row_bytes(CUDA_ROW_PADDING - num_columns % CUDA_ROW_PADDING)
    return round_up(num_bytes, CUDA_ALIGNMENT)


@lru_cache(maxsize=64)
def named_bytes(model: ModelSpec, mix: str, layout: Layout) -> tuple[tuple[str, int, int, bool], ...]:
    """Return (name in the file, layer, bytes, is an expert) of every tensor in a layer."""
    if model.gguf_metadata and model.stored and mix == model.weights_format:
        found = []
        for tensor in model.stored:
            head, _, rest = tensor.name.partition(".")
            index, _, inner = rest.partition(".")
            if head == "blk" and index.isdigit():
                columns = tensor.shape[0] if tensor.shape else 1
                num_bytes = allocated_bytes(tensor.dtype, columns, tensor.num_bytes, layout)
                found.append((tensor.name, int(index), num_bytes, "_exps." in inner))
        return tuple(found)
    return tuple(
        (
            file_name(each, layer),
            layer,
            allocated_bytes(stored, each.num_columns, num_bytes, layout),
            each.is_expert and (each.num_matrices > 1 or bool(each.kept_type)),
        )
        for layer, each, stored, num_bytes in _sized(model, mix)
        if layer >= 0
    )


Place = Literal["embedding", "output", "norm", "input", "shared", "first"]


@dataclass(slots=True)
class _Places:
    layers: list[int]
    experts: list[int]
    outside: Counter[Place] = field(default_factory=Counter)

    def add(self, place: Place, num_bytes: int) -> None:
        if place == "first":
            self.layers[0] += num_bytes
        else:
            self.outside[place] += num_bytes

    def summed(self) -> MixBytes:
        outside = self.outside
        return MixBytes(
            embedding_bytes=outside["embedding"],
            layer_bytes=tuple(self.layers),
            expert_bytes=tuple(self.experts),
            output_bytes=outside["output"],
            output_norm_bytes=outside["norm"],
            total_bytes=sum(self.layers) + sum(outside.values()),
            input_bytes=outside["input"],
            shared_bytes=outside["shared"],
        )


def _place_outside(tensor: GgufTensor) -> Place:
    if tensor.kept_type:
        return _STORED_PLACES.get(tensor.origin.name.partition(".")[0], "norm")
    if tensor.category == "output":
        return "output"
    if tensor.category == "token_embd":
        return "input" if "per_layer" in tensor.origin.name else "embedding"
    if tensor.origin.role == "position_embedding" or "token_type" in tensor.origin.name:
        return "input"
    if tensor.origin.name.startswith("model.per_layer_"):
        # Gemma 3n's projection to per-layer inputs belongs to layer 0 (src/llama-arch.cpp).
        return "first"
    return "shared" if tensor.origin.name.startswith("rope_freqs") else "norm"


def _stored_bytes(model: ModelSpec, layout: Layout) -> MixBytes:
    count = num_layers(model.structure)
    places = _Places([0] * count, [0] * count)
    for tensor in model.stored:
        columns = tensor.shape[0] if tensor.shape else 1
        num_bytes = allocated_bytes(tensor.dtype, columns, tensor.num_bytes, layout)
        head, _, rest = tensor.name.partition(".")
        index, _, inner = rest.partition(".")
        if head == "blk" and index.isdigit() and int(index) < count:
            places.layers[int(index)] += num_bytes
            # Older files keep every expert as a tensor of its own: ffn_up.3.weight.
            if "_exps." in inner or (inner.startswith("ffn_") and inner.split(".")[1].isdigit()):
                places.experts[int(index)] += num_bytes
        else:
            places.add(_STORED_PLACES.get(head, "norm"), num_bytes)
    return places.summed()


_STORED_PLACES: dict[str, Place] = {
    "token_embd": "embedding",
    "output": "output",
    "rope_freqs": "shared",
    **dict.fromkeys(("per_layer_model_proj", "per_layer_proj_norm"), "first"),
    **dict.fromkeys(INPUT_TABLES, "input"),
}


def sized_tensors(model: ModelSpec, mix: str) -> tuple[tuple[int, GgufTensor, str, int], ...]:
    """Return (layer, tensor, block type, bytes) for every tensor of the file, in its order."""
    return _sized(model, mix)


def types_of(model: ModelSpec, mix: str) -> dict[str, int]:
    """Return the file's bytes by block type."""
    counts: Counter[str] = Counter()
    for _, _, stored, num_bytes in _sized(model, mix):
        counts[stored] += num_bytes
    return dict(counts)


def mix_tensor_bytes(model: ModelSpec, mix: str) -> tuple[tuple[Tensor, int, int], ...]:
    """Return (tensor, 1, bytes) for every tensor of the file; the sum is the file's tensor bytes."""
    return tuple(_entries(model, mix))


def _entries(model: ModelSpec, mix: str) -> Iterator[tuple[Tensor, int, int]]:
    for _, tensor, _, num_bytes in _sized(model, mix):
        yield tensor.origin, 1, num_bytes


def num_stored_elements(model: ModelSpec) -> int:
    """Return the number of elements in the file, as its header would add up."""
    return sum(tensor.num_columns * tensor.num_rows * tensor.num_matrices for _, tensor in tensors_of(model))
