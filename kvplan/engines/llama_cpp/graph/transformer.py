"""Graphs of the transformer architectures: one loop, and what each architecture does differently.

src/models/*.cpp of llama.cpp 0c1e57098; each rule below is one file there.
"""

from typing import Literal

from kvplan.engines.ggml.tensor import Tensor, get_rows, given, like, reshape, view, weight
from kvplan.engines.llama_cpp.graph.builder import Builder
from kvplan.engines.llama_cpp.graph.shapes import Attention, Experts, Latent, LayerShape
from kvplan.frozen import dataclass


@dataclass(frozen=True, slots=True)
class Rules:
    """How an architecture's graph departs from Llama's.

    ``qk_norm``: none, per ``head`` before the rotation (``head_if_any``: where a layer has such norms),
    over the ``row`` of all heads, or ``after_rope``. ``rope`` on all layers, the ``windowed`` ones if
    there are any, none, or all but every fourth (``skip4``, see LayerShape). ``post_norms`` follow
    attention and MLP; without ``pre_norms`` there are no others. ``parallel`` runs attention and MLP side
    by side, of one norm or two; odd layers do the other thing (Falcon: two norms, GPT-NeoX: one behind the
    other). ``late_outputs`` picks the wanted rows after the last layer, ``late_pick`` after the norm that
    follows its attention. ``gating`` is ``own`` where the file says how its router works (but for
    ``always_normed`` weights); ``routed_early`` routers read what the layer was given.
    """

    qk_norm: Literal["none", "head", "head_if_any", "row", "after_rope"] = "none"
    rope: Literal["all", "windowed", "none", "skip4"] = "all"
    pre_norms: bool = True
    post_norms: bool = False
    norm: str = "rms_norm"
    parallel: Literal["no", "shared_norm", "own_norm"] = "no"
    residual_last: bool = False
    learned_positions: bool = False
    normed_embedding: bool = False
    scaled_embedding: bool = False
    scaled_query: bool = False
    capped_scores: bool = False
    capped_logits: bool = False
    scaled_logits: bool = False
    late_outputs: bool = False
    late_pick: bool = False
    routed_early: bool = False
    residual_first: bool = False
    gating: Literal["softmax", "sigmoid", "softmax_weight", "own"] = "softmax"
    normed_weights: bool = True
    always_normed: bool = False
    weight_first: bool = False
    tempered: bool = False
    scaled_residual: bool = False
    shared_first: bool = False
    deepstack: int = 0


