"""Graphs of architectures with recurrent layers.

src/models/mamba.cpp, jamba.cpp, granite-hybrid.cpp, nemotron-h.cpp, qwen3next.cpp, qwen35.cpp, lfm2.cpp,
falcon-h1.cpp, kimi-linear.cpp.
"""

from dataclasses import replace
from typing import Literal

from kvplan.engines.ggml.tensor import Tensor, cont, like, reshape, view
from kvplan.engines.llama_cpp.graph.builder import Builder
from kvplan.engines.llama_cpp.graph.kimi_linear import kimi_delta
from kvplan.engines.llama_cpp.graph.recurrent import Recurrent
from kvplan.engines.llama_cpp.graph.shapes import Attention, Latent, LayerShape
from kvplan.frozen import dataclass
from kvplan.layers import GatedDeltaState, KimiDeltaState, Mamba1State, Mamba2State, ShortConvState


@dataclass(frozen=True, slots=True)
class HybridRules:
    """How an architecture's graph is put together.

    ``one_part`` layers are a mixer or an MLP, with one norm and one residual. ``scaled`` multiplies
    embedding, residual branches and logits (Granite). ``separate_gates`` projects a delta net's decay
    and step apart (Qwen3.5); ``side_by_side`` runs attention and state in one layer (Falcon-H1);
    ``expanded_norm`` adds a layer's norm to the graph before anything reads it (Kimi Linear).
    """

    one_part: bool = False
    late_outputs: bool = False
    residual_first: bool = False
    scaled: bool = False
    rope: bool = False
    qk_norm: bool = False
    gated_attention: bool = False
    separate_gates: bool = False
    side_by_side: bool = False
    normed_dt: bool = False
    expanded_norm: bool = False
    gating: Literal["softmax", "sigmoid", "own"] = "softmax"
    normed_weights: bool = True


HYBRIDS: dict[str, HybridRules] = {
    "mamba": HybridRules(one_part=True),
    "mamba2": HybridRules(one_part=True),
    "jamba": HybridRules(residual_first=True, normed_dt=True, normed_weights=False),
    "granitehybrid": HybridRules(scaled=True, rope=True),
    "nemotron_h": HybridRules(one_part=True, late_outputs=True, gating="sigmoid"),
    "nemotron_h_moe": HybridRules(one_part=True, late_outputs=True, gating="sigmoid"),
    "qwen3next": HybridRules(late_outputs=True, rope=True, gated_attention=True),
    "qwen35": HybridRules(late_outputs=True, rope=True, gated_attention=True, separate_gates=True),
    "qwen35moe": HybridRules(late_outputs=True, rope=True, gated_attention=True, separate_gates=True),
    "lfm2": HybridRules(rope=True, qk_norm=True, residual_first=True),
    "lfm2moe": HybridRules(rope=True, qk_norm=True, residual_first=True, gating="own"),
    "falcon-h1": HybridRules(rope=True, side_by_side=True),
    "kimi-linear": HybridRules(expanded_norm=True, gating="own"),
}


def hybrid(builder: Builder, rules: HybridRules) -> None:
    """Build the whole graph."""
    shape, graph = builder.shape, builder.graph
    recurrent = Recurrent(builder)
    residual = builder.embedding()
    if rules.scaled:
        residual = graph.expand(like("scale", residual))
    last = len(shape.layers) - 1
    for index, layer in enumerate(shape.layers):
        builder.layer = index
        scale = builder.scale_weight(shape.hidden_size)
        cur = builder.norm(residual, scale=scale)
        if rules.gated_attention or rules.expanded_norm:
            graph.expand(cur)
        if rules.side_by_side:
            attended = _mixed(builder, recurrent, rules, replace(layer, state=None), cur)
            mixed = _mixed(builder, recurrent, rules, layer, builder.norm(residual, scale=scale))
            residual = like("add", like("add", attended, mixed), residual)
            if index == last:
                (residual,) = builder.pick(residual)
            cur = _fed(builder, rules, layer, builder.norm(residual))
            residual = like("add", cur, residual)
            continue
        cur = _mixed(builder, recurrent, rules, layer, cur)
        if index == last and not rules.late_outputs:
            cur, residual = builder.pick(cur, residual)
        if rules.scaled:
            cur = like("scale", cur)
        middle = like("add", residual, cur) if rules.residual_first else like("add", cur, residual)
        if rules.one_part:
            residual = middle
            continue
        cur = _fed(builder, rules, layer, builder.norm(middle))
        if rules.scaled:
            cur = like("scale", cur)
        residual = like("add", middle, cur) if rules.residual_first else like("add", cur, middle)
    cur = builder.final_norm(residual)
    if rules.late_outputs:
        (cur,) = builder.pick(cur)
    cur = builder.logits(cur)
    graph.expand(like("scale", cur) if rules.scaled else cur)


