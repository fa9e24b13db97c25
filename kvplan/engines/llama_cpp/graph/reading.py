"""A model's layers as its graph needs them: widths, read from caches and tensors."""

from dataclasses import replace
from functools import lru_cache

from kvplan.engines.llama_cpp.cache import window_of
from kvplan.engines.llama_cpp.graph.built_of import is_built_of
from kvplan.engines.llama_cpp.graph.shapes import (
    Attention,
    Experts,
    FeedForward,
    Latent,
    LayerShape,
    ModelShape,
)
from kvplan.engines.llama_cpp.graph.traits import (
    clamped_layers,
    index_top_k_of,
    odd_layers,
    routing_of,
    said_of,
)
from kvplan.engines.llama_cpp.graph.uncached import Heads, attention_of, is_odd, windows_of
from kvplan.gguf.names import SCORE_CORRECTED, llama_cpp_arch
from kvplan.gguf.rope import rope_tables
from kvplan.layers import (
    RECURRENT_STATES,
    Cache,
    ChunkedAttention,
    FullAttention,
    LatentAttention,
    Layer,
    RwkvState,
    SharedCache,
    SlidingWindow,
)
from kvplan.model import ModelSpec, cache_kinds, expand_layers, num_layers
from kvplan.tensors import Tensor

_FUSED_QKV = (".qkv_proj.weight", ".query_key_value.weight", ".c_attn.weight", ".Wqkv.weight")
_QKV_BIASES = (".q_proj.bias", ".qkv_proj.bias", ".query_key_value.bias", ".c_attn.bias", ".Wqkv.bias")
_VALUES = (".v_proj.weight", *_FUSED_QKV)
_MIXES = ("time_mix_", "channel_mix_")
_KV_B = ("kv_b_proj.weight", "self_attn.kv_b.weight")
_INDEX_WEIGHTS = ("indexer.proj.weight", "indexer.weights_proj.weight")
_CHUNKS = ".chunk_experts."
_CORRECTIONS = ("mlp.gate.e_score_correction", "mlp.expert_bias")
_OUTPUT_GATES = ("self_attn.gate.weight", "self_attn.gate_proj.weight", "self_attn.g_proj.weight")
_OUT_BIASES = (".o_proj.bias", ".out_proj.bias", "self_attention.dense.bias", "self_attn.dense.bias")
# A factor an expert and one a layer, by the names of checkpoints and of files.
_EXPERT_SCALES = (".per_expert_scale", "ffn_down_exps.scale.weight", ".experts.*.down_proj.scale")
_LAYER_SCALES = ("layer_scalar", "layer_output_scale.weight")
# Architectures whose checkpoints keep a layer's factor as a buffer, which no config tells of.
LAYER_SCALED_ARCHS = frozenset(("gemma4",))
# Architectures whose graph asks for the tables of rotary factors (llama_model::get_rope_factors); others
# load them, if at all, for nothing.
ROPE_TABLE_ARCHS = frozenset(
    ("llama", "llama4", "mistral3", "arcee", "granite", "granitemoe", "granitehybrid", "exaone", "exaone4",
     "exaone-moe", "apertus", "phi3", "phimoe", "deci", "minicpm", "minicpm3", "nanbeige", "step35", "gemma4")
)  # fmt: skip
# Architectures whose converter keeps the experts' gate and up in one matrix (conversion/gemma.py).
FUSED_EXPERT_ARCHS = frozenset(("gemma4",))


# What is written for an architecture whose layers are not its own.
OTHER = "other"


