"""What each transformer architecture does differently from Llama in llama.cpp's graphs.

src/models/*.cpp of llama.cpp 0c1e57098; each rule below is one file there.
"""

from typing import Literal

from kvplan.frozen import dataclass


@dataclass(frozen=True, slots=True)
class Rules:
    """How an architecture's graph departs from Llama's.

    ``qk_norm``: none, per ``head`` before the rotation (``head_if_any``: where a layer has such norms),
    over the ``row`` of all heads, or ``after_rope``. ``rope`` on all layers, the ``windowed`` ones if there
    are any, none, or all but every fourth (``skip4``, see LayerShape). ``post_norms`` follow attention and
    MLP; without ``pre_norms`` there are no others. ``parallel`` runs attention and MLP side by side, of one
    norm or two; odd layers do the other thing (Falcon: two norms, GPT-NeoX: one behind the other).
    ``late_outputs`` picks the wanted rows after the last layer, ``outputs_after_norm`` after the last norm,
    ``late_pick`` after the norm that follows its attention. ``gating`` is ``own`` where the file says how
    its router works (but for ``always_normed`` weights); ``routed_early`` routers read what the layer was
    given. ``uncached`` attends to the batch itself; without ``has_head`` the graph ends at the last norm;
    ``odd_unnormed`` has no norm before odd layers, ``odd_one_norm`` one for both parts of them (StableLM);
    ``sub_norms`` are before a sublayer's last matrix (BitNet); ``mlp_and_experts`` adds up both (Grok);
    ``scaled_head_input`` scales before the head.
    """

    qk_norm: Literal["none", "head", "head_if_any", "row", "after_rope"] = "none"
    rope: Literal["all", "windowed", "none", "skip4"] = "all"
    pre_norms: bool = True
    post_norms: bool = False
    norm: str = "rms_norm"
    parallel: Literal["no", "shared_norm", "own_norm"] = "no"
    residual_last: bool = False
    attended_first: bool = False
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
    uncached: bool = False
    has_head: bool = True
    odd_unnormed: bool = False
    odd_one_norm: bool = False
    scaled_head_input: bool = False
    sub_norms: bool = False
    mlp_and_experts: bool = False
    outputs_after_norm: bool = False


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
    "command-r": Rules(qk_norm="head_if_any", norm="norm", parallel="shared_norm", scaled_logits=True),
    "exaone4": Rules(qk_norm="head", rope="windowed", pre_norms=False, post_norms=True),
    "glm4": Rules(post_norms=True),
    "starcoder2": Rules(norm="norm"),
    "phi2": Rules(
        norm="norm", parallel="shared_norm", residual_last=True, attended_first=True, scaled_query=True
    ),
    "falcon": Rules(norm="norm", parallel="shared_norm", residual_last=True),
    "gptneox": Rules(norm="norm", parallel="own_norm"),
    "gpt2": Rules(norm="norm", rope="none", learned_positions=True),
    "starcoder": Rules(norm="norm", rope="none", learned_positions=True),
    "bloom": Rules(norm="norm", rope="none", normed_embedding=True),
    "mpt": Rules(norm="norm", rope="none"),
    "jais": Rules(norm="norm", rope="none"),
    "stablelm": Rules(qk_norm="head_if_any", norm="norm", odd_one_norm=True),
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
    "maincoder": Rules(qk_norm="after_rope"),
    "phimoe": Rules(scaled_query=True, residual_first=True),
    "deepseek": Rules(normed_weights=False),
    "bailingmoe": Rules(),
    "dbrx": Rules(norm="norm"),
    "exaone-moe": Rules(qk_norm="head", rope="windowed", gating="own"),
    "mimo2": Rules(gating="own"),
    "mistral4": Rules(gating="own", tempered=True),
    "minicpm3": Rules(scaled_embedding=True, scaled_residual=True, scaled_head_input=True),
    "bitnet": Rules(sub_norms=True),
    "plamo3": Rules(qk_norm="head", post_norms=True),
    "granite_swa": Rules(scaled_embedding=True, scaled_residual=True, scaled_logits=True),
    "hunyuan_vl": Rules(qk_norm="after_rope"),
    "paddleocr": Rules(),
    "nanbeige": Rules(),
    "mellum": Rules(qk_norm="head"),
    "jais2": Rules(norm="norm"),
    "hy_v3": Rules(qk_norm="head", gating="own", outputs_after_norm=True),
    "grok": Rules(
        post_norms=True, scaled_embedding=True, capped_scores=True, scaled_logits=True, mlp_and_experts=True
    ),
    "dream": Rules(uncached=True),
    "llada": Rules(uncached=True),
    "llada-moe": Rules(qk_norm="head", normed_weights=False, uncached=True),
    "rnd1": Rules(qk_norm="head", uncached=True),
    "llama-embed": Rules(uncached=True, has_head=False),
    "eurobert": Rules(uncached=True, has_head=False),
    "neo-bert": Rules(uncached=True, has_head=False),
    "modern-bert": Rules(
        norm="norm", normed_embedding=True, odd_unnormed=True, uncached=True, has_head=False
    ),
    "gemma-embedding": Rules(
        qk_norm="head",
        post_norms=True,
        scaled_embedding=True,
        scaled_query=True,
        uncached=True,
        has_head=False,
    ),
    "grovemoe": Rules(qk_norm="head"),
    "afmoe": Rules(
        qk_norm="head", rope="skip4", post_norms=True, scaled_embedding=True, late_pick=True, gating="own"
    ),
    "laguna": Rules(qk_norm="head", gating="own"),
    "step35": Rules(qk_norm="head_if_any", late_outputs=True, gating="own"),
    "smallthinker": Rules(rope="skip4", routed_early=True, gating="own", always_normed=True),
}