def _mixed(
    builder: Builder, recurrent: Recurrent, rules: HybridRules, layer: LayerShape, tensor: Tensor
) -> Tensor:
    """Run the layer's mixer, or its MLP where the MLP is a layer of its own."""
    match layer.state:
        case Mamba1State():
            return recurrent.mamba1(tensor, layer.state, layer.dt_rank, normed=rules.normed_dt)
        case Mamba2State():
            return recurrent.mamba2(tensor, layer.state)
        case GatedDeltaState():
            return recurrent.delta_net(tensor, layer.state, separate_gates=rules.separate_gates)
        case ShortConvState():
            return recurrent.short_convolution(tensor, layer.state)
        case KimiDeltaState():
            return kimi_delta(recurrent, tensor, layer.state)
    part = layer.attention
    if isinstance(part, Latent):
        # Kimi Linear's latent layers carry no positions.
        return builder.latent_attention(part, tensor, rotates=False)
    if not isinstance(part, Attention):
        return _fed(builder, rules, layer, tensor)
    if rules.gated_attention:
        return _gated_attention(builder, part, tensor)
    query, key, value = builder.qkv(tensor, part)
    if rules.qk_norm:
        query, key = builder.norm(query), builder.norm(key)
    if rules.rope:
        query, key = builder.rope(query), builder.rope(key)
    return builder.attention(part, query, key, value, two_caches=False)


def _gated_attention(builder: Builder, part: Attention, tensor: Tensor) -> Tensor:
    """Attention whose query projection also makes a gate for the output (Qwen3-Next)."""
    tokens, heads, dim = builder.batch.num_tokens, part.num_heads, part.head_dim
    both = builder.linear(tensor, 2 * dim * heads, "attn_q")
    key = builder.linear(tensor, dim * part.num_kv_heads, "attn_k")
    value = builder.linear(tensor, part.v_head_dim * part.num_kv_heads, "attn_v")
    both = reshape(both, (2 * dim, heads, tokens))
    query, gate = (view(both, (dim, heads, tokens), both.nb) for _ in range(2))
    key = reshape(key, (dim, part.num_kv_heads, tokens))
    value = reshape(value, (part.v_head_dim, part.num_kv_heads, tokens))
    query = builder.rope(builder.norm(query))
    key = builder.rope(builder.norm(key))
    cur = builder.attention(part, query, key, value, two_caches=False, project=False)
    gate = like("unary", cont(gate, (dim * heads, tokens)))
    return builder.linear(like("mul", cur, gate), builder.shape.hidden_size, "attn_output")


def _fed(builder: Builder, rules: HybridRules, layer: LayerShape, tensor: Tensor) -> Tensor:
    experts = layer.experts
    if experts is None:
        return builder.mlp(tensor, layer.mlp) if layer.mlp is not None else tensor
    routing = builder.shape.routing
    own = "sigmoid" if routing.sigmoid else "softmax"
    cur = builder.experts(
        tensor,
        experts,
        gating=own if rules.gating == "own" else rules.gating,
        normed=rules.normed_weights,
        scaled=routing.scaled,
    )
    if not experts.shared:
        return cur
    shared = builder.shared_mlp(tensor, experts.shared, gated=experts.gated)
    if experts.shared_gate:
        shared = like("mul", shared, like("unary", builder.linear(tensor, 1, "ffn_gate_inp_shexp")))
    return like("add", cur, shared)