RULES: dict[str, Rules] = {
    "llama": Rules(),
    "qwen2": Rules(),
    "mistral3": Rules(),
    "smollm3": Rules(rope="skip4"),
    "qwen3": Rules(qk_norm="head"),
    "qwen3moe": Rules(qk_norm="head"),
    "phi3": Rules(scaled_query=True, residual_first=True),
    "olmo2": Rules(qk_norm="row", pre_norms=False, post_norms=True),
    "gemma2": Rules(
        post_norms=True, scaled_embedding=True, scaled_query=True, capped_scores=True, capped_logits=True
    ),
    "gemma3": Rules(qk_norm="head", post_norms=True, scaled_embedding=True, scaled_query=True),
    "cohere2": Rules(rope="windowed", norm="norm", parallel="shared_norm", scaled_logits=True),
    "gpt-oss": Rules(late_outputs=True, gating="softmax_weight", normed_weights=False),
    "llama4": Rules(
        qk_norm="after_rope",
        rope="skip4",
        gating="sigmoid",
        normed_weights=False,
        weight_first=True,
        tempered=True,
    ),
    "glm4moe": Rules(qk_norm="head_if_any", gating="own"),
    "deepseek2": Rules(gating="own"),
    # Those below were compared on small models on the CPU.
    "arcee": Rules(),
    "seed_oss": Rules(),
    "ernie4_5": Rules(),
    "ernie4_5-moe": Rules(),
    "internlm2": Rules(),
    "qwen2vl": Rules(),
    "qwen2moe": Rules(normed_weights=False),
    "qwen3vl": Rules(qk_norm="head", deepstack=3),
    "qwen3vlmoe": Rules(qk_norm="head", deepstack=3),
    "olmoe": Rules(qk_norm="row", normed_weights=False),
    "apertus": Rules(qk_norm="head"),
    "dots1": Rules(qk_norm="head", gating="own"),
    "minimax-m2": Rules(qk_norm="row", gating="own"),
    "bailingmoe2": Rules(qk_norm="head", gating="own"),
    "hunyuan-dense": Rules(qk_norm="after_rope"),
    "hunyuan-moe": Rules(qk_norm="after_rope", shared_first=True),
    "gemma": Rules(scaled_embedding=True, scaled_query=True),
    "granite": Rules(scaled_embedding=True, scaled_residual=True, scaled_logits=True),
    "granitemoe": Rules(scaled_embedding=True, scaled_residual=True, scaled_logits=True),
    "command-r": Rules(norm="norm", parallel="shared_norm", scaled_logits=True),
    "exaone4": Rules(qk_norm="head", rope="windowed", pre_norms=False, post_norms=True),
    "glm4": Rules(post_norms=True),
    "starcoder2": Rules(norm="norm"),
    "phi2": Rules(norm="norm", parallel="shared_norm", residual_last=True, scaled_query=True),
    "falcon": Rules(norm="norm", parallel="shared_norm", residual_last=True),
    "gptneox": Rules(norm="norm", parallel="own_norm"),
    "gpt2": Rules(norm="norm", rope="none", learned_positions=True),
    "starcoder": Rules(norm="norm", rope="none", learned_positions=True),
    "bloom": Rules(norm="norm", rope="none", normed_embedding=True),
    "mpt": Rules(norm="norm", rope="none"),
    "jais": Rules(norm="norm", rope="none"),
    "stablelm": Rules(norm="norm"),
    "orion": Rules(norm="norm"),
    "codeshell": Rules(norm="norm"),
    "nemotron": Rules(norm="norm"),
    "olmo": Rules(norm="norm"),
    "qwen": Rules(),
    "baichuan": Rules(rope="skip4"),
    "xverse": Rules(),
    "exaone": Rules(),
    "deci": Rules(),
    "chatglm": Rules(),
    "pangu-embedded": Rules(),
    "minicpm": Rules(scaled_embedding=True, scaled_residual=True, scaled_logits=True),
    "openelm": Rules(qk_norm="head"),
    "refact": Rules(rope="none"),
    "plamo": Rules(parallel="shared_norm", residual_last=True),
    "maincoder": Rules(qk_norm="head"),
    "phimoe": Rules(scaled_query=True, residual_first=True),
    "deepseek": Rules(normed_weights=False),
    "bailingmoe": Rules(),
    "dbrx": Rules(norm="norm"),
    "exaone-moe": Rules(qk_norm="head", rope="windowed", gating="own"),
    "mimo2": Rules(gating="own"),
    "mistral4": Rules(gating="own", tempered=True),
    "grovemoe": Rules(qk_norm="head"),
    "afmoe": Rules(
        qk_norm="head", rope="skip4", post_norms=True, scaled_embedding=True, late_pick=True, gating="own"
    ),
    "laguna": Rules(qk_norm="head", gating="own"),
    "step35": Rules(qk_norm="head_if_any", late_outputs=True, gating="own"),
    "smallthinker": Rules(rope="skip4", routed_early=True, gating="own", always_normed=True),
}


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
        wanted = index == last and not rules.late_outputs
        if rules.parallel == "shared_norm" or (rules.parallel == "own_norm" and not layer.is_odd):
            residual = _side_by_side(builder, rules, layer, residual, picks=wanted)
            continue
        logits = None
        if rules.routed_early and layer.experts is not None:
            logits = builder.linear(residual, layer.experts.num, "ffn_gate_inp")
        cur = builder.norm(residual, rules.norm) if rules.pre_norms else residual
        cur = _attention(builder, rules, layer, cur, temper)
        if rules.post_norms and rules.late_pick:
            cur = builder.norm(cur, rules.norm)
        if wanted:
            cur, residual = builder.pick(cur, residual)
            logits = logits if logits is None else builder.pick(logits)[0]
        if rules.post_norms and not rules.late_pick:
            cur = builder.norm(cur, rules.norm)
        if rules.scaled_residual:
            cur = like("scale", cur)
        middle = like("add", cur, residual)
        cur = builder.norm(middle, rules.norm) if rules.pre_norms else middle
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
    cur = builder.logits(builder.final_norm(cur, rules.norm))
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
    query = builder.norm(query) if per_head else query
    # src/models/step35.cpp: only layers that attend to everything read the table of factors.
    table = builder.shape.arch != "step35" or not part.windowed
    query = builder.rope(query, tabled=table) if rotates else query
    key = builder.norm(key) if per_head else key
    key = builder.rope(key, tabled=table) if rotates else key
    if not rotates and temper is not None:
        query = like("mul", query, temper)
    if rotates and rules.qk_norm == "after_rope":
        query, key = like("rms_norm", query), like("rms_norm", key)
    if rules.scaled_query:
        query = like("scale", query)
    is_gated = part.gate_width > 0
    cur = builder.attention(
        part,
        query,
        key,
        value,
        two_caches=two_caches,
        soft_cap=rules.capped_scores,
        project=not is_gated,
    )
    return builder.gated(tensor, part, cur) if is_gated else cur


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
        return builder.mlp(tensor, layer.mlp) if layer.mlp is not None else tensor
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
