"""Recurrent layers: Mamba-1, Mamba-2 and the gated delta net.

src/models/mamba-base.cpp, delta-net-base.cpp, qwen3next.cpp and build_rs of src/llama-graph.cpp. States
are fp32; a sequence's are gathered before a layer and copied back after it.
"""

from collections.abc import Callable

from kvplan.engines.ggml.tensor import (
    F32,
    I32,
    Dims,
    Tensor,
    concat,
    cont,
    copy_to,
    get_rows,
    given,
    glu,
    like,
    repeat,
    reshape,
    stored,
    transpose,
    view,
    weight,
)
from kvplan.engines.llama_cpp.graph.builder import Builder
from kvplan.engines.llama_cpp.graph.cuda import has_conv_kernel, has_scan_kernel
from kvplan.layers import GatedDeltaState, Mamba1State, Mamba2State, ShortConvState

FLOAT = 4


class StateCopies:
    """The input that says which states a batch continues: those in use, and those to clear."""

    def __init__(self, num_sequences: int) -> None:
        self.all = given((num_sequences,), I32)
        self.used = view(self.all, (num_sequences,))
        self.spare = view(self.all, (0,))


class Recurrent:
    """Builds recurrent layers into one graph."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self.copies = StateCopies(builder.batch.num_sequences)

    @property
    def _each(self) -> int:
        return self.builder.batch.num_tokens // self.builder.batch.num_sequences

    def states(self, size: int) -> Tensor:
        """Return a table of ``size`` fp32 numbers for each sequence, which lies with its layer."""
        places = self.builder.places
        on = places.layers[self.builder.layer] if places.caches_follow else places.cpu
        return stored((size, self.builder.batch.num_sequences), F32, on)

    def gathered(self, states: Tensor, read: Callable[[Tensor, Tensor], Tensor] = get_rows) -> Tensor:
        """Clear one state, read those in use, and move the spare ones (build_rs)."""
        graph = self.builder.graph
        rows = reshape(states, states.ne)
        cleared = Tensor("scale", (states.ne[0], 1, 1, 1), (view(rows, (states.ne[0],)),), view_src=states)
        graph.expand(cleared)
        result = graph.expand(read(rows, self.copies.used))
        spare = get_rows(rows, self.copies.spare)
        graph.expand(copy_to(spare, view(states, (states.ne[0], 0))))
        return result

    def _kernel_weight(self, *ne: int, runs: bool) -> Tensor:
        """Return a weight of the layer, which the CPU holds where no card runs its operation."""
        return self.builder.scale_weight(*ne) if runs else weight(ne, self.builder.places.cpu)

    def kept_columns(self, taps: int, channels: int) -> Tensor:
        """Return the last columns of a layer's convolution; ``convolved`` keeps the new ones."""
        self._conv_states = self.states(taps * channels)
        gathered = self.gathered(self._conv_states)
        return reshape(gathered, (taps, channels, self.builder.batch.num_sequences))

    def convolved(self, states: Tensor, columns: Tensor, kernel: int, *, biased: bool) -> Tensor:
        """Join the last columns of the state with the batch's, keep the new last ones, and convolve.

        ``columns`` is [channels, tokens, sequences], a view or not.
        """
        channels, sequences = columns.ne[0], columns.ne[2]
        joined = concat(states, transpose(columns), 0)
        last = view(joined, (kernel - 1, channels, sequences), joined.nb)
        target = self._conv_states
        self.builder.graph.expand(copy_to(last, view(target, ((kernel - 1) * channels * sequences,))))
        filtered = Tensor(
            "ssm_conv", (channels, joined.ne[0] - kernel + 1, sequences, 1),
            (joined, self._kernel_weight(kernel, channels, runs=has_conv_kernel(channels))),
        )  # fmt: skip
        if biased:
            filtered = like("add", filtered, self.builder.scale_weight(channels))
        return like("unary", filtered)

    def mamba1(self, tensor: Tensor, state: Mamba1State, dt_rank: int, *, normed: bool) -> Tensor:
        """Mamba-1; ``normed`` where dt, B and C are normalized (Jamba, Falcon-Mamba)."""
        builder, each = self.builder, self._each
        inner, size, kernel = state.intermediate_size, state.state_size, state.conv_kernel
        sequences = builder.batch.num_sequences
        conv = self.kept_columns(kernel - 1, inner)
        joint = builder.linear(reshape(tensor, (tensor.ne[0], each, sequences)), 2 * inner, "ssm_in")
        x, z = (view(joint, (inner, each, sequences), joint.nb) for _ in range(2))
        x = self.convolved(conv, x, kernel, biased=True)
        projected = builder.linear(x, dt_rank + 2 * size, "ssm_x")
        row = projected.nb
        dt = view(projected, (dt_rank, each, sequences), row)
        b, c = (
            view(projected, (size, 1, each, sequences), (FLOAT, size * FLOAT, row[1], row[2]))
            for _ in range(2)
        )
        if normed:
            dt, b, c = (builder.norm(part) for part in (dt, b, c))
        else:
            dt = cont(dt)
        dt = like("add", builder.linear(dt, inner, "ssm_dt"), builder.scale_weight(inner))
        heads = reshape(x, (1, inner, each, sequences))
        decay = self._kernel_weight(size, inner, runs=has_scan_kernel(size, 1, inner, False))
        scanned = self.scanned(self.states(size * inner), (size, 1, inner), heads, dt, decay, b, c)
        y = view(scanned, (inner, each, sequences))
        return self._gated_output(y, x, z, None, self.builder.scale_weight(inner))

    def mamba2(self, tensor: Tensor, state: Mamba2State) -> Tensor:
        """Mamba-2: heads, groups, and a norm before the output projection."""
        builder, each = self.builder, self._each
        heads, dim, size, groups = state.num_heads, state.head_dim, state.state_size, state.n_groups
        inner, kernel = heads * dim, state.conv_kernel
        channels = inner + 2 * groups * size
        sequences = builder.batch.num_sequences
        conv = self.kept_columns(kernel - 1, channels)
        joint = builder.linear(tensor, 2 * inner + 2 * groups * size + heads, "ssm_in")
        joint = reshape(joint, (joint.ne[0], each, sequences))
        row = joint.nb
        z = view(joint, (dim, heads, each, sequences), (FLOAT, dim * FLOAT, row[1], row[2]))
        columns = view(joint, (channels, each, sequences), row)
        dt = view(joint, (heads, each, sequences), row)
        mixed = self.convolved(conv, columns, kernel, biased=True)
        row = mixed.nb
        x = view(mixed, (dim, heads, each, sequences), (FLOAT, dim * FLOAT, row[1], row[2]))
        b, c = (
            view(mixed, (size, groups, each, sequences), (FLOAT, size * FLOAT, row[1], row[2]))
            for _ in range(2)
        )
        dt = like("add", cont(dt), builder.scale_weight(heads))
        decay = self._kernel_weight(1, heads, runs=has_scan_kernel(size, dim, heads, True))
        scanned = self.scanned(self.states(size * inner), (size, dim, heads), x, dt, decay, b, c)
        y = view(scanned, (dim, heads, each, sequences))
        return self._gated_output(y, x, z, (inner // groups, groups), builder.scale_weight(1, heads))

    def scanned(
        self,
        states: Tensor,
        shape: tuple[int, int, int],
        x: Tensor,
        dt: Tensor,
        decay: Tensor,
        b: Tensor,
        c: Tensor,
    ) -> Tensor:
        """Scan a batch, and copy the last states back."""
        sequences = self.builder.batch.num_sequences
        size = shape[0] * shape[1] * shape[2]

        def scan(table: Tensor, ids: Tensor) -> Tensor:
            state = reshape(table, (*shape, sequences))
            ne: Dims = (x.num_elements + size * sequences, 1, 1, 1)
            return Tensor("ssm_scan", ne, (state, x, dt, decay, b, c, ids))

        scanned = self.gathered(states, scan)
        last = view(scanned, (size * sequences,))
        self.builder.graph.expand(copy_to(last, view(states, (size * sequences,))))
        return scanned

    def _gated_output(
        self, y: Tensor, x: Tensor, z: Tensor, norm: tuple[int, int] | None, skip: Tensor
    ) -> Tensor:
        builder = self.builder
        y = like("add", y, like("mul", x, skip))
        y = glu(cont(z), y)
        sequences = builder.batch.num_sequences
        if norm is not None:
            y = builder.norm(reshape(y, (*norm, self._each, sequences)))
            y = reshape(y, (norm[0] * norm[1], self._each * sequences))
        y = builder.linear(y, builder.shape.hidden_size, "ssm_out")
        return y if norm is not None else reshape(y, (y.ne[0], self._each * sequences))

    @staticmethod
    def _repeated(heads: Tensor, ratio: int) -> Tensor:
        """Repeat each head ``ratio`` times."""
        dim, count, each, sequences = heads.ne
        rows = reshape(heads, (dim, 1, count, each * sequences))
        return reshape(
            repeat(rows, (dim, ratio, count, each * sequences)), (dim, ratio * count, each, sequences)
        )

    def short_convolution(self, tensor: Tensor, state: ShortConvState) -> Tensor:
        """LFM2's gated convolution (src/models/lfm2.cpp)."""
        builder, each, sequences = self.builder, self._each, self.builder.batch.num_sequences
        hidden, kernel = state.hidden_size, state.conv_kernel
        joint = builder.linear(reshape(tensor, (hidden, each, sequences)), 3 * hidden, "shortconv.in_proj")
        b, c, x = (view(joint, (hidden, each, sequences), joint.nb) for _ in range(3))
        product = transpose(like("mul", b, x))
        states = self.states((kernel - 1) * hidden)
        conv = reshape(self.gathered(states), (kernel - 1, hidden, sequences))
        joined = concat(conv, product, 0)
        last = view(joined, (kernel - 1, hidden, sequences), joined.nb)
        self.builder.graph.expand(copy_to(last, view(states, ((kernel - 1) * hidden, sequences))))
        filtered = Tensor(
            "ssm_conv", (hidden, each, sequences, 1), (joined, builder.scale_weight(kernel, hidden))
        )
        y = builder.linear(like("mul", c, filtered), hidden, "shortconv.out_proj")
        return reshape(y, (hidden, each * sequences))

    def _step_and_decay(
        self, tensor: Tensor, state: GatedDeltaState, *, separate: bool
    ) -> tuple[Tensor, Tensor]:
        """Return a delta net's beta and gate, from one projection or two: a number each head."""
        builder, each, sequences = self.builder, self._each, self.builder.batch.num_sequences
        keys, values = state.num_k_heads, state.num_v_heads
        if separate:
            beta = like(
                "unary", reshape(builder.linear(tensor, values, "ssm_beta"), (1, values, each, sequences))
            )
            alpha = reshape(builder.linear(tensor, values, "ssm_alpha"), (values, each, sequences))
        else:
            ratio = values // keys
            both = builder.linear(tensor, 2 * values, "ssm_ba")
            both = reshape(both, (2 * ratio, keys, each, sequences))
            first, second = (view(both, (ratio, keys, each, sequences), both.nb) for _ in range(2))
            beta = reshape(like("unary", cont(first)), (1, values, each, sequences))
            alpha = cont(second, (values, each, sequences))
        alpha = like("add", alpha, builder.scale_weight(values))
        gate = like("mul", like("unary", alpha), builder.scale_weight(values))
        return beta, reshape(gate, (1, values, each, sequences))

    def delta_net(self, tensor: Tensor, state: GatedDeltaState, *, separate_gates: bool) -> Tensor:
        """The gated delta net of Qwen3-Next and Qwen3.5, with the fused kernel."""
        builder, each, graph = self.builder, self._each, self.builder.graph
        sequences = builder.batch.num_sequences
        keys, values = state.num_k_heads, state.num_v_heads
        dim, kernel = state.head_k_dim, state.conv_kernel
        inner = values * state.head_v_dim
        channels = inner + 2 * keys * dim
        mixed = builder.linear(tensor, channels, "attn_qkv")
        mixed = reshape(mixed, (channels, each, sequences))
        z = builder.linear(tensor, inner, "attn_gate")
        beta, gate = self._step_and_decay(tensor, state, separate=separate_gates)
        conv = self.kept_columns(kernel - 1, channels)
        joined = concat(conv, transpose(mixed), 0)
        last = view(joined, (kernel - 1, channels, sequences), joined.nb)
        graph.expand(copy_to(last, view(self._conv_states, ((kernel - 1) * channels * sequences,))))
        states = self.states(state.head_v_dim * inner)
        gathered = reshape(self.gathered(states), (state.head_v_dim, state.head_v_dim, values, sequences))
        filtered = Tensor(
            "ssm_conv", (channels, each, sequences, 1), (joined, builder.scale_weight(kernel, channels))
        )
        filtered = like("unary", filtered)
        row = filtered.nb
        stride = (FLOAT, dim * FLOAT, row[1], row[2])
        query, key = (
            like("scale", like("rms_norm", view(filtered, (dim, keys, each, sequences), stride)))
            for _ in range(2)
        )
        value = view(filtered, (state.head_v_dim, values, each, sequences), stride)
        if keys != values and not separate_gates:
            query, key = (self._repeated(part, values // keys) for part in (query, key))
        ne: Dims = (inner, each * sequences + state.head_v_dim * sequences, 1, 1)
        result = Tensor("gated_delta_net", ne, (query, key, value, gate, beta, gathered))
        output = view(result, (state.head_v_dim, values, each, sequences))
        new = view(result, (state.head_v_dim, state.head_v_dim, values, sequences))
        graph.expand(copy_to(new, view(states, (state.head_v_dim * inner, sequences))))
        gated = like("unary", reshape(z, (state.head_v_dim, values, each, sequences)))
        normed = like("mul", builder.norm(output), gated)
        flat = reshape(normed, (inner, each, sequences))
        return reshape(
            builder.linear(flat, builder.shape.hidden_size, "ssm_out"),
            (builder.shape.hidden_size, each * sequences),
        )
