"""PLaMo 2: Mamba layers with a norm on every projection, attention between them, norms on both sides.

src/models/plamo2.cpp.
"""

from kvplan.engines.ggml.tensor import Tensor, cont, glu, like, permute, reshape, view, weight
from kvplan.engines.llama_cpp.graph.builder import Builder
from kvplan.engines.llama_cpp.graph.recurrent import FLOAT, Recurrent
from kvplan.engines.llama_cpp.graph.shapes import Attention, LayerShape
from kvplan.layers import Mamba2State


def plamo2(builder: Builder) -> None:
    """Build the whole graph."""
    recurrent = Recurrent(builder)
    residual = builder.embedding()
    last = len(builder.shape.layers) - 1
    for index, layer in enumerate(builder.shape.layers):
        builder.layer = index
        normed = builder.norm(residual)
        if isinstance(layer.state, Mamba2State):
            cur = _mamba(recurrent, normed, layer.state, layer.dt_rank)
        else:
            cur = _attended(builder, layer, normed)
        if index == last:
            cur, residual = builder.pick(cur, residual)
        middle = like("add", builder.norm(cur), residual)
        cur = builder.norm(middle)
        if layer.mlp is not None:
            cur = builder.mlp(cur, layer.mlp)
        residual = like("add", builder.norm(cur), middle)
    builder.graph.expand(builder.logits(builder.final_norm(residual)))


def _attended(builder: Builder, layer: LayerShape, tensor: Tensor) -> Tensor:
    part = layer.attention
    assert isinstance(part, Attention)
    query, key, value = builder.qkv(tensor, part)
    # Every head has a norm of its own.
    query, key = (
        builder.rope(builder.norm(heads, scale=builder.scale_weight(heads.ne[0], heads.ne[1])))
        for heads in (query, key)
    )
    return builder.attention(part, query, key, value, two_caches=False)


def _mamba(recurrent: Recurrent, tensor: Tensor, state: Mamba2State, dt_rank: int) -> Tensor:
    builder, sequences = recurrent.builder, recurrent.builder.batch.num_sequences
    each = builder.batch.num_tokens // sequences
    heads, dim, size = state.num_heads, state.head_dim, state.state_size
    inner, taps = heads * dim, state.conv_kernel - 1
    conv = recurrent.kept_columns(taps, inner)
    joint = builder.linear(reshape(tensor, (tensor.ne[0], each, sequences)), 2 * inner, "ssm_in")
    joint = cont(permute(joint, (0, 2, 1, 3)), (2 * dim, heads, each, sequences))
    shape = (dim, heads, each, sequences)
    x = cont(view(joint, shape, joint.nb), (inner, each, sequences))
    z = view(joint, shape, joint.nb)
    x = recurrent.convolved(conv, x, taps + 1, biased=False)
    projected = builder.linear(x, dt_rank + 2 * size, "ssm_x")
    b, c = (builder.norm(view(projected, (size, each, sequences), projected.nb)) for _ in range(2))
    dt = builder.norm(view(projected, (dt_rank, each, sequences), projected.nb))
    dt = like("add", builder.linear(dt, heads, "ssm_dt"), builder.scale_weight(heads))
    x = view(x, shape)
    columns = (FLOAT, FLOAT * size, FLOAT * size, FLOAT * size * each)
    b, c = (view(part, (size, 1, each, sequences), columns) for part in (b, c))
    # The loader finds no kernel for it by its shape, and leaves it to the CPU.
    decay = reshape(weight((heads,), builder.places.cpu), (1, heads))
    scanned = recurrent.scanned(recurrent.states(size * inner), (size, dim, heads), x, dt, decay, b, c)
    skip = reshape(builder.scale_weight(heads), (1, heads))
    y = like("add", view(scanned, shape), like("mul", x, skip))
    y = view(glu(cont(z), y), (inner, each, sequences))
    cur = builder.linear(y, builder.shape.hidden_size, "ssm_out")
    return reshape(cur, (cur.ne[0], each * sequences))
