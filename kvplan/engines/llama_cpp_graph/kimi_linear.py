"""Kimi Linear's delta attention: a gate for every channel, and a convolution each for Q, K and V.

src/models/kimi-linear.cpp and the fused kernel of delta-net-base.cpp.
"""

from kvplan.engines.ggml.tensor import Dims, Tensor, concat, cont, copy_to, like, reshape, transpose, view
from kvplan.engines.llama_cpp_graph.recurrent import FLOAT, Recurrent
from kvplan.layers import KimiDeltaState


def kimi_delta(recurrent: Recurrent, tensor: Tensor, state: KimiDeltaState) -> Tensor:
    """Build one layer on ``tensor``, [hidden, tokens]."""
    builder, graph = recurrent.builder, recurrent.builder.graph
    sequences, tokens = builder.batch.num_sequences, builder.batch.num_tokens
    each, heads, dim = tokens // sequences, state.num_heads, state.head_dim
    inner, taps = heads * dim, state.conv_kernel - 1
    stored = recurrent.states(3 * taps * inner)
    gathered = recurrent.gathered(stored)

    def convolved(name: str) -> Tensor:
        stride: Dims = (FLOAT, taps * FLOAT, 3 * taps * inner * FLOAT, 3 * taps * inner * FLOAT)
        before = view(gathered, (taps, inner, sequences), stride)
        columns = reshape(builder.linear(tensor, inner, name), (inner, each, sequences))
        joined = concat(before, transpose(columns), 0)
        last = view(joined, (taps, inner, sequences), joined.nb)
        graph.expand(copy_to(last, view(stored, (taps, inner, sequences), stride)))
        filtered = Tensor("ssm_conv", (inner, each, sequences, 1),
                          (joined, builder.scale_weight(taps + 1, inner)))  # fmt: skip
        return reshape(like("unary", reshape(filtered, (inner, tokens))), (dim, heads, each, sequences))

    query, key, value = (convolved(name) for name in ("attn_q", "attn_k", "attn_v"))
    decay = builder.linear(builder.linear(tensor, dim, "ssm_f_a"), inner, "ssm_f_b")
    decay = reshape(like("unary", like("add", decay, builder.scale_weight(inner))), (dim, heads, tokens))
    decay = like("mul", decay, builder.scale_weight(1, heads))
    decay = reshape(decay, (dim, heads, each, sequences))
    step = like("unary", reshape(builder.linear(tensor, heads, "ssm_beta"), (1, heads, each, sequences)))
    kept = recurrent.states(dim * inner)
    before = reshape(recurrent.gathered(kept), (dim, dim, heads, sequences))
    query, key = (like("scale", like("rms_norm", part)) for part in (query, key))
    ne: Dims = (inner, tokens + dim * sequences, 1, 1)
    result = Tensor("gated_delta_net", ne, (query, key, value, decay, step, before))
    output = cont(view(result, (dim, heads, each, sequences)))
    after = view(result, (dim, dim, heads, sequences))
    graph.expand(copy_to(after, view(kept, (dim * inner * sequences,))))
    gate = builder.linear(builder.linear(tensor, dim, "ssm_g_a"), inner, "ssm_g_b")
    gate = like("unary", reshape(gate, (dim, heads, tokens)))
    gated = like("mul", builder.norm(reshape(output, (dim, heads, tokens))), gate)
    return builder.linear(cont(gated, (inner, tokens)), builder.shape.hidden_size, "attn_output")
