"""Bytes of a model's weights in a format: a fold over its tensors.

Which tensors a format packs is the format's rule (``coverage``); norms, routers, convolutions and
biases always stay in the model's own type, and a tensor with a fixed dtype stays in that. GGUF
mixes choose a type per tensor and are in kvplan.gguf.mix.
"""

from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from math import prod

from kvplan.dtypes import DTYPE_BYTES
from kvplan.frozen import dataclass, replace
from kvplan.gguf.mix import least_mix_bytes, mix_bytes, mix_tensor_bytes
from kvplan.model import ModelSpec, Quantization, num_parameters
from kvplan.quantity import Quantity
from kvplan.tensors import Role, Tensor
from kvplan.units import ceil_div
from kvplan.weight_formats import WeightFormat, weight_format

LINEAR_ROLES: frozenset[Role] = frozenset(
    ("attention", "indexer", "mlp", "expert", "shared_expert", "recurrent", "mtp")
)
EMBEDDING_ROLES: frozenset[Role] = frozenset(("embedding", "lm_head"))
# What a quantized checkpoint leaves in the model's own type: a format that packs no tensor.
NOT_PACKED = WeightFormat("not packed", "fp8", 16, "experts", about="the model's own type")


def is_packed(tensor: Tensor, weight: WeightFormat) -> bool:
    """Tell whether ``weight`` packs this tensor or leaves it in the model's type."""
    if weight.coverage == "all":
        return True
    if tensor.dtype is not None or len(tensor.shape) != 2 or tensor.name.endswith(".bias"):
        return False
    if weight.coverage == "experts":
        return tensor.role == "expert"
    if tensor.role in EMBEDDING_ROLES:
        return weight.coverage == "linears+embeddings"
    return tensor.role in LINEAR_ROLES and "conv" not in tensor.name


def tensor_bytes(tensor: Tensor, weight: WeightFormat, dtype: str) -> int:
    """Return the bytes of all ``tensor.count`` copies in a format.

    ``dtype`` is the model's own type, for what the format leaves alone. The result includes scales,
    zero points and indices.
    """
    if tensor.dtype is not None:
        return tensor.num_elements * DTYPE_BYTES[tensor.dtype]
    if weight is NOT_PACKED:
        return tensor.num_elements * DTYPE_BYTES.get(dtype, 2)
    if weight.family == "plain":
        return tensor.num_elements * weight.bits // 8
    if not is_packed(tensor, weight):
        return tensor.num_elements * DTYPE_BYTES.get(dtype, 2)
    num_out, num_in = tensor.shape[0], prod(tensor.shape[1:])
    num_bits = num_out * num_in * weight.bits
    if weight.group_size:
        num_groups = ceil_div(num_out, weight.group_rows) * ceil_div(num_in, weight.group_size)
        num_bits += num_groups * (weight.scale_bits + weight.zero_bits)
    each = ceil_div(num_bits, 8) + num_out * weight.row_bytes + num_in * weight.input_bytes
    return (each + weight.tensor_bytes) * tensor.count


@lru_cache(maxsize=4096)
def tensor_table(model: ModelSpec, format_name: str) -> tuple[tuple[Tensor, int, int], ...]:
    """Return (tensor, number of layers holding it, bytes in one of them) for the whole model.

    GGUF mixes give layers of one kind different types, so there the bytes are of one layer on
    average; kvplan.gguf.mix has them layer by layer.
    """
    weight = weight_format(format_name)
    if weight.family == "gguf":
        return mix_tensor_bytes(model, weight.name)
    stored = stored_bytes(model, format_name)
    rows = [(tensor, 1, num_bytes) for tensor, num_bytes in stored.outside]
    rows += [
        (tensor, times, each) for group in stored.groups for tensor, spans in group for each, times in spans
    ]
    return tuple(rows)


@dataclass(frozen=True, slots=True)
class Stored:
    """What a model's tensors take in a format, no mix of GGUF.

    ``outside`` are those outside the layers with their bytes. ``groups`` has, for each group of
    layers, every tensor with (bytes in one layer, in how many of the layers).
    """

    outside: tuple[tuple[Tensor, int], ...]
    groups: tuple[tuple[tuple[Tensor, tuple[tuple[int, int], ...]], ...], ...]


