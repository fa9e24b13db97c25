"""DeepSeek's sparse attention: an indexer chooses the cells that each token's latent attention sees.

src/models/deepseek32.cpp, glm-dsa.cpp and build_attn of llm_graph_input_attn_k_dsa in src/llama-graph.cpp.
The indexer's keys have a cache of their own; layers without an indexer see what the last one chose.
"""

from kvplan.engines.ggml.tensor import (
    F16,
    I32,
    I64,
    Tensor,
    cont,
    given,
    like,
    mul_mat,
    reshape,
    set_rows,
    view,
)
from kvplan.engines.llama_cpp.graph.attention import ROTATION, whole
from kvplan.engines.llama_cpp.graph.builder import Builder
from kvplan.engines.llama_cpp.graph.rules import Rules
from kvplan.engines.llama_cpp.graph.shapes import Latent
from kvplan.engines.llama_cpp.graph.transformer import feed_forward

SPARSE_ARCHS = frozenset(("deepseek32", "glm-dsa"))
RULES = Rules(gating="own")


def sparse_latent(builder: Builder) -> None:
    """Build the whole graph."""
    shape = builder.shape
    indexer = _Indexer(builder)
    residual = builder.embedding()
    for index, layer in enumerate(shape.layers):
        builder.layer = index
        part = layer.attention
        assert isinstance(part, Latent)
        cur = indexer.attention(part, builder.norm(residual))
        if index == len(shape.layers) - 1:
            cur, residual = builder.pick(cur, residual)
        middle = like("add", cur, residual)
        residual = like("add", feed_forward(builder, RULES, layer, builder.norm(middle)), middle)
    builder.graph.expand(builder.logits(builder.final_norm(residual)))


class _Indexer:
    """What the indexers of all layers share, and the cells that the last one chose."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        batch = builder.batch
        ne = (batch.full, batch.num_tokens // batch.num_streams, 1, batch.num_streams)
        self.mask = given(ne, F16)
        self.index = given((batch.num_tokens,), I64)
        self.rotation: Tensor | None = None
        self.chosen: Tensor | None = None

    def attention(self, part: Latent, tensor: Tensor) -> Tensor:
        """Attend to the chosen cells of one layer."""
        builder = self.builder
        queries = builder.lowered_queries(part, tensor)
        if part.index_dim:
            self.chosen = self._choose(part, queries, tensor)
        return builder.latent_attention(part, tensor, queries=queries, narrowed=self._narrowed)

    def _rotated(self, tensor: Tensor) -> Tensor:
        """Turn by a Hadamard matrix, which is always there (llama-kv-cache.cpp attn_rot_k)."""
        if self.rotation is None:
            size = ROTATION
            while tensor.ne[0] % (2 * size) == 0:
                size *= 2
            self.rotation = given((size, size))
        return mul_mat(self.rotation, tensor)

    def _choose(self, part: Latent, queries: Tensor, tensor: Tensor) -> Tensor:
        """Score all cells and return the places of the best, [count, tokens of a stream, 1, streams]."""
        builder, batch = self.builder, self.builder.batch
        tokens, streams = batch.num_tokens, batch.num_streams
        dim, heads = part.index_dim, part.num_index_heads
        each = tokens // streams

        def turned(projected: Tensor, count: int) -> Tensor:
            rotated = like("rope", reshape(projected, (dim, count, tokens)), builder.positions)
            return self._rotated(rotated)

        query = turned(builder.linear(queries, dim * heads, "indexer.attn_q_b"), heads)
        key = builder.norm(builder.linear(tensor, dim, "indexer.attn_k"), "norm")
        key = turned(like("add", key, builder.scale_weight(dim)), 1)
        cache = builder.cache(dim, batch.type_k)
        builder.write(cache, key, self.index)
        weights = builder.linear(tensor, heads, "indexer.proj")
        stored = whole(cache, (dim, 1, batch.full, streams))
        row = query.nb
        query = view(query, (dim, heads, each, streams), (row[0], row[1], row[2], row[2] * each))
        row = weights.nb
        weights = view(weights, (heads, each, 1, streams), (row[0], row[1], row[1] * each, row[1] * each))
        weights = like("scale", weights)
        # llama-context.cpp: always the fused operation, on the CPU where a card has no kernel for it.
        ne = (batch.full, each, 1, streams)
        scores = Tensor("lightning_indexer", ne, (query, stored, weights, self.mask))
        count = min(batch.full, builder.shape.index_top_k)
        return cont(Tensor("top_k", (count, each, 1, streams), (scores,), type=I32))

    def _narrowed(self, mask: Tensor) -> Tensor:
        """Return the mask with all but the chosen cells masked out."""
        chosen = self.chosen
        assert chosen is not None, "the first layer has an indexer"
        cells, each, _, streams = mask.ne
        count = chosen.ne[0]
        size = mask.nb
        closed = view(like("fill", mask), (1, cells, each, streams), (size[0], size[0], size[1], size[3]))
        places = view(chosen, (count, each, streams))
        # Every layer has a table of zeros of its own, which has its place from the graph's start.
        zeros = like("fill", Tensor("none", (1, count, each, streams)))
        opened = set_rows(closed, zeros, places)
        opened = view(opened, mask.ne, mask.nb)
        return like("add", opened, mask)