@lru_cache(maxsize=128)
def model_shape(model: ModelSpec) -> ModelShape:
    """Return the widths that a model's graph has."""
    arch = llama_cpp_arch(model)
    # One object for each kind of layer: graphs compare layers by the hundred to find those that repeat.
    kinds: dict[tuple[int, bool, bool, bool, bool], LayerShape] = {}
    honours_window = window_of(cache_kinds(model), arch) > 0
    odd = odd_layers(model, arch, honours_window)
    limits, shared_limits = clamped_layers(model, arch)
    fused = arch in FUSED_EXPERT_ARCHS
    if model.gguf_metadata and model.stored:
        fused = any(".ffn_gate_up_exps." in stored.name for stored in model.stored)
    is_encoder = model.structure.kind == "encoder"
    windows = _windows_without_cache(model, arch) if is_encoder else ()
    shapes: list[LayerShape] = []
    for index, layer in enumerate(expand_layers(model)):
        is_windowed = is_encoder and windows[index]
        kind = (id(layer), index in odd, index in limits, index in shared_limits, is_windowed)
        if kind not in kinds:
            corrected = model.model_type in SCORE_CORRECTED
            shape = _layer_shape(layer, corrected=corrected, honours_window=honours_window, fused=fused)
            shape = _clamped(shape, experts=index in limits, others=index in shared_limits)
            scaled = shape.scaled or (arch in LAYER_SCALED_ARCHS and not model.stored)
            kinds[kind] = replace(shape, is_odd=index in odd, scaled=scaled)
            if is_encoder:
                kinds[kind] = _without_cache(kinds[kind], layer, model, arch, windowed=is_windowed)
        shapes.append(kinds[kind])
    hidden = model.structure.hidden_size
    per_layer = altup = 0
    for tensor in model.structure.tensors:
        if "per_layer_model_proj" in tensor.name:
            per_layer = tensor.shape[0] // len(shapes)
    for layer in expand_layers(model)[:1]:
        for tensor in layer.tensors:
            if "altup" in tensor.name and "router.weight" in tensor.name:
                altup = max(altup, tensor.shape[0])
    return ModelShape(
        # Of other layers than an architecture has the graph is not known.
        arch if is_built_of(arch, shapes) else OTHER,
        hidden,
        model.structure.vocab_size,
        tuple(shapes),
        len(shapes),
        routing_of(model, arch),
        per_layer,
        altup,
        arch in ROPE_TABLE_ARCHS and bool(rope_tables(model)),
        any("token_type" in tensor.name for tensor in model.structure.tensors),
        is_encoder,
        index_top_k_of(model, arch),
    )


def _windows_without_cache(model: ModelSpec, arch: str) -> tuple[bool, ...]:
    says = dict(model.gguf_metadata) if model.gguf_metadata else dict(model.config or {})
    return windows_of(arch, says, num_layers(model.structure))


def _without_cache(
    shape: LayerShape, layer: Layer, model: ModelSpec, arch: str, *, windowed: bool
) -> LayerShape:
    """Return a layer's shape with the attention that no cache tells of."""
    said = said_of(model, arch, "attention.key_length", "head_dim")
    heads = Heads(model.structure.num_attention_heads, said if isinstance(said, int) else 0)
    return replace(
        shape,
        attention=attention_of(layer, heads, windowed=windowed),
        is_odd=is_odd(layer, arch),
    )


def _clamped(shape: LayerShape, *, experts: bool, others: bool) -> LayerShape:
    if not experts and not others:
        return shape
    mlp, routed = shape.mlp, shape.experts
    return replace(
        shape,
        mlp=None if mlp is None else replace(mlp, clamped=others),
        experts=None if routed is None else replace(routed, clamped=experts, shared_clamped=others),
    )


def _layer_shape(layer: Layer, *, corrected: bool, honours_window: bool, fused: bool) -> LayerShape:
    state = next((cache for cache in layer.caches if isinstance(cache, RECURRENT_STATES)), None)
    attention = next((cache for cache in layer.caches if not isinstance(cache, RECURRENT_STATES)), None)
    return LayerShape(
        attention=_attention(attention, layer, honours_window) if attention is not None else None,
        state=state,
        dt_rank=_dt_rank(layer),
        mlp=_mlp(layer),
        experts=_experts(layer, corrected=corrected, fused=fused),
        scaled=any(tensor.name.endswith(_LAYER_SCALES) for tensor in layer.tensors),
        expanded=_expanded(attention, layer) if isinstance(attention, FullAttention) else None,
        widths=_mix_widths(layer) if isinstance(state, RwkvState) else (),
    )


def _expanded(cache: FullAttention, layer: Layer) -> Latent | None:
    """Return the latent that keys and values are expanded from before they are cached (MiniCPM3, PLM)."""
    joint = next((t for t in layer.tensors if t.name.endswith("kv_a_proj_with_mqa.weight")), None)
    raised = next((t for t in layer.tensors if t.name.endswith(_KV_B)), None)
    if joint is None or raised is None:
        return None
    rank = raised.shape[1]
    rope = joint.shape[0] - rank
    return Latent(
        cache.num_attention_heads,
        rank,
        rope,
        cache.head_dim - rope,
        cache.v_head_dim,
        _q_lora_rank(layer),
    )


def _mix_widths(layer: Layer) -> tuple[tuple[str, int], ...]:
    mixes = [tensor for tensor in layer.tensors if tensor.name.startswith(_MIXES)]
    return tuple((tensor.name.removesuffix(".weight"), tensor.shape[0]) for tensor in mixes)