@lru_cache(maxsize=4096)
def stored_bytes(model: ModelSpec, format_name: str) -> Stored:
    """Return what each tensor takes, priced once for every way to spread the model."""
    weight, dtype = weight_format(format_name), model.dtype
    outside = tuple(
        (tensor, span_bytes(model, weight, tensor, None, 1)) for tensor in model.structure.tensors
    )
    first = 0
    groups: list[tuple[tuple[Tensor, tuple[tuple[int, int], ...]], ...]] = []
    for group in model.layers:
        groups.append(
            tuple(
                (
                    tensor,
                    tuple(
                        (tensor_bytes(tensor, each, dtype), times)
                        for each, times in _span(model, weight, tensor, first, group.count)
                    ),
                )
                for tensor in group.layer.tensors
            )
        )
        first += group.count
    return Stored(outside, tuple(groups))


def span_bytes(model: ModelSpec, weight: WeightFormat, tensor: Tensor, first: int | None, count: int) -> int:
    """Return the bytes of ``tensor`` in the ``count`` layers from ``first`` on (None: outside them).

    In the checkpoint's own format its quantization_config says which layers' tensors are packed how.
    """
    return sum(
        times * tensor_bytes(tensor, each, model.dtype)
        for each, times in _span(model, weight, tensor, first, count)
    )


def _span(
    model: ModelSpec, weight: WeightFormat, tensor: Tensor, first: int | None, count: int
) -> tuple[tuple[WeightFormat, int], ...]:
    """Return the formats of a tensor over some layers and in how many of them it has each."""
    packing = _packing(model)
    if packing is None or packing.quantization.weights_format != weight.name:
        return ((weight, count),)
    if first is None:
        return ((packing.format_of(weight, tensor, None), count),)
    if not packing.differs_by_layer:
        return ((packing.format_of(weight, tensor, packing.like(first)), count),)
    counts: dict[WeightFormat, int] = {}
    for layer, times in packing.alike(first, count):
        found = packing.format_of(weight, tensor, layer)
        counts[found] = counts.get(found, 0) + times
    return tuple(counts.items())


class _Packing:
    """A quantized checkpoint's patterns made ready: which tensors it packs, and how.

    ``differs_by_layer`` tells whether the same tensor may be packed in some layers and not in others.
    """

    __slots__ = ("_formats", "_found", "_like", "_spans", "_unquantized", "differs_by_layer", "quantization")

    def __init__(self, quantization: Quantization) -> None:
        from kvplan.module_patterns import patterns_of

        self.quantization = quantization
        self._unquantized = patterns_of(quantization.unquantized)
        merged: dict[str, tuple[str, ...]] = {}
        for pattern, name in quantization.formats:
            merged[name] = (*merged.get(name, ()), pattern)
        # Named outright, a module is packed whatever the format covers by itself.
        self._formats = tuple(
            (patterns_of(patterns), replace(weight_format(name), coverage="linears+embeddings"))
            for name, patterns in merged.items()
        )
        every = (self._unquantized, *(patterns for patterns, _ in self._formats))
        self.differs_by_layer = any(patterns.differ_by_layer for patterns in every)
        self._like: dict[tuple[object, ...], int] = {}
        self._spans: dict[tuple[int, int], tuple[tuple[int, int], ...]] = {}
        self._found: dict[tuple[str, str, int | None], WeightFormat] = {}

    def like(self, layer: int) -> int:
        """Return the layer that stands for all that are packed like this one."""
        meaning = (
            self._unquantized.meaning(layer),
            *(patterns.meaning(layer) for patterns, _ in self._formats),
        )
        return self._like.setdefault(meaning, layer)

    def alike(self, first: int, count: int) -> tuple[tuple[int, int], ...]:
        """Return the ``count`` layers from ``first`` on: one for all packed like it, and how many."""
        found = self._spans.get((first, count))
        if found is None:
            numbers = Counter(self.like(layer) for layer in range(first, first + count))
            found = self._spans[first, count] = tuple(numbers.items())
        return found

    def format_of(self, weight: WeightFormat, tensor: Tensor, layer: int | None) -> WeightFormat:
        """Return the format of one tensor in one layer, or outside the layers (None)."""
        key = (tensor.name, tensor.role, layer)
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = self._decided(weight, tensor, layer)
        return found

    def _decided(self, weight: WeightFormat, tensor: Tensor, layer: int | None) -> WeightFormat:
        if self._unquantized.match(tensor.name, layer):
            return NOT_PACKED
        for patterns, packed in self._formats:
            if patterns.match(tensor.name, layer):
                # Schemes are for linear layers, which the head is and the embedding is not.
                return NOT_PACKED if tensor.role == "embedding" else packed
        return NOT_PACKED if self.quantization.only_listed else weight


