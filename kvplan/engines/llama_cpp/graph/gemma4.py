"""Gemma 4: wider heads where a layer attends to everything, keys as values, experts beside the MLP.

src/models/gemma4.cpp.
"""

from kvplan.engines.ggml.tensor import Tensor, like, reshape, view
from kvplan.engines.llama_cpp.graph.builder import Builder
from kvplan.engines.llama_cpp.graph.layer_inputs import input_of_layer, inputs_of_layers
from kvplan.engines.llama_cpp.graph.shapes import Attention, LayerShape


def gemma4(builder: Builder) -> None:
    """Build the whole graph."""
    shape, graph = builder.shape, builder.graph
    residual = like("scale", builder.embedding())
    inputs = inputs_of_layers(builder, residual) if shape.per_layer_input else None
    for index, layer in enumerate(shape.layers):
        builder.layer = index
        attended = _attention(builder, layer, builder.norm(residual))
        middle = like("add", builder.norm(attended), residual)
        cur = like("add", builder.norm(_fed(builder, layer, middle), pinned=False), middle)
        if inputs is not None:
            own = view(inputs, inputs.ne[:2])
            cur = like("add", cur, input_of_layer(builder, cur, own))
        residual = like("mul", cur, builder.scale_weight(1)) if layer.scaled else cur
    (cur,) = builder.pick(builder.final_norm(residual))
    cur = builder.logits(cur)
    graph.expand(like("scale", like("unary", like("scale", cur))))


def _attention(builder: Builder, layer: LayerShape, tensor: Tensor) -> Tensor:
    part, tokens = layer.attention, builder.batch.num_tokens
    assert isinstance(part, Attention)

    def rotated(heads: Tensor) -> Tensor:
        normed = builder.norm(heads)
        return builder.rope(normed, tabled=not part.windowed)

    def projected(num_heads: int, name: str) -> Tensor:
        return builder.linear(tensor, part.head_dim * num_heads, name)

    query = rotated(reshape(projected(part.num_heads, "attn_q"), (part.head_dim, part.num_heads, tokens)))
    if not part.stores:
        return builder.attention(part, query, None, None, two_caches=True)
    size = (part.head_dim, part.num_kv_heads, tokens)
    key = projected(part.num_kv_heads, "attn_k")
    value = key if part.keys_are_values else projected(part.num_kv_heads, "attn_v")
    key, value = reshape(key, size), like("rms_norm", reshape(value, size))
    return builder.attention(part, query, rotated(key), value, two_caches=True)


def _fed(builder: Builder, layer: LayerShape, tensor: Tensor) -> Tensor:
    """Run the MLP, and beside it the experts, whose router reads the tensor scaled in its own way."""
    assert layer.mlp is not None
    fed = builder.mlp(builder.norm(tensor), layer.mlp)
    experts = layer.experts
    if experts is None:
        return fed
    fed = builder.norm(fed)
    normed = builder.norm(tensor)
    routed = like("mul", like("scale", like("rms_norm", tensor)), builder.scale_weight(tensor.ne[0]))
    logits = builder.linear(routed, experts.num, "ffn_gate_inp")
    chosen = builder.experts(normed, experts, gating="softmax", normed=True, logits=logits)
    return like("add", fed, builder.norm(chosen))
