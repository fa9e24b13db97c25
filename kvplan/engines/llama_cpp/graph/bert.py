"""Graphs of BERT's descendants: norms behind each sublayer, no cache and no head.

src/models/bert.cpp, which also builds Nomic's and Jina's.
"""

from kvplan.engines.ggml.tensor import Tensor, get_rows, like, reshape, view, weight
from kvplan.engines.llama_cpp.graph.builder import Builder
from kvplan.engines.llama_cpp.graph.shapes import Attention, LayerShape

BERTS = frozenset(("bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3"))
ROTATED = frozenset(("nomic-bert", "nomic-bert-moe", "jina-bert-v3"))
NORM = "norm"


def bert(builder: Builder) -> None:
    """Build the whole graph."""
    shape, graph, cpu = builder.shape, builder.graph, builder.places.cpu
    residual = builder.embedding()
    hidden = shape.hidden_size
    if shape.has_token_types:
        # Every token is of the first type.
        residual = like("add", residual, view(weight((hidden, 2), cpu), (hidden,)))
    if shape.arch == "bert":
        residual = like("add", get_rows(weight((hidden, 1), cpu), builder.positions), residual)
    residual = builder.norm(residual, NORM)
    last = len(shape.layers) - 1
    for index, layer in enumerate(shape.layers):
        builder.layer = index
        cur = _attended(builder, layer, residual)
        if index == last:
            cur, residual = builder.pick(cur, residual)
        cur = builder.norm(like("add", cur, residual), NORM)
        if layer.is_odd:
            cur = builder.norm(like("add", cur, residual), NORM)
        fed = _fed(builder, layer, cur)
        residual = builder.norm(like("add", fed, cur), NORM)
    residual.is_output = True
    graph.expand(residual)


def _attended(builder: Builder, layer: LayerShape, tensor: Tensor) -> Tensor:
    part = layer.attention
    assert isinstance(part, Attention)
    query, key, value = builder.qkv(tensor, part)
    if part.qk_normed:
        query, key = (_row_normed(builder, each) for each in (query, key))
    if builder.shape.arch in ROTATED:
        query, key = builder.rope(query), builder.rope(key)
    return builder.uncached_attention(part, query, key, value)


def _row_normed(builder: Builder, heads: Tensor) -> Tensor:
    row = reshape(heads, (heads.ne[0] * heads.ne[1], heads.ne[2]))
    return reshape(builder.norm(row, NORM), heads.ne)


def _fed(builder: Builder, layer: LayerShape, tensor: Tensor) -> Tensor:
    if layer.experts is not None:
        return builder.experts(tensor, layer.experts, gating="softmax", normed=False)
    return builder.mlp(tensor, layer.mlp) if layer.mlp is not None else tensor
