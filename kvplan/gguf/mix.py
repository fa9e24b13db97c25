"""The bytes of a GGUF file's tensors by place: what lies in each layer, and outside them.

The types are those that kvplan.gguf.types gives; the tensors those of llama.cpp's converter: experts
stacked, a tied head absent, MLA's joint projection split in two, vision towers in a file of their own.
Where a file's own header was read its tensors are the answer.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import field
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import Literal

from kvplan.dtypes import GGML_TYPES
from kvplan.frozen import dataclass, replace
from kvplan.gguf.names import (
    GgufTensor,
    file_name,
    gguf_tensors,
    llama_cpp_arch,
    num_experts_of,
    num_gqa,
)
from kvplan.gguf.stored import is_of_experts, stored_tensors
from kvplan.gguf.types import CHANGED_BY_IMATRIX, State, is_counted, smallest_type, stored_type
from kvplan.model import ModelSpec, num_layers
from kvplan.tensors import Tensor
from kvplan.units import round_up

CPU_ALIGNMENT = 32
CUDA_ALIGNMENT = 128
CUDA_ROW_PADDING = 512
# llama.cpp knows a "70B" by its layers: src/models/llama.cpp (with grouped queries), qwen2.cpp …
LAYERS_OF_70B: dict[str, int] = {"llama": 80, "qwen2": 80, "deci": 80, "olmo": 80, "jais2": 68}
# Tables that stay in system memory: llama.cpp src/llama-arch.cpp LLM_TENSOR_LAYER_INPUT.
INPUT_TABLES = frozenset(("position_embd", "token_types", "per_layer_token_embd"))


def tensors_of(model: ModelSpec) -> Iterator[tuple[int, tuple[GgufTensor, ...]]]:
    """Yield (layer, some of its tensors) in the quantizer's order: the file's own where one was read."""
    if not (model.gguf_metadata and model.stored):
        yield from gguf_tensors(model)
        return
    for layer, tensors in groupby(stored_tensors(model), itemgetter(0)):
        yield layer, tuple(tensor for _, tensor in tensors)


Row = tuple[GgufTensor, str, int]
"""A tensor of a file, its block type and its bytes."""


@lru_cache(maxsize=64)
def _contents(model: ModelSpec) -> tuple[tuple[tuple[int, tuple[GgufTensor, ...]], ...], State]:
    """Return the file's tensors in order and what the rules need to know before they start."""
    groups = tuple(tensors_of(model))
    categories = Counter(tensor.category for _, tensors in groups for tensor in tensors)
    arch = llama_cpp_arch(model)
    layers = num_layers(model.structure)
    state = State(
        mix="",
        arch=arch,
        num_layers=layers,
        num_experts=max(1, num_experts_of(model)),
        num_gqa=num_gqa(model),
        is_70b=layers == LAYERS_OF_70B.get(arch) and not (arch == "llama" and num_gqa(model) == 1),
        is_tied=not categories["output"],
        num_attention_v=categories["attn_v"] + categories["attn_qkv"],
    )
    return groups, state


@lru_cache(maxsize=1024)
def _layered(
    model: ModelSpec, mix: str, has_imatrix: bool = False
) -> tuple[tuple[int, tuple[Row, ...]], ...]:
    """Return every layer's tensors with their types and bytes, in the file's order.

    Layers of which all tensors are alike are one and the same tuple, so that they are added up once.
    """
    groups, before = _contents(model)
    state = replace(before, mix=mix, has_imatrix=has_imatrix)
    # Layers of a kind share their tensors, which live as long as ``groups``.
    kinds: dict[int, tuple[list[Row], list[int]]] = {}
    alike: dict[tuple[object, ...], tuple[Row, ...]] = {}
    layered = []
    for layer, tensors in groups:
        kind = kinds.get(id(tensors))
        if kind is None:
            uncounted = replace(state)
            rows = [_row(tensor, stored_type(tensor, layer, uncounted)) for tensor in tensors]
            counted = [at for at, tensor in enumerate(tensors) if is_counted(tensor.category, mix)]
            kind = kinds[id(tensors)] = (rows, counted)
        rows, counted = kind
        types = [stored_type(tensors[at], layer, state) for at in counted]
        key = (id(tensors), *types)
        found = alike.get(key)
        if found is None:
            own = rows.copy()
            for at, stored in zip(counted, types, strict=True):
                own[at] = _row(tensors[at], stored)
            found = alike[key] = tuple(own)
        layered.append((layer, found))
    return tuple(layered)


def _row(tensor: GgufTensor, stored: str) -> Row:
    row_bytes = GGML_TYPES[stored].row_bytes(tensor.num_columns)
    return tensor, stored, row_bytes * tensor.num_rows * tensor.num_matrices


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
    sums: dict[int, tuple[int, int]] = {}
    for layer, rows in _layered(model, mix):
        if layer < 0:
            for tensor, stored, num_bytes in rows:
                held = allocated_bytes(stored, tensor.num_columns, num_bytes, layout)
                places.add(_place_outside(tensor, model.model_type), held)
            continue
        found = sums.get(id(rows))
        if found is None:
            found = sums[id(rows)] = _added(rows, layout)
        places.layers[layer] += found[0]
        places.experts[layer] += found[1]
    return places.summed()


