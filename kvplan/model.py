"""A model: its layers in order, the tensors outside them, and where each fact came from."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import field
from functools import lru_cache
from typing import Literal

from kvplan.frozen import dataclass
from kvplan.layers import Cache, Layer, LayerGroup, expand
from kvplan.tensors import Role, Tensor


@dataclass(frozen=True, slots=True)
class Structure:
    """What a config's architecture is, before it has a name: what a family returns.

    ``tensors`` are those outside the decoder layers (embeddings, head, final norm, vision tower,
    encoder). ``mtp_layers`` are in the checkpoint and loaded only for speculation; they are not
    part of ``num_parameters``. ``context_limit_tokens`` is 0 where the model has none.
    ``ssm_dtype`` is what the config asks the recurrent state to be kept in, if it says. With
    ``is_assumed`` the layers are not known: a user asked to take them as full attention.
    """

    layers: tuple[LayerGroup, ...]
    tensors: tuple[Tensor, ...]
    hidden_size: int
    vocab_size: int
    num_attention_heads: int
    context_limit_tokens: int
    tie_word_embeddings: bool
    mtp_layers: tuple[LayerGroup, ...] = ()
    mtp_tensors: tuple[Tensor, ...] = ()
    ssm_dtype: str | None = None
    kind: Literal["decoder", "encoder", "encoder-decoder"] = "decoder"
    assumptions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    is_assumed: bool = False


@dataclass(frozen=True, slots=True)
class Quantization:
    """How the published checkpoint is quantized, from its config's ``quantization_config``.

    ``weights_format`` names a format of kvplan.dtypes; ``unquantized`` are patterns of module names
    that stay in the model's dtype, as the file spells them; ``formats`` are (pattern, format) of
    modules in another format than the rest. With ``only_listed`` nothing but those is quantized.
    """

    weights_format: str
    unquantized: tuple[str, ...] = ()
    kv_cache_dtype: str | None = None
    formats: tuple[tuple[str, str], ...] = ()
    only_listed: bool = False


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of a checkpoint file, read from its header: true bytes win over any formula."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    num_bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class ModelSpec:
    """A model that can be planned.

    ``dtype`` is the model's own (``bfloat16``); ``weights_format`` the format the checkpoint is
    published in. ``published_total`` is the parameter count its publisher shows and
    ``published_relation`` why it differs from ours. ``stored`` is the checkpoint's tensor table
    where a header was read. ``longer_context`` names a model of the same shape with a larger limit.
    ``config`` is the config it was built from. ``draft`` is a separate model that guesses its next
    tokens (speculative decoding), loaded beside it.
    Compared by identity, so that what is derived from a model can be cached cheaply.
    """

    name: str
    architecture: str
    model_type: str
    structure: Structure
    dtype: str
    weights_format: str
    source: str
    revision: str | None = None
    repo: str | None = None
    quantization: Quantization | None = None
    published_total: int | None = None
    published_relation: str = ""
    stored: tuple[StoredTensor, ...] = ()
    gguf_metadata: tuple[tuple[str, object], ...] = ()
    assumptions: tuple[str, ...] = ()
    longer_context: str = ""
    notes: tuple[str, ...] = ()
    config: Mapping[str, object] | None = None
    provenance: tuple[tuple[str, str], ...] = field(default=())
    draft: "ModelSpec | None" = None

    @property
    def layers(self) -> tuple[LayerGroup, ...]:
        """The decoder layers in order, run-length encoded."""
        return self.structure.layers

    @property
    def context_limit_tokens(self) -> int:
        """The length the model was trained for; 0 where it has none."""
        return self.structure.context_limit_tokens


def tensors_of(structure: Structure) -> Iterator[tuple[Tensor, int]]:
    """Yield every tensor of the instantiated model with the number of layers that hold it."""
    for tensor in structure.tensors:
        yield tensor, 1
    for group in structure.layers:
        for tensor in group.layer.tensors:
            yield tensor, group.count


def num_parameters(structure: Structure) -> int:
    """Count the instantiated model: a tied head once, no MTP layers, no scales."""
    return sum(tensor.num_elements * times for tensor, times in tensors_of(structure))


def num_active_parameters(structure: Structure) -> int:
    """Count what one token's forward pass uses: all but the experts that the router leaves out."""
    return sum(tensor.num_active_elements * times for tensor, times in tensors_of(structure))


def parameters_by_role(structure: Structure) -> dict[Role, int]:
    """Return parameter counts by role, largest first."""
    counts: Counter[Role] = Counter()
    for tensor, times in tensors_of(structure):
        counts[tensor.role] += tensor.num_elements * times
    return dict(counts.most_common())


def num_layers(structure: Structure) -> int:
    """Count the decoder layers."""
    return sum(group.count for group in structure.layers)


@lru_cache(maxsize=128)
def expand_layers(model: ModelSpec) -> tuple[Layer, ...]:
    """Return the decoder layers one by one, in order."""
    return expand(model.layers)


@lru_cache(maxsize=512)
def cache_kinds(model: ModelSpec) -> tuple[tuple[Cache, int], ...]:
    """Return each distinct cache with the number of layers that hold it, in order of appearance."""
    counts: Counter[Cache] = Counter()
    for group in model.layers:
        for cache in group.layer.caches:
            counts[cache] += group.count
    return tuple(counts.items())


@lru_cache(maxsize=512)
def layer_kinds(model: ModelSpec) -> tuple[tuple[Layer, int], ...]:
    """Return each distinct layer with its count, in order of appearance."""
    counts: Counter[Layer] = Counter()
    for group in model.layers:
        counts[group.layer] += group.count
    return tuple(counts.items())
