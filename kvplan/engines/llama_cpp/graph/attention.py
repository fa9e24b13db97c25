"""Attention in llama.cpp's graphs: projections, caches, masks, with flash attention and without.

src/llama-graph.cpp build_qkv, build_attn, build_attn_mha; src/llama-kv-cache.cpp cpy_k, cpy_v, get_k, get_v;
src/models/deepseek2.cpp.
"""

from collections.abc import Callable

from kvplan.dtypes import GGML_TYPES
from kvplan.engines.ggml.tensor import (
    F16,
    F32,
    I32,
    I64,
    Dims,
    Tensor,
    cast,
    concat,
    cont,
    given,
    like,
    mul_mat,
    permute,
    repeat,
    reshape,
    set_rows,
    stored,
    transpose,
    view,
)
from kvplan.engines.llama_cpp.graph.parts import GraphParts
from kvplan.engines.llama_cpp.graph.shapes import Attention, Latent

# llama-kv-cache.cpp: quantized caches are rotated by Hadamard matrices of this size or a multiple.
ROTATION = 64


class AttentionParts(GraphParts):
    """Builds attention into one graph."""

    def mask(self, *, windowed: bool) -> Tensor:
        """Return the mask of one of the two caches."""
        if windowed not in self.masks:
            batch = self.batch
            cells = batch.window if windowed else batch.full
            ne = (cells, batch.num_tokens // batch.num_streams, 1, batch.num_streams)
            self.masks[windowed] = given(ne, F16 if batch.flash_attn else F32)
        return self.masks[windowed]

    def _index(self, *, windowed: bool, values: bool) -> Tensor:
        key = (windowed, values)
        if key not in self.indices:
            each = self.value_width if values and self.batch.values_turned else 1
            self.indices[key] = given((self.batch.num_tokens * each,), I64)
        return self.indices[key]

    def _rotation(self, *, windowed: bool, values: bool, head_dim: int) -> Tensor | None:
        key = (windowed, values)
        if key not in self.rotations:
            kind = self.batch.type_v if values else self.batch.type_k
            made = None
            if GGML_TYPES[kind].block_size > 1 and len(self.key_dims[windowed]) == 1 and head_dim % 64 == 0:
                size = ROTATION
                while not values and head_dim % (2 * size) == 0:
                    size *= 2
                made = given((size, size))
            self.rotations[key] = made
        return self.rotations[key]

    def _rotated(self, tensor: Tensor, rotation: Tensor | None) -> Tensor:
        if rotation is None:
            return tensor
        size = rotation.ne[0]
        ne = (size, tensor.num_elements // size)
        flat = reshape(tensor, ne) if tensor.is_contiguous else cont(tensor, ne)
        return reshape(mul_mat(rotation, flat), tensor.ne)

    def qkv(self, tensor: Tensor, part: Attention) -> tuple[Tensor, Tensor, Tensor]:
        """Project to queries, keys and values: [head_dim, heads, tokens] each."""
        tokens = self.batch.num_tokens
        heads = ((part.head_dim, part.num_heads), (part.head_dim, part.num_kv_heads))
        value = (part.v_head_dim, part.num_kv_heads)
        if part.fused_qkv:
            widths = [size * count for size, count in (*heads, value)]
            joint = self.linear(tensor, sum(widths), "attn_qkv", bias=part.qkv_bias)
            row = joint.nb[1]
            query, key, val = (
                view(joint, (size, count, tokens), (4, 4 * size, row, row * tokens))
                for size, count in (*heads, value)
            )
            return query, key, val
        query, key, val = (
            reshape(self.linear(tensor, size * count, name, bias=part.qkv_bias), (size, count, tokens))
            for (size, count), name in zip((*heads, value), ("attn_q", "attn_k", "attn_v"), strict=True)
        )
        return query, key, val

    def rope(self, tensor: Tensor, *, tabled: bool = True) -> Tensor:
        """Rotate by position, with the model's table of frequencies where it has one."""
        if not (tabled and self.shape.rope_table):
            return like("rope", tensor, self.positions)
        place = self.places.layers[self.layer]
        if place not in self.rope_tables:
            self.rope_tables[place] = self.scale_weight(tensor.ne[0] // 2)
        return like("rope", tensor, self.positions, self.rope_tables[place])

    def cache(self, width: int, kind: str, *, windowed: bool = False) -> Tensor:
        """Return the current layer's cache of ``width`` elements a cell."""
        batch = self.batch
        cells = batch.window if windowed else batch.full
        on = self.places.layers[self.layer] if self.places.caches_follow else self.places.cpu
        made = stored((width, cells, batch.num_streams), kind, on)
        made.num_bytes = GGML_TYPES[kind].row_bytes(width) * cells * batch.num_streams
        return made

    def _caches(self, part: Attention, *, windowed: bool) -> tuple[Tensor, Tensor]:
        batch = self.batch
        width = self.value_width if batch.values_turned else part.num_kv_heads * part.v_head_dim
        return (
            self.cache(part.num_kv_heads * part.head_dim, batch.type_k, windowed=windowed),
            self.cache(width, batch.type_v, windowed=windowed),
        )

    def write(self, cache: Tensor, rows: Tensor, index: Tensor) -> None:
        """Write a batch's rows where ``index`` says."""
        tokens = rows.ne[2]
        flat = view(rows, (cache.ne[0], tokens), (4, rows.nb[2], rows.nb[2] * tokens, rows.nb[2] * tokens))
        if cache.ne[2] > 1:
            cache = reshape(cache, (cache.ne[0], cache.ne[1] * cache.ne[2]))
        self.graph.expand(set_rows(cache, flat, index))

    def _write_transposed(self, cache: Tensor, rows: Tensor, index: Tensor) -> None:
        width = rows.ne[0] * rows.ne[1]
        ne = (width, rows.ne[2])
        flat = reshape(rows, ne) if rows.nb[2] == 4 * width else cont(rows, ne)
        if width < cache.ne[0]:
            flat = Tensor("pad", (cache.ne[0], rows.ne[2], 1, 1), (flat,))
        table = reshape(cache, (1, cache.num_elements))
        self.graph.expand(set_rows(table, reshape(flat, (1, flat.num_elements)), index))

    def attention(
        self,
        part: Attention,
        query: Tensor,
        key: Tensor | None,
        value: Tensor | None,
        *,
        two_caches: bool,
        soft_cap: bool = False,
        project: bool = True,
    ) -> Tensor:
        """Write keys and values, attend, and project back to the hidden size."""
        windowed = part.windowed and two_caches
        turn = self._rotation(windowed=windowed, values=False, head_dim=part.head_dim)
        turn_v = self._rotation(windowed=windowed, values=True, head_dim=part.v_head_dim)
        query = self._rotated(query, turn)
        key = key if key is None else self._rotated(key, turn)
        value = value if value is None else self._rotated(value, turn_v)
        self.graph.expand(query)
        order = (key, value) if two_caches else (value, key)
        for tensor in order:
            if tensor is not None:
                self.graph.expand(tensor)
        batch = self.batch
        if part.stores:
            self.caches[windowed] = self._caches(part, windowed=windowed)
        keys, values = self.caches[windowed]
        if key is not None:
            self.write(keys, key, self._index(windowed=windowed, values=False))
        if value is not None:
            write = self._write_transposed if batch.values_turned else self.write
            write(values, value, self._index(windowed=windowed, values=True))
        cells, streams = keys.ne[1], batch.num_streams
        k = whole(keys, (part.head_dim, part.num_kv_heads, cells, streams))
        if batch.values_turned:
            v = whole(values, (cells, part.num_kv_heads, part.v_head_dim, streams))
        else:
            v = whole(values, (part.v_head_dim, part.num_kv_heads, cells, streams))
        cur = self._attend(
            query,
            k,
            v,
            self.mask(windowed=windowed),
            self.scale_weight(part.num_heads) if part.sinks else None,
            transposed=batch.values_turned,
            soft_cap=soft_cap,
        )
        cur = self._rotated(cur, turn_v)
        if not project:
            return cur
        return self.linear(cur, self.shape.hidden_size, "attn_output", bias=part.out_bias)

    def expanded_heads(self, part: Latent, tensor: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Expand a latent to whole heads before they are cached (src/models/minicpm3.cpp, plm.cpp)."""
        tokens, rope, rank, heads = self.batch.num_tokens, part.rope_dim, part.kv_lora_rank, part.num_heads
        head = part.nope_dim + rope
        query = tensor
        if part.q_lora_rank:
            query = self.norm(self.linear(query, part.q_lora_rank, "attn_q_a"))
        query = self.linear(query, head * heads, "attn_q_b" if part.q_lora_rank else "attn_q")
        query = reshape(query, (head, heads, tokens))
        joint = self.linear(tensor, rank + rope, "attn_kv_a_mqa")
        row = joint.nb[1]
        compressed = view(joint, (rank, tokens), (4, row, row * tokens, row * tokens))
        k_pe = view(joint, (rope, 1, tokens), (4, row, row, row * tokens))
        each = part.nope_dim + part.v_head_dim
        both = self.linear(self.norm(compressed), each * heads, "attn_kv_b")
        stride = (4, 4 * each, 4 * each * heads, 4 * each * heads * tokens)
        k_nope = view(both, (part.nope_dim, heads, tokens), stride)
        value = cont(view(both, (part.v_head_dim, heads, tokens), stride))
        query = self.rope(query)
        key = concat(k_nope, repeat(self.rope(k_pe), (rope, heads, tokens)), 0)
        return query, key, value

    def uncached_attention(self, part: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend to the batch itself (build_attn_inp_no_cache), and project back to the hidden size."""
        for tensor in (query, key, value):
            self.graph.expand(tensor)
        if part.windowed not in self.masks:
            tokens = self.batch.num_tokens
            self.masks[part.windowed] = given((tokens, tokens), F16 if self.batch.flash_attn else F32)
        cur = self._attend(query, key, value, self.masks[part.windowed], transposed=False)
        return self.linear(cur, self.shape.hidden_size, "attn_output", bias=part.out_bias)

    def gated(self, tensor: Tensor, part: Attention, attended: Tensor) -> Tensor:
        """Multiply what the heads bring by a gate that the layer's input makes, and project.

        src/models/afmoe.cpp (a number for each element), step35.cpp (for each head), laguna.cpp (either).
        """
        gate = like("unary", self.linear(tensor, part.gate_width, "attn_gate"))
        if part.gate_width == part.num_heads:
            heads = reshape(attended, (part.v_head_dim, part.num_heads, tensor.ne[1]))
            heads = like("mul", heads, reshape(gate, (1, part.num_heads, tensor.ne[1])))
            attended = reshape(heads, attended.ne)
        else:
            attended = like("mul", attended, gate)
        return self.linear(attended, self.shape.hidden_size, "attn_output")

    def _attend(
        self,
        query: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor,
        sinks: Tensor | None = None,
        *,
        transposed: bool,
        soft_cap: bool = False,
        decompress: int = 0,
    ) -> Tensor:
        """build_attn_mha; ``decompress`` is the size of a value head that MLA expands to."""
        streams = k.ne[3]
        each = query.ne[2] // streams
        query = view(query, (query.ne[0], query.ne[1], each, streams),
                     (query.nb[0], query.nb[1], query.nb[2], query.nb[2] * each))  # fmt: skip
        q, k, v = (permute(tensor, (0, 2, 1, 3)) for tensor in (query, k, v))
        heads = q.ne[2]
        rest = () if sinks is None else (sinks,)
        if self.batch.flash_attn:
            k, v = (cast(tensor, F16) if tensor.type == F32 else tensor for tensor in (k, v))
            cur = Tensor("flash_attn", (v.ne[0], heads, each, streams), (q, k, v, mask, *rest))
            if decompress:
                cur = permute(cur, (0, 2, 1, 3))
                cur = mul_mat(self.weight(cur.ne[0], decompress, heads, name="attn_v_b"), cur)
                cur = cont(permute(cur, (0, 2, 1, 3)))
            cur = reshape(cur, (cur.ne[0] * cur.ne[1], cur.ne[2] * cur.ne[3]))
        else:
            scores = mul_mat(k, q)
            if soft_cap:
                scores = like("scale", like("unary", like("scale", scores)))
            scores = like("soft_max", scores, mask, *rest)
            if not transposed:
                v = cont(transpose(v))
            cur = mul_mat(v, scores)
            if decompress:
                cur = mul_mat(self.weight(cur.ne[0], decompress, heads, name="attn_v_b"), cur)
            cur = permute(cur, (0, 2, 1, 3))
            cur = cont(cur, (cur.ne[0] * cur.ne[1], cur.ne[2] * cur.ne[3]))
            if self.places.pinned and not self.places.caches_follow:
                cur.backend = self.places.cpu
        return self.graph.expand(cur)

    def lowered_queries(self, part: Latent, tensor: Tensor) -> Tensor:
        """Return what MLA projects its queries from: of a low rank where the model has one."""
        if not part.q_lora_rank:
            return tensor
        return self.norm(self.linear(tensor, part.q_lora_rank, "attn_q_a"))

    def latent_attention(
        self,
        part: Latent,
        tensor: Tensor,
        *,
        rotates: bool = True,
        temper: Tensor | None = None,
        queries: Tensor | None = None,
        narrowed: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """MLA with the absorbed projections (src/models/deepseek2.cpp).

        ``queries`` are what queries are projected from where something else reads them too;
        ``narrowed`` makes another mask of the usual one.
        """
        tokens, rope, rank = self.batch.num_tokens, part.rope_dim, part.kv_lora_rank
        head = part.nope_dim + rope
        q = self.lowered_queries(part, tensor) if queries is None else queries
        q = self.linear(q, head * part.num_heads, "attn_q_b" if part.q_lora_rank else "attn_q")
        q = reshape(q, (head, part.num_heads, tokens))
        joint = self.linear(tensor, rank + rope, "attn_kv_a_mqa")
        row = joint.nb[1]
        compressed = self.norm(view(joint, (rank, tokens), (4, row, row * tokens, row * tokens)))
        q_pe = view(q, (rope, part.num_heads, tokens), q.nb)
        k_pe = view(joint, (rope, 1, tokens), (4, row, row, row * tokens))
        if rotates:
            q_pe, k_pe = self.rope(q_pe), self.rope(k_pe)
        q_nope = permute(view(q, (part.nope_dim, part.num_heads, tokens), q.nb), (0, 2, 1, 3))
        absorbed = mul_mat(self.weight(part.nope_dim, rank, part.num_heads, name="attn_k_b"), q_nope)
        query = concat(permute(absorbed, (0, 2, 1, 3)), q_pe, 0)
        query = query if temper is None else like("mul", query, temper)
        value = reshape(compressed, (rank, 1, tokens))
        key = concat(value, k_pe, 0)
        for each in (query, value, key):
            self.graph.expand(each)
        batch = self.batch
        cache = self.cache(rank + rope, batch.type_k, windowed=False)
        self.write(cache, key, self._index(windowed=False, values=False))
        k = whole(cache, (rank + rope, 1, batch.full, batch.num_streams))
        v = view(k, (rank, 1, batch.full, batch.num_streams), k.nb)
        # Values are the first part of each key: up to the last one's, not its rotated part.
        kind = GGML_TYPES[batch.type_k]
        v.num_bytes = k.num_bytes - kind.row_bytes(rank + rope) + kind.row_bytes(rank)
        mask = self.mask(windowed=False)
        mask = mask if narrowed is None else narrowed(mask)
        cur = self._attend(query, k, v, mask, transposed=False, decompress=part.v_head_dim)
        return self.linear(cur, self.shape.hidden_size, "attn_output")


def whole(cache: Tensor, ne: Dims) -> Tensor:
    """Return a view of all of a cache, [head size, heads, cells, streams] or with values transposed."""
    result = view(cache, ne)
    size = {F32: 4, I32: 4}.get(cache.type, 2)
    result.nb = (size, size * ne[0], size * ne[0] * ne[1], size * ne[0] * ne[1] * ne[2])
    result.num_bytes = cache.num_bytes
    return result