@lru_cache(maxsize=1024)
def _packing(model: ModelSpec) -> _Packing | None:
    """Return the model's patterns, None where all of it is packed alike."""
    found = model.quantization
    if found is None or not (found.unquantized or found.formats or found.only_listed):
        return None
    return _Packing(found)


def format_name_of(model: ModelSpec, requested: str | None) -> str:
    """Return the canonical name of the requested format, or of the one the model is published in."""
    return weight_format(requested or model.weights_format).name


def served_format_name(model: ModelSpec, requested: str | None, dtype: str) -> str:
    """Return the format of an engine that serves fp32 checkpoints in ``dtype``, a 16-bit type.

    What was requested stands, fp32 too.
    """
    if requested is None and model.weights_format == "fp32" and dtype != "float32":
        return "bf16" if dtype == "bfloat16" else "fp16"
    return format_name_of(model, requested)


@lru_cache(maxsize=4096)
def weight_bytes(model: ModelSpec, format_name: str) -> Quantity:
    """Return the bytes of the whole model in a format.

    Where the checkpoint's header was read and the format is the published one, its own tensor
    table is the answer (``exact``); otherwise the format's rule over the exact inventory.
    """
    weight = weight_format(format_name)
    if model.stored and weight.name == model.weights_format:
        num_bytes = sum(stored.num_bytes for stored in model.stored)
        return Quantity(num_bytes, num_bytes, num_bytes, "exact", "the checkpoint's own header")
    if weight.family == "gguf":
        num_bytes = mix_bytes(model, weight.name).total_bytes
        return Quantity(num_bytes, num_bytes, num_bytes, "exact", weight.source)
    num_bytes = sum_bytes(tensor_table(model, format_name))
    low, high = _bounds(num_bytes, weight)
    return Quantity(low, num_bytes, high, weight.basis, weight.source or weight.about)


def sum_bytes(table: Iterable[tuple[Tensor, int, int]]) -> int:
    """Add up a table of (tensor, times, bytes)."""
    return sum(times * num_bytes for _, times, num_bytes in table)


def _bounds(num_bytes: int, weight: WeightFormat) -> tuple[int, int]:
    if weight.basis == "exact":
        return num_bytes, num_bytes
    # ExLlama spreads its average over tensors and keeps a wider head; nested absmax pads blocks.
    slack = num_bytes // (100 if weight.basis == "calibrated" else 20)
    return num_bytes - slack, num_bytes + slack


def least_bits(name: str) -> int:
    """Return a lower bound on the bits a packed element takes.

    A mix is named after its smallest type, but for the ``iq`` ones, which go one below (gguf/types.py).
    """
    weight = weight_format(name)
    if weight.family != "gguf":
        return weight.bits or 1
    if weight.name in ("gguf-f16", "gguf-bf16", "gguf-f32"):
        return 16
    named = int(next((letter for letter in weight.name if letter.isdigit()), "1"))
    return max(1, named - 1) if weight.name.startswith("iq") else named


def least_bits_of(model: ModelSpec, name: str) -> int:
    """Return a lower bound on the bits of a model's elements: a checkpoint may pack some tighter."""
    found, bits = model.quantization, least_bits(name)
    if found is None or found.weights_format != weight_format(name).name:
        return bits
    return min((bits, *(least_bits(other) for _, other in found.formats)))


def weights_exceed(model: ModelSpec, name: str, num_bytes: int) -> bool:
    """Tell whether the weights alone are more than ``num_bytes``, by a bound where that is enough."""
    return _least_bytes(model, name) >= num_bytes or weight_bytes(model, name).low >= num_bytes


def _least_bytes(model: ModelSpec, name: str) -> int:
    """Return a lower bound on the weights that needs no look at each tensor."""
    weight = weight_format(name)
    if weight.family != "gguf":
        return num_model_parameters(model) * least_bits_of(model, name) // 8
    # What was read from a file may have been made by any rule.
    return 0 if model.stored and weight.name == model.weights_format else least_mix_bytes(model, weight.name)


@lru_cache(maxsize=4096)
def num_model_parameters(model: ModelSpec) -> int:
    """Return the model's parameters, added up once a model."""
    return num_parameters(model.structure)
