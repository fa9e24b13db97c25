"""Gemma 3n: four alternating streams of the hidden state, and an input of its own for each layer.

src/models/gemma3n.cpp.
"""

from kvplan.engines.ggml.tensor import (
    Tensor,
    concat,
    cont,
    like,
    mul_mat,
    permute,
    repeat,
    reshape,
    sum_rows,
    transpose,
    view,
    weight,
)
from kvplan.engines.llama_cpp.graph.builder import Builder
from kvplan.engines.llama_cpp.graph.layer_inputs import HALF, input_of_layer, inputs_of_layers
from kvplan.engines.llama_cpp.graph.shapes import Attention

LAUREL_RANK = 64


class Gemma3n:
    """Builds one graph."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self.streams = builder.shape.num_altup
        self.hidden = builder.shape.hidden_size
        self.tokens = builder.batch.num_tokens

    def build(self) -> None:
        """Build the whole graph."""
        builder, graph = self.builder, self.builder.graph
        first = like("scale", builder.embedding())
        inputs = inputs_of_layers(builder, first)
        cur = self._fan_out(first)
        for index in range(len(builder.shape.layers)):
            builder.layer = index
            cur = self._layer(cur, inputs, index)
        cur = self._fan_in(cur)
        (cur,) = builder.pick(cur)
        cur = builder.logits(builder.final_norm(cur))
        graph.expand(like("scale", like("unary", like("scale", cur))))

    def _fan_out(self, first: Tensor) -> Tensor:
        magnitude = _magnitude(first)
        repeated = repeat(first, (self.hidden, self.tokens, self.streams - 1))
        added = mul_mat(self._between_streams(), repeated)
        new = _magnitude(added)
        added = like("div", like("mul", added, magnitude), new)
        return concat(first, added, 2)

    def _fan_in(self, cur: Tensor) -> Tensor:
        magnitude = _magnitude(_slice(cur, 0))
        rest = view(cur, (self.hidden, self.tokens, self.streams - 1), cur.nb)
        projected = mul_mat(self._between_streams(), rest)
        new = _magnitude(projected)
        projected = like("div", like("mul", projected, magnitude), new)
        total = _slice(cur, 0)
        for index in range(self.streams - 1):
            total = like("add", total, _slice(projected, index))
        return like("scale", total)

    def _between_streams(self) -> Tensor:
        """Return a matrix for each stream but the first; they lie with the output, in 16 bits."""
        others = self.streams - 1
        num_bytes = HALF * self.hidden * self.hidden * others
        return weight((self.hidden, self.hidden, others), self.builder.places.output, num_bytes)

    def _layer(self, cur: Tensor, inputs: Tensor, index: int) -> Tensor:
        builder = self.builder
        layer = builder.shape.layers[index]
        # Both routings of a layer read the same weights: one copy on a card serves them.
        router = (
            builder.scale_weight(self.hidden),
            builder.weight(self.hidden, self.streams, name="altup_router"),
        )
        predictions = self._predicted(cur, router)
        active = _slice(predictions, 0)
        normed = builder.norm(active)
        laurel = builder.linear(builder.linear(normed, LAUREL_RANK, "laurel_l"), self.hidden, "laurel_r")
        laurel = like("add", builder.norm(laurel), normed)
        part = layer.attention
        assert isinstance(part, Attention)
        attended = self._attention(part, normed)
        attended = like("add", builder.norm(attended), active)
        attended = like("scale", like("add", attended, laurel))
        fed = builder.norm(attended)
        width = layer.mlp.width if layer.mlp is not None else self.hidden
        up = builder.linear(fed, width, "ffn_up")
        gate = builder.linear(fed, width, "ffn_gate")
        if layer.is_odd:
            gate = _largest(gate)
        fed = builder.linear(like("mul", up, like("unary", gate)), self.hidden, "ffn_down")
        activated = like("add", builder.norm(fed, pinned=False), attended)
        corrected = self._corrected(predictions, activated, router)
        own = like("mul", _slice(corrected, 0), builder.scale_weight(self.hidden))
        own = input_of_layer(builder, own, _slice(inputs, index))
        rest = view(corrected, (self.hidden, self.tokens, self.streams - 1), corrected.nb)
        return concat(_slice(corrected, 0), like("add", rest, own), 2)

    def _attention(self, part: Attention, tensor: Tensor) -> Tensor:
        builder = self.builder
        if not part.stores:
            query = builder.linear(tensor, part.head_dim * part.num_heads, "attn_q")
            query = reshape(query, (part.head_dim, part.num_heads, self.tokens))
            query = builder.rope(builder.norm(query))
            return builder.attention(part, query, None, None, two_caches=True)
        query, key, value = builder.qkv(tensor, part)
        query, key = builder.norm(query), builder.norm(key)
        value = like("rms_norm", value)
        query, key = builder.rope(query), builder.rope(key)
        return builder.attention(part, query, key, value, two_caches=True)

    def _modalities(self, tensor: Tensor, router: tuple[Tensor, Tensor]) -> Tensor:
        scale, matrix = router
        normed = self.builder.norm(tensor, scale=scale)
        return like("unary", mul_mat(matrix, like("scale", normed)))

    def _predicted(self, cur: Tensor, router: tuple[Tensor, Tensor]) -> Tensor:
        builder, streams = self.builder, self.streams
        modalities = self._modalities(_slice(cur, 0), router)
        coefficients = builder.linear(modalities, streams * streams, "altup_predict_coef")
        coefficients = reshape(coefficients, (streams, streams, self.tokens))
        turned = cont(permute(cur, (1, 2, 0, 3)))
        predictions = mul_mat(turned, coefficients)
        predictions = cont(permute(predictions, (0, 2, 1, 3)))
        return like("add", predictions, cur)

    def _corrected(self, predictions: Tensor, activated: Tensor, router: tuple[Tensor, Tensor]) -> Tensor:
        builder, streams = self.builder, self.streams
        modalities = self._modalities(activated, router)
        innovation = like("sub", activated, _slice(predictions, 0))
        coefficients = like("scale", builder.linear(modalities, streams, "altup_correct_coef"))
        coefficients = cont(transpose(coefficients), (1, self.tokens, streams))
        innovation = repeat(innovation, (self.hidden, self.tokens, streams))
        return like("add", like("mul", innovation, coefficients), predictions)


def _slice(tensor: Tensor, index: int) -> Tensor:
    del index  # where a view begins does not change what is alive
    return view(tensor, tensor.ne[:2])


def _magnitude(tensor: Tensor) -> Tensor:
    return like("sqrt", sum_rows(like("sqr", tensor)))


def _largest(gate: Tensor) -> Tensor:
    mean = Tensor("mean", (1, *gate.ne[1:]), (gate,))
    deviation = like("scale", sum_rows(like("sqr", like("sub", gate, mean))))
    cutoff = like("add", mean, like("scale", like("sqrt", deviation)))
    return like("unary", like("sub", gate, cutoff))
