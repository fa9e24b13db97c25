"""Graphs of the transformer architectures: one loop, which an architecture's rules turn here and there.

src/models/*.cpp of llama.cpp 0c1e57098.
"""

from kvplan.engines.ggml.tensor import Tensor, get_rows, given, like, reshape, view, weight
from kvplan.engines.llama_cpp.graph.builder import Builder
from kvplan.engines.llama_cpp.graph.rules import Rules
from kvplan.engines.llama_cpp.graph.shapes import Attention, Experts, Latent, LayerShape


def transformer(builder: Builder, rules: Rules) -> None:
    """Build the whole graph."""
    shape, graph = builder.shape, builder.graph
    residual = builder.embedding(rules.deepstack)
    brought = residual
    if rules.scaled_embedding:
        residual = like("scale", residual)
    if rules.learned_positions:
        table = weight((shape.hidden_size, 1), builder.places.cpu)
        residual = like("add", residual, get_rows(table, builder.positions))
    if rules.normed_embedding:
        residual = builder.norm(residual, rules.norm)
    temper = given((1, 1, builder.batch.num_tokens)) if rules.tempered else None
    last = len(shape.layers) - 1
    for index, layer in enumerate(shape.layers):
        builder.layer = index
        wanted = index == last and not rules.late_outputs and not rules.outputs_after_norm
        if rules.parallel == "shared_norm" or (rules.parallel == "own_norm" and not layer.is_odd):
            residual = _side_by_side(builder, rules, layer, residual, picks=wanted)
            continue
        logits = None
        if rules.routed_early and layer.experts is not None:
            logits = builder.linear(residual, layer.experts.num, "ffn_gate_inp")
        is_normed = rules.pre_norms and not (rules.odd_unnormed and layer.is_odd)
        normed = builder.norm(residual, rules.norm) if is_normed else residual
        cur = _attention(builder, rules, layer, normed, temper)
        reuses_norm = rules.odd_one_norm and layer.is_odd
        if rules.post_norms and rules.late_pick:
            cur = builder.norm(cur, rules.norm)
        if wanted:
            cur, residual = builder.pick(cur, residual)
            normed = builder.pick(normed)[0] if reuses_norm else normed
            logits = logits if logits is None else builder.pick(logits)[0]
        if rules.post_norms and not rules.late_pick:
            cur = builder.norm(cur, rules.norm)
        if rules.scaled_residual:
            cur = like("scale", cur)
        middle = like("add", cur, residual)
        cur = normed if reuses_norm else middle
        if rules.pre_norms and not reuses_norm:
            cur = builder.norm(middle, rules.norm)
        cur = feed_forward(builder, rules, layer, cur, logits)
        if rules.post_norms:
            cur = builder.norm(cur, rules.norm, pinned=rules.late_pick)
        if rules.scaled_residual:
            cur = like("scale", cur)
        residual = like("add", middle, cur) if rules.residual_first else like("add", cur, middle)
        if rules.deepstack and layer.is_odd:
            residual = like("add", residual, view(brought, residual.ne, brought.nb))
    cur = residual
    if rules.late_outputs:
        cur.is_output = True
        (cur,) = builder.pick(cur)
    cur = builder.final_norm(cur, rules.norm)
    if rules.outputs_after_norm:
        (cur,) = builder.pick(cur)
    if not rules.has_head:
        graph.expand(cur)
        return
    if rules.scaled_head_input:
        cur.is_output = True
        cur = like("scale", cur)
    cur = builder.logits(cur)
    if rules.scaled_logits:
        cur = like("scale", cur)
    if rules.capped_logits:
        cur = like("scale", like("unary", like("scale", cur)))
    graph.expand(cur)


def _side_by_side(
    builder: Builder, rules: Rules, layer: LayerShape, residual: Tensor, *, picks: bool
) -> Tensor:
    """Run attention and MLP on the same tensor and add both to it."""
    normed = builder.norm(residual, rules.norm)
    second = rules.parallel == "shared_norm" and layer.is_odd
    cur = builder.norm(residual, rules.norm) if second else normed
    cur = _attention(builder, rules, layer, cur, None)
    if rules.parallel == "own_norm":
        cur, residual = builder.pick(cur, residual) if picks else (cur, residual)
        normed = builder.norm(residual, rules.norm)
    elif picks:
        cur, residual, normed = builder.pick(cur, residual, normed)
    fed = feed_forward(builder, rules, layer, normed)
    if rules.attended_first:
        return like("add", like("add", cur, fed), residual)
    order = (cur, residual) if rules.residual_last else (residual, cur)
    return like("add", like("add", fed, order[0]), order[1])