def _added(rows: Sequence[Row], layout: Layout) -> tuple[int, int]:
    """Return the bytes of all tensors and those of the routed experts."""
    every = experts = 0
    for tensor, stored, num_bytes in rows:
        held = allocated_bytes(stored, tensor.num_columns, num_bytes, layout)
        every += held
        if tensor.is_expert and (tensor.num_matrices > 1 or tensor.kept_type):
            experts += held
    return every, experts


@lru_cache(maxsize=2048)
def least_mix_bytes(model: ModelSpec, mix: str) -> int:
    """Return a lower bound on a file's bytes: every tensor it packs in the mix's smallest type."""
    block = GGML_TYPES[smallest_type(mix)]
    return _num_packed(model) * block.block_bytes // block.block_size


@lru_cache(maxsize=256)
def _num_packed(model: ModelSpec) -> int:
    return sum(
        tensor.num_columns * tensor.num_rows * tensor.num_matrices
        for _, tensors in _contents(model)[0]
        for tensor in tensors
        if tensor.is_quantizable
    )


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
                found.append((tensor.name, int(index), num_bytes, is_of_experts(inner)))
        return tuple(found)
    return tuple(
        (
            file_name(each, layer),
            layer,
            allocated_bytes(stored, each.num_columns, num_bytes, layout),
            each.is_expert and (each.num_matrices > 1 or bool(each.kept_type)),
        )
        for layer, each, stored, num_bytes in sized_tensors(model, mix)
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


def _place_outside(tensor: GgufTensor, arch: str) -> Place:
    if tensor.kept_type:
        return _stored_place(tensor.origin.name.partition(".")[0], arch)
    if tensor.category == "output":
        return "output"
    if tensor.category == "token_embd":
        return "input" if "per_layer" in tensor.origin.name else "embedding"
    if tensor.origin.role == "position_embedding" or "token_type" in tensor.origin.name:
        return "input"
    if tensor.origin.name.startswith("model.per_layer_"):
        # Gemma 3n's projection to per-layer inputs belongs to layer 0 (src/llama-arch.cpp).
        return "first"
    return "shared" if tensor.origin.name.startswith(("rope_freqs", "rope_factors")) else "norm"


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
            stem, _, rest = inner.partition(".")
            if is_of_experts(inner) or (stem.startswith("ffn_") and rest.partition(".")[0].isdigit()):
                places.experts[int(index)] += num_bytes
        else:
            places.add(_stored_place(head, model.model_type), num_bytes)
    return places.summed()


_STORED_PLACES: dict[str, Place] = {
    "token_embd": "embedding",
    "output": "output",
    **dict.fromkeys(("rope_freqs", "rope_factors_long", "rope_factors_short"), "shared"),
    **dict.fromkeys(("per_layer_model_proj", "per_layer_proj_norm", "token_embd_norm"), "first"),
    **dict.fromkeys(INPUT_TABLES, "input"),
}


def _stored_place(stem: str, arch: str) -> Place:
    # Files of LFM2 call the last norm by the name of the first (src/llama-arch.cpp).
    if stem == "token_embd_norm" and arch.startswith("lfm2"):
        return "norm"
    return _STORED_PLACES.get(stem, "norm")


def sized_tensors(model: ModelSpec, mix: str) -> tuple[tuple[int, GgufTensor, str, int], ...]:
    """Return (layer, tensor, block type, bytes) for every tensor of the file, in its order."""
    return tuple((layer, *row) for layer, rows in _layered(model, mix) for row in rows)


def mix_tensor_bytes(model: ModelSpec, mix: str) -> tuple[tuple[Tensor, int, int], ...]:
    """Return (tensor, 1, bytes) for every tensor of the file; the sum is the file's tensor bytes."""
    return tuple(_entries(model, mix))


def _entries(model: ModelSpec, mix: str) -> Iterator[tuple[Tensor, int, int]]:
    for _, tensor, _, num_bytes in sized_tensors(model, mix):
        yield tensor.origin, 1, num_bytes


@lru_cache(maxsize=256)
def imatrix_difference(model: ModelSpec, mix: str) -> int:
    """Return by how many bytes an importance matrix makes the file larger; less than 0: smaller.

    0 for the file's own mix where a file was read, whose types are what they are.
    """
    if mix not in CHANGED_BY_IMATRIX or (model.stored and mix == model.weights_format):
        return 0
    with_it, without = (
        sum(num_bytes for _, rows in _layered(model, mix, one) for _, _, num_bytes in rows)
        for one in (True, False)
    )
    return with_it - without


def num_stored_elements(model: ModelSpec) -> int:
    """Return the number of elements in the file, as its header would add up."""
    return sum(
        tensor.num_columns * tensor.num_rows * tensor.num_matrices
        for _, tensors in tensors_of(model)
        for tensor in tensors
    )
