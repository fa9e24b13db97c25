"""RWKV's graphs: each token mixes with the one before it, and one state a head.

src/models/rwkv6-base.cpp, rwkv7-base.cpp, rwkv6.cpp, rwkv7.cpp, and rwkv6qwen2.cpp and arwkv7.cpp, which
keep a transformer's MLP.
"""

from kvplan.engines.ggml.tensor import (
    Dims,
    Tensor,
    concat,
    cont,
    copy_to,
    like,
    mul_mat,
    permute,
    repeat,
    reshape,
    sum_rows,
    view,
)
from kvplan.engines.llama_cpp.graph.builder import Builder
from kvplan.engines.llama_cpp.graph.recurrent import Recurrent
from kvplan.engines.llama_cpp.graph.shapes import LayerShape
from kvplan.layers import RwkvState

RWKVS = frozenset(("rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"))
WITH_MLP = frozenset(("rwkv6qwen2", "arwkv7"))
SEVENTH = frozenset(("rwkv7", "arwkv7"))
NUM_MIXES_6 = 5


def rwkv(builder: Builder) -> None:
    """Build the whole graph."""
    Rwkv(builder).build()


class Rwkv:
    """Builds one graph."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self.recurrent = Recurrent(builder)
        self.hidden = builder.shape.hidden_size
        self.sequences = builder.batch.num_sequences
        self.tokens = builder.batch.num_tokens
        self.each = self.tokens // self.sequences
        self.has_mlp = builder.shape.arch in WITH_MLP
        self.norm_op = "rms_norm" if self.has_mlp else "norm"
        self.first_value: Tensor | None = None

    def build(self) -> None:
        """Build it from the embedding to the head."""
        builder, layers = self.builder, self.builder.shape.layers
        residual = builder.embedding()
        if not self.has_mlp:
            residual = builder.norm(residual, self.norm_op)
        for index, layer in enumerate(layers):
            builder.layer = index
            residual = self._layer(layer, residual, picks=index == len(layers) - 1)
        builder.graph.expand(builder.logits(builder.final_norm(residual, self.norm_op)))

    def _layer(self, layer: LayerShape, residual: Tensor, *, picks: bool) -> Tensor:
        builder, hidden = self.builder, self.hidden
        shape = (hidden, self.each, self.sequences)
        residual = reshape(residual, shape)
        shifts = 1 if self.has_mlp else 2
        stored = self.recurrent.states(shifts * hidden)
        shift = reshape(self.recurrent.gathered(stored), (hidden, shifts, self.sequences))
        before, before_mlp = (view(shift, (hidden, 1, self.sequences), shift.nb) for _ in range(2))
        normed = builder.norm(residual, self.norm_op)
        mix = self._time_mix_7 if builder.shape.arch in SEVENTH else self._time_mix_6
        cur = mix(layer, normed, self._shifted(shift if self.has_mlp else before, normed))
        if self.has_mlp:
            self._keep(self._last(normed), stored)
            middle = reshape(like("add", cur, residual), (hidden, self.tokens))
            if picks:
                (middle,) = builder.pick(middle)
            assert layer.mlp is not None
            return like("add", builder.mlp(builder.norm(middle), layer.mlp), middle)
        middle = like("add", cur, residual)
        fed = builder.norm(middle, self.norm_op)
        previous = self._shifted(before_mlp, fed)
        self._keep(concat(self._last(normed), self._last(fed), 1), stored)
        middle, fed, previous = (reshape(part, (hidden, self.tokens)) for part in (middle, fed, previous))
        if picks:
            middle, fed, previous = builder.pick(middle, fed, previous)
        return like("add", self._channel_mix(layer, fed, previous), middle)

    def _shifted(self, before: Tensor, normed: Tensor) -> Tensor:
        """Return each token's predecessor: the last of the batch before, then all but the last."""
        return concat(before, view(normed, (self.hidden, self.each - 1, self.sequences), normed.nb), 1)

    def _last(self, normed: Tensor) -> Tensor:
        return view(normed, (self.hidden, 1, self.sequences), normed.nb)

    def _keep(self, shift: Tensor, stored: Tensor) -> None:
        count = stored.num_elements
        self.builder.graph.expand(copy_to(view(shift, (count,)), view(stored, (count,))))

    def _lerp(self, difference: Tensor, tensor: Tensor) -> Tensor:
        return like("add", like("mul", difference, self.builder.scale_weight(self.hidden)), tensor)

    def _channel_mix(self, layer: LayerShape, tensor: Tensor, previous: Tensor) -> Tensor:
        builder = self.builder
        difference = like("sub", previous, tensor)
        keys = self._lerp(difference, tensor)
        key_width = dict(layer.widths)["channel_mix_key"]
        if builder.shape.arch == "rwkv7":
            raised = builder.linear(keys, key_width, "channel_mix_key")
            return builder.linear(like("sqr", like("unary", raised)), self.hidden, "channel_mix_value")
        received = self._lerp(difference, tensor)
        gate = like("unary", builder.linear(received, self.hidden, "channel_mix_receptance"))
        raised = like("sqr", like("unary", builder.linear(keys, key_width, "channel_mix_key")))
        return like("mul", gate, builder.linear(raised, self.hidden, "channel_mix_value"))

    def _adapted(self, layer: LayerShape, tensor: Tensor, down: str, up: str, *, bent: bool) -> Tensor:
        """Run a tensor through two narrow matrices, with a function between them if ``bent``."""
        lowered = self.builder.linear(tensor, dict(layer.widths)[down], down)
        return self.builder.linear(like("unary", lowered) if bent else lowered, self.hidden, up)

    def _heads(self, tensor: Tensor, size: int) -> Tensor:
        return reshape(tensor, (size, self.hidden // size, self.tokens))

    def _stepped(self, op: str, size: int, *operands: Tensor) -> Tensor:
        """Run the states over the batch and keep the last; return what the tokens got."""
        stored = self.recurrent.states(self.hidden * size)
        states = self.recurrent.gathered(stored)
        ne: Dims = (self.hidden, self.tokens + size * self.sequences, 1, 1)
        result = Tensor(op, ne, (*operands, states))
        cur = view(result, (self.hidden * self.tokens,))
        count = self.hidden * size * self.sequences
        self.builder.graph.expand(copy_to(view(result, (count,)), view(stored, (count,))))
        return cur

    def _group_normed(self, tensor: Tensor, size: int) -> Tensor:
        normed = reshape(like("norm", self._heads(tensor, size)), (self.hidden, self.tokens))
        scaled = like("mul", normed, self.builder.scale_weight(self.hidden))
        return like("add", scaled, self.builder.scale_weight(self.hidden))

    def _time_mix_6(self, layer: LayerShape, tensor: Tensor, previous: Tensor) -> Tensor:
        builder, hidden, tokens = self.builder, self.hidden, self.tokens
        assert isinstance(layer.state, RwkvState)
        widths = dict(layer.widths)
        size = layer.state.num_float32_elements // hidden
        difference, cur = (
            reshape(part, (hidden, tokens)) for part in (like("sub", previous, tensor), tensor)
        )
        rank = widths["time_mix_w1"] // NUM_MIXES_6
        mixed = self._lerp(difference, cur)
        mixed = mul_mat(builder.weight(hidden, NUM_MIXES_6 * rank, name="time_mix_w1"), mixed)
        mixed = reshape(like("unary", mixed), (rank, 1, NUM_MIXES_6, tokens))
        mixed = cont(permute(mixed, (0, 1, 3, 2)))
        raised = reshape(builder.weight(rank, hidden, NUM_MIXES_6, name="time_mix_w2"),
                         (rank, hidden, 1, NUM_MIXES_6))  # fmt: skip
        mixed = mul_mat(raised, mixed)
        if "time_mix_lerp_fused" in widths:
            difference, cur = (reshape(part, (hidden, 1, tokens)) for part in (difference, cur))
            mixed = like("add", mixed, builder.scale_weight(hidden, 1, 1, NUM_MIXES_6))
            mixed = like("add", like("mul", mixed, difference), cur)
            w, k, v, r, g = (view(mixed, (hidden, tokens)) for _ in range(NUM_MIXES_6))
        else:
            parts = [view(mixed, (hidden, tokens)) for _ in range(NUM_MIXES_6)]
            w, k, v, r, g = (
                like("add", like("mul", like("add", part, builder.scale_weight(hidden)), difference), cur)
                for part in parts
            )
        key_width = widths["time_mix_key"]
        biased = "time_mix_key.bias" in widths
        r = builder.linear(r, hidden, "time_mix_receptance", bias=biased)
        k = builder.linear(k, key_width, "time_mix_key", bias=biased)
        v = builder.linear(v, key_width, "time_mix_value", bias=biased)
        g = like("unary", builder.linear(g, hidden, "time_mix_gate"))
        if key_width != hidden:
            ratio, groups = hidden // key_width, key_width // size
            k, v = (
                repeat(reshape(part, (size, 1, groups, tokens)), (size, ratio, groups, tokens))
                for part in (k, v)
            )
        k, v, r = (self._heads(part, size) for part in (k, v, r))
        w = self._adapted(layer, w, "time_mix_decay_w1", "time_mix_decay_w2", bent=True)
        w = like("add", w, builder.scale_weight(hidden))
        w = self._heads(like("unary", like("unary", like("unary", w))), size)
        if self.has_mlp:
            k = like("sub", k, like("mul", k, w))
            cur = reshape(self._stepped("gated_linear_attn", size, k, v, r, w), (hidden, tokens))
        else:
            first = builder.scale_weight(size, hidden // size)
            cur = self._group_normed(self._stepped("rwkv_wkv6", size, k, v, r, first, w), size)
        return self._projected(like("mul", cur, g))

    def _time_mix_7(self, layer: LayerShape, tensor: Tensor, previous: Tensor) -> Tensor:
        builder, hidden, tokens = self.builder, self.hidden, self.tokens
        assert isinstance(layer.state, RwkvState)
        widths = dict(layer.widths)
        size = layer.state.num_float32_elements // hidden
        is_gated = "time_mix_g1" in widths
        mixes = 6 if is_gated else 5
        difference = repeat(like("sub", previous, tensor), (hidden, self.each, self.sequences, mixes))
        lerp = builder.scale_weight(hidden, 1, 1, mixes)
        mixed = like("add", like("mul", difference, lerp), tensor)
        xr, xw, xk, xv, xa, *xg = (view(mixed, (hidden, tokens)) for _ in range(mixes))
        r = builder.linear(xr, hidden, "time_mix_receptance")
        w = self._adapted(layer, xw, "time_mix_w1", "time_mix_w2", bent=True)
        w = like("add", w, builder.scale_weight(hidden))
        w = like("unary", like("scale", like("unary", w)))
        k = builder.linear(xk, hidden, "time_mix_key")
        v = builder.linear(xv, hidden, "time_mix_value")
        if self.first_value is None:
            self.first_value = v
        else:
            share = self._adapted(layer, xv, "time_mix_v1", "time_mix_v2", bent=False)
            share = like("unary", like("add", share, builder.scale_weight(hidden)))
            v = like("add", v, like("mul", like("sub", self.first_value, v), share))
        gate = [self._adapted(layer, part, "time_mix_g1", "time_mix_g2", bent=True) for part in xg]
        a = self._adapted(layer, xa, "time_mix_a1", "time_mix_a2", bent=False)
        a = like("unary", like("add", a, builder.scale_weight(hidden)))
        kk = like("l2_norm", self._heads(like("mul", k, builder.scale_weight(hidden)), size))
        ka = like("mul", k, builder.scale_weight(hidden))
        k = like("add", k, like("sub", like("mul", a, ka), ka))
        r, w, k, v, a = (self._heads(part, size) for part in (r, w, k, v, a))
        cur = self._stepped("rwkv_wkv7", size, r, w, k, v, like("unary", kk), like("mul", kk, a))
        cur = self._group_normed(cur, size) if "time_mix_ln" in widths else reshape(cur, (hidden, tokens))
        bonus = reshape(builder.scale_weight(hidden), (size, hidden // size))
        weights = sum_rows(like("mul", like("mul", k, r), bonus))
        cur = like("add", cur, reshape(like("mul", v, weights), (hidden, tokens)))
        return self._projected(like("mul", cur, gate[0]) if gate else cur)

    def _projected(self, tensor: Tensor) -> Tensor:
        cur = self.builder.linear(tensor, self.hidden, "time_mix_output")
        return reshape(cur, (self.hidden, self.each, self.sequences))