def _attention(
    builder: Builder, rules: Rules, layer: LayerShape, tensor: Tensor, temper: Tensor | None
) -> Tensor:
    part = layer.attention
    if isinstance(part, Latent):
        return builder.latent_attention(part, tensor, temper=temper)
    if part is None:
        return tensor
    if layer.expanded is not None:
        query, key, value = builder.expanded_heads(layer.expanded, tensor)
        return builder.attention(part, query, key, value, two_caches=False)
    query, key, value = builder.qkv(tensor, part)
    if rules.qk_norm == "row":
        query, key = (_row_normed(builder, each) for each in (query, key))
    two_caches = any(
        isinstance(each.attention, Attention) and each.attention.windowed for each in builder.shape.layers
    )
    rotates = {
        "all": True,
        "none": False,
        "windowed": part.windowed or not two_caches,
        "skip4": not layer.is_odd,
    }[rules.rope]
    per_head = rules.qk_norm == "head" or (rules.qk_norm == "head_if_any" and part.qk_normed)
    query = _head_normed(builder, rules, query) if per_head else query
    # src/models/step35.cpp: only layers that attend to everything read the table of factors.
    table = builder.shape.arch != "step35" or not part.windowed
    query = builder.rope(query, tabled=table) if rotates else query
    key = _head_normed(builder, rules, key) if per_head else key
    key = builder.rope(key, tabled=table) if rotates else key
    if not rotates and temper is not None:
        query = like("mul", query, temper)
    if rotates and rules.qk_norm == "after_rope":
        query, key = like("rms_norm", query), like("rms_norm", key)
    if rules.scaled_query:
        query = like("scale", query)
    if rules.uncached or builder.shape.is_uncached:
        return builder.uncached_attention(part, query, key, value)
    is_gated = part.gate_width > 0
    cur = builder.attention(
        part,
        query,
        key,
        value,
        two_caches=two_caches,
        soft_cap=rules.capped_scores,
        project=not (is_gated or rules.sub_norms),
    )
    if rules.sub_norms:
        return builder.linear(builder.norm(cur), builder.shape.hidden_size, "attn_output", bias=part.out_bias)
    return builder.gated(tensor, part, cur) if is_gated else cur


def _head_normed(builder: Builder, rules: Rules, heads: Tensor) -> Tensor:
    if rules.norm == "rms_norm":
        return builder.norm(heads)
    # Command R+ and StableLM 2: a norm of its own for every head.
    return builder.norm(heads, rules.norm, scale=builder.scale_weight(heads.ne[0], heads.ne[1]))


def _row_normed(builder: Builder, heads: Tensor) -> Tensor:
    row = reshape(heads, (heads.ne[0] * heads.ne[1], heads.ne[2]))
    source = heads.src[0]
    return reshape(builder.norm(source if source.ne == row.ne else row), heads.ne)


def feed_forward(
    builder: Builder, rules: Rules, layer: LayerShape, tensor: Tensor, logits: Tensor | None = None
) -> Tensor:
    """Run a layer's MLP, or its experts and the MLP beside them."""
    experts = layer.experts
    if experts is None:
        return builder.mlp(tensor, layer.mlp, sub_norm=rules.sub_norms) if layer.mlp is not None else tensor
    routing = builder.shape.routing
    own = rules.gating == "own"
    gating = ("sigmoid" if routing.sigmoid else "softmax") if own else rules.gating
    if experts.num_chunks:
        logits = builder.linear(tensor, experts.num, "ffn_gate_inp")
    before = _shared(builder, experts, tensor) if rules.shared_first else None
    cur = builder.experts(
        tensor,
        experts,
        gating=gating,
        normed=rules.always_normed or (routing.normed if own else rules.normed_weights),
        scaled=routing.scaled,
        weight_first=rules.weight_first,
        logits=logits,
    )
    if rules.mlp_and_experts and layer.mlp is not None:
        return like("scale", like("add", builder.mlp(tensor, layer.mlp), cur))
    if experts.num_chunks:
        adjugate = builder.experts(
            cur, experts, gating=gating, normed=True, scaled=routing.scaled, logits=logits, in_chunks=True
        )
        cur = like("add", cur, like("scale", adjugate))
    shared = before or _shared(builder, experts, tensor)
    return cur if shared is None else like("add", cur, shared)


def _shared(builder: Builder, experts: Experts, tensor: Tensor) -> Tensor | None:
    if not experts.shared:
        return None
    shared = builder.shared_mlp(tensor, experts.shared, clamped=experts.shared_clamped)
    if not experts.shared_gate:
        return shared
    return like("mul", shared, like("unary", builder.linear(tensor, 1, "ffn_gate_inp_shexp")))
