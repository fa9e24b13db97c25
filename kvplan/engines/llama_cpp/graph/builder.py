"""MLPs and experts in llama.cpp's graphs, beside all other parts.

src/llama-graph.cpp build_ffn, build_moe_ffn.
"""

from kvplan.engines.ggml.tensor import (
    F32,
    I32,
    Tensor,
    argsort_top_k,
    cast,
    cont,
    get_rows,
    glu,
    like,
    mul_mat_id,
    repeat,
    reshape,
    set_rows,
    sum_rows,
    view,
    weight,
)
from kvplan.engines.llama_cpp.graph.attention import AttentionParts
from kvplan.engines.llama_cpp.graph.shapes import Experts, FeedForward

# Architectures whose experts' outputs ask for fp32 operands, which CUDA does not multiply by experts.
EXACT_EXPERT_ARCHS = frozenset(("mistral4",))


class Builder(AttentionParts):
    """Makes one graph; a layer's parts are its methods."""

    def mlp(self, tensor: Tensor, part: FeedForward, *, sub_norm: bool = False) -> Tensor:
        """A dense MLP; ``sub_norm`` normalizes what goes down (BitNet)."""
        return self._mlp(tensor, part, "ffn_gate", "ffn_up", "ffn_down", sub_norm=sub_norm)

    def shared_mlp(self, tensor: Tensor, width: int, *, gated: bool = True, clamped: bool = False) -> Tensor:
        """The MLP beside routed experts."""
        part = FeedForward(width, gated=gated, fused=False, clamped=clamped)
        return self._mlp(tensor, part, "ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp")

    def _mlp(
        self, tensor: Tensor, part: FeedForward, gate: str, up: str, down: str, *, sub_norm: bool = False
    ) -> Tensor:
        if part.fused:
            cur = glu(self.linear(tensor, 2 * part.width, up))
        elif part.gated:
            raised = self.linear(tensor, part.width, up)
            opened = self.linear(tensor, part.width, gate)
            cur = _limited(opened, raised) if part.clamped else glu(opened, raised)
        else:
            cur = like("sqr", like("unary", self.linear(tensor, part.width, up)))
        return self.linear(self.norm(cur) if sub_norm else cur, tensor.ne[0], down)

    def experts(
        self,
        tensor: Tensor,
        part: Experts,
        *,
        gating: str,
        normed: bool,
        scaled: bool = False,
        weight_first: bool = False,
        logits: Tensor | None = None,
        in_chunks: bool = False,
    ) -> Tensor:
        """Route each token to its experts and add their weighted results up (build_moe_ffn).

        ``gating`` is ``softmax``, ``sigmoid`` or ``softmax_weight`` (over the chosen ones). Where experts
        have chunks (GroveMoE), a sigmoid chooses, and ``in_chunks`` goes through those of the chosen ones.
        """
        hidden, tokens = tensor.ne[0], tensor.ne[1]
        num, used = part.num, part.num_used
        if logits is None:
            logits = self.linear(tensor, num, "ffn_gate_inp")
        if part.biased:
            logits = like("add", logits, self.scale_weight(num))
        scores = {"softmax": "soft_max", "sigmoid": "unary"}.get(gating)
        probs = logits if scores is None else like(scores, logits)
        chosen_by = probs
        if part.corrected:
            chosen_by = like("add", probs, self.scale_weight(num))
        if weight_first:
            chosen_by = logits
        if part.num_chunks:
            chosen_by = like("unary", logits)
        if self.shape.routing.num_groups > 1:
            chosen_by = self._within_groups(chosen_by)
        chosen = argsort_top_k(chosen_by, used)
        if in_chunks:
            chosen = cast(like("scale", cast(chosen, F32)), I32)
        weights = get_rows(reshape(probs, (1, num, tokens)), chosen)
        if gating == "softmax_weight":
            weights = reshape(like("soft_max", reshape(weights, (used, tokens))), (1, used, tokens))
        if normed:
            flat = reshape(weights, (used, tokens))
            flat = like("div", flat, like("clamp", sum_rows(flat)))
            weights = reshape(flat, (1, used, tokens))
        if scaled:
            weights = like("scale", weights)
        self.graph.expand(weights)
        cur = reshape(tensor, (hidden, 1, tokens))
        held, inner, suffix = num, part.width, "exps"
        if in_chunks:
            held, inner, suffix = part.num_chunks, part.chunk_width, "chexps"
        if weight_first:
            cur = like("mul", repeat(cur, (hidden, used, tokens)), weights)

        def through(operand: Tensor, width: int, name: str) -> Tensor:
            matrices = self.weight(operand.ne[0], width, held, name=f"{name}_{suffix}")
            result = mul_mat_id(matrices, operand, chosen)
            if part.biased:
                bias = weight((width, num), self.places.experts[self.layer])
                result = like("add_id", result, bias, chosen)
            return result

        if part.fused:
            both = through(cur, 2 * inner, "ffn_gate_up")
            gate, up = (view(both, (inner, used, tokens), both.nb) for _ in range(2))
            cur = glu(gate, up)
        elif part.gated:
            up = through(cur, inner, "ffn_up")
            gate = through(cur, inner, "ffn_gate")
            cur = _limited(gate, up) if part.clamped else glu(gate, up)
        else:
            cur = like("sqr", like("unary", through(cur, inner, "ffn_up")))
        results = through(cur, hidden, "ffn_down")
        if self.shape.arch in EXACT_EXPERT_ARCHS:
            results.op = "mul_mat_id_f32"
        if part.scaled:
            # A factor an expert, looked up for those that each token takes.
            factors = repeat(reshape(self.scale_weight(num), (1, num)), (1, num, tokens))
            results = like("mul", results, get_rows(factors, chosen))
        if not weight_first:
            results = like("mul", results, weights)
        self.graph.expand(results)
        row = results.nb
        parts = [
            self.graph.expand(view(results, (hidden, tokens), (row[0], row[2], row[3], row[3])))
            for _ in range(used)
        ]
        total = parts[0]
        for each in parts[1:]:
            total = self.graph.expand(like("add", total, each))
        return cont(total) if used == 1 else total

    def _within_groups(self, scores: Tensor) -> Tensor:
        """Leave only the experts of each token's best groups: those whose two best score most."""
        num, tokens = scores.ne[0], scores.ne[1]
        routing = self.shape.routing
        groups = routing.num_groups
        grouped = reshape(scores, (num // groups, groups, tokens))
        best = argsort_top_k(grouped, 2)
        best = get_rows(reshape(grouped, (1, *grouped.ne[:3])), best)
        best = sum_rows(reshape(best, (2, groups, tokens)))
        chosen = argsort_top_k(reshape(best, (groups, tokens)), routing.num_groups_used)
        kept = get_rows(grouped, chosen)
        return reshape(set_rows(like("fill", grouped), kept, chosen), (num, tokens))


def _limited(gate: Tensor, up: Tensor) -> Tensor:
    """Return a gated activation both of whose parts are clamped."""
    return like("mul", like("clamp", like("unary", gate)), like("clamp", up))
