"""Arctic: routed experts beside each layer, on what the layer itself was given.

src/models/arctic.cpp.
"""

from kvplan.engines.ggml.tensor import like
from kvplan.engines.llama_cpp.graph.builder import Builder
from kvplan.engines.llama_cpp.graph.shapes import Attention


def arctic(builder: Builder) -> None:
    """Build the whole graph."""
    shape = builder.shape
    residual = builder.embedding()
    last = len(shape.layers) - 1
    for index, layer in enumerate(shape.layers):
        builder.layer = index
        part = layer.attention
        assert isinstance(part, Attention)
        query, key, value = builder.qkv(builder.norm(residual), part)
        query, key = builder.rope(query), builder.rope(key)
        cur = builder.attention(part, query, key, value, two_caches=False)
        if index == last:
            cur, residual = builder.pick(cur, residual)
        middle = like("add", cur, residual)
        if layer.mlp is not None:
            middle = like("add", builder.mlp(builder.norm(middle), layer.mlp), middle)
        if layer.experts is not None:
            routed = builder.experts(
                builder.norm(residual), layer.experts, gating="softmax", normed=True,
                scaled=shape.routing.scaled,
            )  # fmt: skip
            middle = like("add", routed, middle)
        residual = middle
    builder.graph.expand(builder.logits(builder.final_norm(residual)))
