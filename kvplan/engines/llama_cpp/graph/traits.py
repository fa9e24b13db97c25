"""What a file's header or a model's config says of its layers beside their widths: routers, odd layers.

src/models/*.cpp load_arch_hparams.
"""

from kvplan.frozen import dataclass
from kvplan.gguf.names import SCORE_CORRECTED
from kvplan.model import ModelSpec, num_layers

# Every fourth layer is not rotated (hparams n_no_rope_layer_step).
NO_ROPE_ARCHS = frozenset(("llama4", "smollm3", "afmoe"))
NO_ROPE_STEP = 4
_SCALE_NAMES = (
    "routed_scaling_factor", "route_scale", "moe_routed_scaling_factor", "moe_router_scaling_factor",
)  # fmt: skip
_SECOND_NORMS = ("ffn_norm", "post_attention_layernorm")
BAICHUAN_7B_LAYERS = 32
# The first layers of some: those whose gate keeps only its largest values (n_layer_sparsity in
# src/models/gemma3n.cpp), those that add what a picture brings (n_deepstack_layers).
NUM_ODD_FIRST = {"gemma3n": 10, "qwen3vl": 3, "qwen3vlmoe": 3}
# Architectures that say for each layer how far activations may go (llama-graph.cpp build_ffn: from here on).
CLAMPED_ARCHS = frozenset(("step35",))
LEAST_LIMIT = 1e-6
# Routers that score by a sigmoid where nothing is said.
SIGMOID_ARCHS = frozenset(("afmoe", "laguna", "step35"))


@dataclass(frozen=True, slots=True)
class Routing:
    """What a model says of its router: scores by sigmoid, weights normalized, weights scaled, groups."""

    sigmoid: bool
    normed: bool
    scaled: bool
    num_groups: int = 0
    num_groups_used: int = 0


def routing_of(model: ModelSpec, arch: str) -> Routing:
    """Return how a model's router works."""

    def value(key: str, *names: str) -> object:
        found = (said_of(model, arch, key, name) for name in names)
        return next((each for each in found if each is not None), None)

    def whole(number: object) -> int:
        return number if isinstance(number, int) else 0

    scale = value("expert_weights_scale", *_SCALE_NAMES)
    gating = value("expert_gating_func", "scoring_func")
    sigmoid = gating in (2, "sigmoid") or (gating is None and arch in SIGMOID_ARCHS)
    sigmoid = sigmoid or model.model_type in SCORE_CORRECTED
    normed = value("expert_weights_norm", "norm_topk_prob", "route_norm", "moe_renormalize")
    # Configs that leave it out follow their class, and those with a sigmoid normalize; a file says so.
    usual = sigmoid and not model.gguf_metadata
    return Routing(
        sigmoid,
        usual if normed is None else bool(normed),
        scale not in (None, 0, 1),
        whole(value("expert_group_count", "n_group")),
        whole(value("expert_group_used_count", "topk_group")),
    )


def odd_layers(model: ModelSpec, arch: str, honours_window: bool) -> frozenset[int]:
    """Return the layers that an architecture treats in its own way (LayerShape.is_odd)."""
    layers = num_layers(model.structure)
    if arch in NO_ROPE_ARCHS:
        return frozenset(range(NO_ROPE_STEP - 1, layers, NO_ROPE_STEP))
    num_first = NUM_ODD_FIRST.get(arch, 0)
    match arch:
        case "smallthinker" if honours_window and layers != NO_ROPE_STEP:
            # src/models/smallthinker.cpp: counted from the first layer; all are rotated without a window.
            return frozenset(range(0, layers, NO_ROPE_STEP))
        case "baichuan":
            # Only the 7B is rotated (src/models/baichuan.cpp).
            num_first = 0 if layers == BAICHUAN_7B_LAYERS else layers
        case "falcon":
            names = {tensor.name for tensor in model.layers[0].layer.tensors}
            num_first = layers if any(name.startswith(("attn_norm_2", "ln_mlp")) for name in names) else 0
        case "stablelm":
            names = {tensor.name for tensor in model.layers[0].layer.tensors}
            num_first = 0 if any(name.startswith(_SECOND_NORMS) for name in names) else layers
        case "gptneox":
            parallel = said_of(model, arch, "use_parallel_residual", "use_parallel_residual", True)
            num_first = 0 if parallel else layers
    return frozenset(range(num_first))


def clamped_layers(model: ModelSpec, arch: str) -> tuple[frozenset[int], frozenset[int]]:
    """Return the layers with limits in the experts' activations, and in those of the other MLPs.

    src/models/step35.cpp: swiglu_clamp_exp and swiglu_clamp_shexp, one limit or one a layer.
    """
    if arch not in CLAMPED_ARCHS:
        return frozenset(), frozenset()
    layers = num_layers(model.structure)

    def clamped(key: str, name: str) -> frozenset[int]:
        limits = said_of(model, arch, key, name)
        each = tuple(limits) if isinstance(limits, tuple | list) else (limits,) * layers
        return frozenset(
            index
            for index, limit in enumerate(each[:layers])
            if isinstance(limit, int | float) and limit > LEAST_LIMIT
        )

    return clamped("swiglu_clamp_exp", "swiglu_limits"), clamped("swiglu_clamp_shexp", "swiglu_limits_shared")


def index_top_k_of(model: ModelSpec, arch: str) -> int:
    """Return how many cells an indexer chooses for each token, 0 without one."""
    count = said_of(model, arch, "attention.indexer.top_k", "index_topk")
    return count if isinstance(count, int) else 0


def said_of(model: ModelSpec, arch: str, key: str, name: str, default: object = None) -> object:
    """Return what a file's header says under ``key``, or a config under ``name``."""
    says = dict(model.gguf_metadata) if model.gguf_metadata else dict(model.config or {})
    return says.get(f"{arch}.{key}", says.get(name, default))