def _q_lora_rank(layer: Layer) -> int:
    return next((t.shape[0] for t in layer.tensors if t.name.endswith("q_a_proj.weight")), 0)


def _attention(cache: Cache, layer: Layer, honours_window: bool) -> Attention | Latent | None:
    stores = not isinstance(cache, SharedCache)
    owner = cache.owner if isinstance(cache, SharedCache) else cache
    if isinstance(owner, LatentAttention):
        return Latent(
            owner.num_attention_heads,
            owner.kv_lora_rank,
            owner.qk_rope_head_dim,
            owner.qk_nope_head_dim,
            owner.v_head_dim,
            _q_lora_rank(layer),
            next((t.shape[0] for t in layer.tensors if t.name.endswith(_INDEX_WEIGHTS)), 0),
            owner.index_head_dim,
        )
    if not isinstance(owner, FullAttention | SlidingWindow | ChunkedAttention):
        return None
    return Attention(
        owner.num_attention_heads,
        owner.num_key_value_heads,
        owner.head_dim,
        owner.v_head_dim,
        windowed=honours_window and not isinstance(owner, FullAttention),
        stores=stores,
        fused_qkv=any(tensor.name.endswith(_FUSED_QKV) for tensor in layer.tensors),
        qkv_bias=any(tensor.name.endswith(_QKV_BIASES) for tensor in layer.tensors),
        out_bias=any(tensor.name.endswith(_OUT_BIASES) for tensor in layer.tensors),
        sinks=any("sinks" in tensor.name for tensor in layer.tensors),
        keys_are_values=stores and not any(tensor.name.endswith(_VALUES) for tensor in layer.tensors),
        gate_width=next((t.shape[0] for t in layer.tensors if t.name.endswith(_OUTPUT_GATES)), 0),
        qk_normed=any("q_norm" in tensor.name for tensor in layer.tensors),
    )


def _of_role(layer: Layer, role: str) -> list[Tensor]:
    return [tensor for tensor in layer.tensors if tensor.role == role and tensor.name.endswith(".weight")]


def _mlp(layer: Layer) -> FeedForward | None:
    role = "mlp" if _of_role(layer, "expert") or _of_role(layer, "mlp") else "shared_expert"
    matrices = [tensor for tensor in _of_role(layer, role) if len(tensor.shape) == 2]
    ups = [tensor for tensor in matrices if tensor.split == "out"]
    if not ups:
        return None
    fused = any("gate_up" in tensor.name for tensor in ups)
    down = next((tensor for tensor in matrices if tensor.split == "in"), None)
    if down is not None:
        fused = fused or ups[0].shape[0] == 2 * down.shape[1]
    width = down.shape[1] if down is not None else ups[0].shape[0]
    return FeedForward(width, gated=fused or len(ups) > 1, fused=fused)


def _experts(layer: Layer, *, corrected: bool, fused: bool) -> Experts | None:
    matrices = [tensor for tensor in _of_role(layer, "expert") if len(tensor.shape) == 2]
    chunks = [tensor for tensor in matrices if _CHUNKS in tensor.name and tensor.split == "in"]
    routed = [tensor for tensor in matrices if _CHUNKS not in tensor.name]
    if not routed:
        return None
    down = next((tensor for tensor in routed if tensor.split == "in"), routed[-1])
    shared = [tensor for tensor in _of_role(layer, "shared_expert") if tensor.split == "in"]
    return Experts(
        num=down.count,
        num_used=down.num_active or 1,
        width=down.shape[1],
        gated=len(routed) > 2 or any("gate_up" in tensor.name for tensor in routed),
        biased=any(tensor.role == "expert" and tensor.name.endswith(".bias") for tensor in layer.tensors),
        corrected=corrected or any(tensor.name.startswith(_CORRECTIONS) for tensor in layer.tensors),
        shared=shared[0].shape[1] if shared else 0,
        shared_gate=any("shared_expert_gate" in tensor.name for tensor in layer.tensors),
        fused=fused,
        scaled=any(tensor.name.endswith(_EXPERT_SCALES) for tensor in layer.tensors),
        num_chunks=chunks[0].count if chunks else 0,
        chunk_width=chunks[0].shape[1] if chunks else 0,
    )


def _dt_rank(layer: Layer) -> int:
    for tensor in layer.tensors:
        if tensor.name.endswith(("dt_proj.weight", "ssm_dt.weight")) and len(tensor.shape) == 2:
            return tensor.shape[1]
    return 0
