"""One micro-batch, where a model lies, and the parts every graph has: weights, norms, rows in and out.

src/llama-graph.cpp: build_inp_embd, build_norm, build_inp_out_ids.
"""

from math import prod

from kvplan.engines.ggml.tensor import (
    I32,
    Graph,
    Tensor,
    get_rows,
    given,
    like,
    mul_mat,
    view,
    weight,
)
from kvplan.engines.llama_cpp.graph.shapes import Attention, ModelShape
from kvplan.frozen import dataclass

# Architectures that rotate by place and time of a picture: four positions a token.
SECTIONED_ROPE_ARCHS = frozenset(
    ("qwen2vl", "qwen3vl", "qwen3vlmoe", "qwen35", "qwen35moe", "hunyuan_vl", "paddleocr")
)
NUM_ROPE_SECTIONS = 4

# Bytes of matrices by name.
Matrices = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """One micro-batch of the worst case, and the caches it meets.

    ``num_tokens`` in ``num_sequences`` equal parts; ``full`` and ``window`` cells in each of
    ``num_streams``. ``values_turned`` stores values with the tokens innermost, as a cache made for
    attention without the fused kernel does.
    """

    num_tokens: int
    num_sequences: int
    num_outputs: int
    full: int
    window: int
    num_streams: int
    flash_attn: bool
    type_k: str
    type_v: str
    values_turned: bool


@dataclass(frozen=True, slots=True)
class Places:
    """Which backend holds what: cards by number, then the CPU.

    ``layers`` and ``experts`` have a backend for each layer; ``caches_follow`` puts a layer's cache
    beside it, else on the CPU. ``host_bytes`` gives the bytes of each layer's matrices on the
    host by name, and ``output_bytes`` the output's, for those that are copied to a card; ``head`` is where
    the projection to the vocabulary lies. ``pinned`` holds
    norms on their layer's card, as a running server does where all layers are on cards; when it only
    measures (``--fit``, ggml_backend_sched_reserve_size) the scheduler forgets that.
    """

    cpu: int
    layers: tuple[int, ...]
    experts: tuple[int, ...]
    output: int
    head: int
    caches_follow: bool
    pinned: bool
    host_bytes: tuple[Matrices, ...]
    output_bytes: int | None


class GraphParts:
    """One graph as it is made, with what all its layers share."""

    def __init__(self, shape: ModelShape, batch: Batch, places: Places) -> None:
        self.shape = shape
        self.batch = batch
        self.places = places
        self.host_bytes = tuple(dict(matrices) for matrices in places.host_bytes)
        self.graph = Graph()
        self._layer = 0
        self.masks: dict[bool, Tensor] = {}
        self.rotations: dict[tuple[bool, bool], Tensor | None] = {}
        self.indices: dict[tuple[bool, bool], Tensor] = {}
        per_token = NUM_ROPE_SECTIONS if shape.arch in SECTIONED_ROPE_ARCHS else 1
        self.positions = given((batch.num_tokens * per_token,), I32)
        self.outputs = given((batch.num_outputs,), I32)
        self.rope_tables: dict[int, Tensor] = {}
        # The last layer's caches of each kind: layers that store none read those.
        self.caches: dict[bool, tuple[Tensor, Tensor]] = {}
        self.key_dims: dict[bool, set[int]] = {False: set(), True: set()}
        self.value_width = 1
        for layer in shape.layers:
            part = layer.attention
            if isinstance(part, Attention):
                self.key_dims[part.windowed].add(part.head_dim)
                self.value_width = max(self.value_width, part.num_kv_heads * part.v_head_dim)

    @property
    def layer(self) -> int:
        """The layer that is being built."""
        return self._layer

    @layer.setter
    def layer(self, index: int) -> None:
        self._layer = index
        if index == len(self.graph.starts):
            self.graph.starts.append(len(self.graph.nodes))

    def weight(self, *ne: int, name: str = "") -> Tensor:
        """Return a weight of the current layer."""
        on = (self.places.experts if name.endswith("exps") else self.places.layers)[self._layer]
        num_bytes = self.host_bytes[self._layer].get(name)
        if num_bytes is not None:
            made = weight(ne, on, num_bytes)
            made.matrix = (self._layer, name)
            return made
        # Small matrices on the host that no rule names are kept in 16 bits.
        return weight(ne, on, 2 * prod(ne) if name and on == self.places.cpu else None)

    def scale_weight(self, *ne: int) -> Tensor:
        """Return a small fp32 weight of the current layer: a norm's, a bias."""
        return weight(ne, self.places.layers[self.layer])

    def embedding(self, deepstack: int = 0) -> Tensor:
        """Look the tokens up on the CPU; embeddings may be given instead, so room for them is there.

        With ``deepstack`` a picture's embedding brings as many rows more, which a token's has room for.
        """
        hidden, tokens = self.shape.hidden_size, self.batch.num_tokens
        table = weight((hidden, self.shape.vocab_size), self.places.cpu)
        rows = get_rows(table, given((tokens,), I32))
        width = hidden * (1 + deepstack)
        if deepstack:
            rows = Tensor("pad", (width, tokens, 1, 1), (rows,))
        self.graph.expand(rows)
        self.graph.expand(given((width, tokens)))
        return view(rows, (hidden, tokens), rows.nb) if deepstack else rows

    def norm(
        self, tensor: Tensor, op: str = "rms_norm", *, pinned: bool = True, scale: Tensor | None = None
    ) -> Tensor:
        """Normalize and scale; the first operation may be pinned to the layer's card.

        ``scale`` is the weight where another norm of the layer reads it too.
        """
        normed = like(op, tensor)
        if pinned and self.places.pinned:
            normed.backend = self.places.layers[self.layer]
        return like("mul", normed, self.scale_weight(tensor.ne[0]) if scale is None else scale)

    def final_norm(self, tensor: Tensor, op: str = "rms_norm") -> Tensor:
        """Normalize before the output projection; what comes of it can be asked for, so it stays."""
        normed = like("mul", like(op, tensor), weight((tensor.ne[0],), self.places.output))
        normed.is_output = True
        return normed

    def logits(self, tensor: Tensor) -> Tensor:
        """Project to the vocabulary."""
        tensor.is_output = True
        size = (self.shape.hidden_size, self.shape.vocab_size)
        table = weight(size, self.places.head, self.places.output_bytes)
        return mul_mat(table, tensor)

    def linear(self, tensor: Tensor, width: int, name: str, *, bias: bool = False) -> Tensor:
        """Multiply with a matrix of the layer, and add a bias where there is one."""
        product = mul_mat(self.weight(tensor.ne[0], width, name=name), tensor)
        return like("add", product, self.scale_weight(width)) if bias else product

    def pick(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Keep the rows whose logits are wanted."""
        return tuple(get_rows(tensor, self.outputs) for tensor in tensors)
