"""A model's tensors as llama.cpp's converter writes them: categories, rows, columns, order.

The quantizer's rules go by a tensor's name in the file. Here Hugging Face names become the
categories those names fall into (llama.cpp src/llama-quant.cpp tensor_get_category,
gguf-py/gguf/tensor_mapping.py); what the converter adds (rope frequencies, routers' score
corrections) and splits (MLA's joint projection) is added and split.
"""

from collections.abc import Iterator
from functools import lru_cache
from math import prod
from typing import Literal

from kvplan.frozen import dataclass
from kvplan.gguf.rope import rope_tables
from kvplan.layers import GatedDeltaState, LatentAttention, Layer, SharedCache
from kvplan.model import ModelSpec
from kvplan.tensors import Tensor

Category = Literal[
    "output",
    "token_embd",
    "attn_q",
    "attn_k",
    "attn_v",
    "attn_qkv",
    "attn_output",
    "ffn_gate",
    "ffn_up",
    "ffn_down",
    "other",
]


@dataclass(frozen=True, slots=True, eq=False)
class GgufTensor:
    """One tensor of the file: ``num_matrices`` matrices of ``num_rows`` x ``num_columns``.

    ``is_quantizable`` follows the quantizer's own test;
    ``keeps_half`` marks matrices it leaves as the 16-bit file had them. ``kept_type`` is the type a
    file that was read has, which what is not quantized keeps; ``origin`` then carries the file's name.
    """

    origin: Tensor
    category: Category
    num_columns: int
    num_rows: int
    num_matrices: int
    is_quantizable: bool
    keeps_half: bool = False
    is_expert: bool = False
    kept_type: str = ""


# model_type -> the architecture name in a GGUF header, where the rules or layouts ask for it.
ARCH_OF_TYPE: dict[str, str] = {
    "bailing_hybrid": "bailingmoe2",
    "camembert": "bert",
    "cohere": "command-r",
    "deepseek_ref": "deepseek4",
    "deepseek_v2": "deepseek2",
    "deepseek_v3": "deepseek2",
    "deepseek_v32": "deepseek32",
    "deepseek_v4": "deepseek4",
    "distilbert": "bert",
    "falcon_h1": "falcon-h1",
    "falcon_mamba": "mamba",
    "gemma3_text": "gemma3",
    "gemma3n_text": "gemma3n",
    "gemma4_text": "gemma4",
    "glm": "chatglm",
    "glm4_moe": "glm4moe",
    "glm4_moe_lite": "deepseek2",
    "glm4v_moe_text": "glm4moe",
    "glm4v_text": "glm4",
    "glm_moe_dsa": "glm-dsa",
    "gpt_bigcode": "starcoder",
    "gpt_neox": "gptneox",
    "gpt_oss": "gpt-oss",
    "granitemoehybrid": "granitehybrid",
    "hunyuan_v1_dense": "hunyuan-dense",
    "kimi_k2": "deepseek2",
    "kimi_k25": "deepseek2",
    "kimi_linear": "kimi-linear",
    "lfm2_moe": "lfm2moe",
    "llama4_text": "llama4",
    "mimo_v2_flash": "mimo2",
    "minimax_m2": "minimax-m2",
    "modernbert": "modern-bert",
    "neobert": "neo-bert",
    "nomic_bert": "nomic-bert",
    "roberta": "bert",
    "xlm-roberta": "bert",
    "ministral": "llama",
    "ministral3": "mistral3",
    "ministral3_text": "mistral3",
    "mistral": "llama",
    "mixtral": "llama",
    "nemotron-nas": "deci",
    "olmo3": "olmo2",
    "phi-msft": "phi2",
    "phi": "phi2",
    "qwen2_5_vl": "qwen2vl",
    "qwen2_5_vl_text": "qwen2vl",
    "qwen2_moe": "qwen2moe",
    "qwen2_vl": "qwen2vl",
    "qwen2_vl_text": "qwen2vl",
    "qwen3_5": "qwen35",
    "qwen3_5_moe": "qwen35moe",
    "qwen3_5_moe_text": "qwen35moe",
    "qwen3_5_text": "qwen35",
    "qwen3_moe": "qwen3moe",
    "qwen3_next": "qwen3next",
    "qwen3_vl": "qwen3vl",
    "qwen3_vl_moe": "qwen3vlmoe",
    "qwen3_vl_moe_text": "qwen3vlmoe",
    "qwen3_vl_text": "qwen3vl",
    "step3p5": "step35",
    "yi": "llama",
}
# Routers with a learned score correction, a buffer in transformers but a tensor in the file.
SCORE_CORRECTED = frozenset(
    ("deepseek_v3", "kimi_k2", "kimi_k25", "deepseek_v32", "glm_moe_dsa", "glm4_moe", "minimax_m2")
)
# EmbeddingGemma: Gemma 3 whose tokens see all others.
BIDIRECTIONAL_GEMMAS = frozenset(("gemma3", "gemma3_text"))
# Heads of BERT's training that its converter leaves out (conversion/bert.py).
NOT_CONVERTED = ("pooler.", "cls.")
NOT_IN_FILE_ROLES = frozenset(("vision", "audio", "projector", "mtp"))

_SUFFIXES: tuple[tuple[str, Category], ...] = (
    ("self_attn.gate_proj.weight", "other"),
    (".q_proj.weight", "attn_q"),
    (".k_proj.weight", "attn_k"),
    (".v_proj.weight", "attn_v"),
    (".qkv_proj.weight", "attn_qkv"),
    (".query_key_value.weight", "attn_qkv"),
    (".c_attn.weight", "attn_qkv"),
    (".Wqkv.weight", "attn_qkv"),
    (".in_proj_qkv.weight", "attn_qkv"),
    (".o_proj.weight", "attn_output"),
    (".out_proj.weight", "attn_output"),
    (".dense.weight", "attn_output"),
    (".gate_up_proj.weight", "ffn_up"),
    (".gate_proj.weight", "ffn_gate"),
    (".up_proj.weight", "ffn_up"),
    (".down_proj.weight", "ffn_down"),
    ("shared_mlp.output_linear.weight", "ffn_down"),
    (".fc1.weight", "ffn_up"),
    (".fc2.weight", "ffn_down"),
    (".c_fc.weight", "ffn_up"),
    ("mlp.w1.weight", "ffn_up"),
    ("mlp.w2.weight", "ffn_gate"),
    (".dense_h_to_4h.weight", "ffn_up"),
    (".dense_4h_to_h.weight", "ffn_down"),
)
_QKV: tuple[Category, ...] = ("attn_q", "attn_k", "attn_v")
_BY_PLACE: dict[tuple[str, str], Category] = {
    ("attention", "in"): "attn_output",
    ("mlp", "in"): "ffn_down",
    ("mlp", "out"): "ffn_up",
}
# Matrices the quantizer leaves alone although they are weights of two dimensions.
_NEVER = ("conv1d", "short_conv.conv", "altup", "laurel", "per_layer_model_projection", "rel_pos", "A_log")
_HALF = ("altup_", "altup.modality_router", "laurel", "per_layer_model_projection")


def llama_cpp_arch(model: ModelSpec) -> str:
    """Return the architecture name that the model's GGUF header would carry."""
    if model.structure.kind == "encoder" and model.model_type in BIDIRECTIONAL_GEMMAS:
        return "gemma-embedding"
    return ARCH_OF_TYPE.get(model.model_type, model.model_type)


_PARTS: tuple[tuple[str, str], ...] = (
    ("gate_up_proj", "gate_up"), ("gate_proj", "gate"), ("up_proj", "up"), ("down_proj", "down"),
    ("w1", "gate"), ("w3", "up"), ("w2", "down"),
)  # fmt: skip


def file_name(tensor: GgufTensor, layer: int) -> str:
    """Return a tensor's name in the file, as ``--override-tensor`` patterns see it.

    Where gguf-py's name is not known here the checkpoint's own stands in its place.
    """
    name = tensor.origin.name
    if tensor.kept_type:
        return name
    if layer < 0:
        return {"output": "output.weight", "token_embd": "token_embd.weight"}.get(tensor.category, name)
    if tensor.origin.role == "router":
        return f"blk.{layer}.ffn_gate_inp.weight"
    if tensor.is_expert or tensor.origin.role == "shared_expert":
        part = next((short for long, short in _PARTS if f".{long}" in name), "up")
        return f"blk.{layer}.ffn_{part}_{'exps' if tensor.is_expert else 'shexp'}.weight"
    if tensor.category != "other":
        return f"blk.{layer}.{tensor.category}.weight"
    return f"blk.{layer}.{name}"


def num_experts_of(model: ModelSpec) -> int:
    """Return the number of routed experts, 0 for a dense model."""
    counts = [
        tensor.count for group in model.layers for tensor in group.layer.tensors if tensor.role == "expert"
    ]
    return max(counts, default=0)


def num_gqa(model: ModelSpec) -> int:
    """Return the query heads per KV head of the first layer, as the quantizer reads it (MLA: all).

    A hybrid's header counts no KV heads at a recurrent layer, except where it has one number for all.
    """
    layer = model.layers[0].layer
    if any(isinstance(cache, GatedDeltaState) for cache in layer.caches):
        layer = next((group.layer for group in model.layers if _has_heads(group.layer)), layer)
    for cache in layer.caches:
        if isinstance(cache, LatentAttention):
            return cache.num_attention_heads
        if hasattr(cache, "num_key_value_heads") and hasattr(cache, "num_attention_heads"):
            kv_heads: int = cache.num_key_value_heads
            heads: int = cache.num_attention_heads
            return heads // kv_heads if kv_heads else 0
    return 0


def _has_heads(layer: Layer) -> bool:
    return any(hasattr(cache, "num_key_value_heads") for cache in layer.caches)


@lru_cache(maxsize=4096)
def layer_tensors(layer: Layer, *, score_corrected: bool) -> tuple[GgufTensor, ...]:
    """Return the tensors of one layer, in the file's order."""
    made: list[GgufTensor] = []
    # The quantizer goes by name: ffn_down_exps before ffn_down_shexp.
    for tensor in sorted(layer.tensors, key=lambda tensor: tensor.role == "shared_expert"):
        if tensor.role not in NOT_IN_FILE_ROLES:
            made += _in_layer(tensor, layer)
    if score_corrected:
        made += _score_correction(layer)
    return tuple(made)


def gguf_tensors(model: ModelSpec) -> Iterator[tuple[int, tuple[GgufTensor, ...]]]:
    """Yield (layer, its tensors) in the quantizer's order: those outside the layers (layer -1) last.

    Layers of a kind share one tuple.
    """
    corrected = model.model_type in SCORE_CORRECTED
    index = 0
    for group in model.layers:
        tensors = layer_tensors(group.layer, score_corrected=corrected)
        for _ in range(group.count):
            yield index, tensors
            index += 1
    outside = [
        _plain(tensor)
        for tensor in model.structure.tensors
        if tensor.role not in NOT_IN_FILE_ROLES and not tensor.name.startswith(NOT_CONVERTED)
    ]
    yield -1, (*outside, *_rope_frequencies(model))


def _in_layer(tensor: Tensor, layer: Layer) -> Iterator[GgufTensor]:
    if tensor.name.endswith("kv_b_proj.weight"):
        cache = next((cache for cache in layer.caches if isinstance(cache, LatentAttention)), None)
        if cache is None:
            # Where whole heads are cached the matrix stays whole, and ranks as values do.
            columns = tensor.shape[-1]
            yield GgufTensor(tensor, "attn_v", columns, tensor.shape[0], 1, is_quantizable=True)
            return
        heads, rank = cache.num_attention_heads, cache.kv_lora_rank
        # k_b is stored transposed, so that its rows are a head's unrotated part.
        yield GgufTensor(tensor, "other", cache.qk_nope_head_dim, rank, heads, is_quantizable=True)
        yield GgufTensor(tensor, "other", rank, cache.v_head_dim, heads, is_quantizable=True)
        return
    if tensor.name.endswith("in_proj_qkvz.weight"):
        # The converter parts Qwen3-Next's joint projection into attn_qkv and attn_gate.
        delta = next(cache for cache in layer.caches if isinstance(cache, GatedDeltaState))
        values = delta.num_v_heads * delta.head_v_dim
        columns = tensor.shape[-1]
        yield GgufTensor(tensor, "attn_qkv", columns, tensor.shape[0] - values, 1, is_quantizable=True)
        yield GgufTensor(tensor, "other", columns, values, 1, is_quantizable=True)
        return
    if tensor.name.endswith("W_pack.weight"):
        # Baichuan's joint projection: three tensors of as many rows in the file.
        third, columns = tensor.shape[0] // 3, tensor.shape[-1]
        for category in _QKV:
            yield GgufTensor(tensor, category, columns, third, 1, is_quantizable=True)
        return
    if tensor.name == "shared_mlp.input_linear.weight":
        # Granite's shared MLP: gate and up are tensors of their own in the file.
        half, columns = tensor.shape[0] // 2, tensor.shape[-1]
        yield GgufTensor(tensor, "ffn_gate", columns, half, 1, is_quantizable=True)
        yield GgufTensor(tensor, "ffn_up", columns, tensor.shape[0] - half, 1, is_quantizable=True)
        return
    yield _plain(tensor)
    if tensor.name == "self_attn.q_norm.weight" and any(isinstance(c, SharedCache) for c in layer.caches):
        yield from _unused_keys_and_values(layer)


def _unused_keys_and_values(layer: Layer) -> Iterator[GgufTensor]:
    """Yield K and V of a layer that reads another's cache: files hold them (src/models/gemma3n.cpp)."""
    queries = next(t for t in layer.tensors if t.name == "self_attn.q_proj.weight")
    cache = next(cache for cache in layer.caches if isinstance(cache, SharedCache)).owner
    columns = queries.shape[-1]
    unused: tuple[tuple[str, Category, int], ...] = (
        ("k", "attn_k", cache.head_dim),
        ("v", "attn_v", cache.v_head_dim),
    )
    for name, category, head_dim in unused:
        rows = cache.num_key_value_heads * head_dim
        origin = Tensor(f"self_attn.{name}_proj.weight", (rows, columns), "attention", split="kv")
        yield GgufTensor(origin, category, columns, rows, 1, is_quantizable=True)
    norm = Tensor("self_attn.k_norm.weight", (cache.head_dim,), "norm")
    yield GgufTensor(norm, "other", cache.head_dim, 1, 1, is_quantizable=False)


def _plain(tensor: Tensor) -> GgufTensor:
    return GgufTensor(
        origin=tensor,
        category=_category(tensor),
        num_columns=tensor.shape[-1],
        num_rows=prod(tensor.shape[:-1]),
        num_matrices=tensor.count,
        is_quantizable=_is_quantizable(tensor),
        keeps_half=any(part in tensor.name for part in _HALF) and len(tensor.shape) > 1,
        is_expert=tensor.role == "expert",
    )


def _category(tensor: Tensor) -> Category:
    if tensor.role == "lm_head":
        return "output"
    if tensor.role == "embedding":
        return "token_embd"
    if tensor.role in ("recurrent", "router"):
        return "attn_qkv" if tensor.name.endswith(".in_proj_qkv.weight") else "other"
    for suffix, category in _SUFFIXES:
        if tensor.name.endswith(suffix):
            return category
    # Other checkpoints' own names (c_proj, Wo …): what leads back to the hidden size, and what leaves it.
    return _BY_PLACE.get((tensor.role, tensor.split), "other") if _is_matrix(tensor) else "other"


def _is_matrix(tensor: Tensor) -> bool:
    return tensor.name.endswith(".weight") and len(tensor.shape) > 1


def _is_quantizable(tensor: Tensor) -> bool:
    if tensor.role in ("norm", "router", "position_embedding") or not tensor.name.endswith(".weight"):
        return False
    return not (len(tensor.shape) < 2 or tensor.shape[0] == 1 or any(part in tensor.name for part in _NEVER))


def _score_correction(layer: Layer) -> Iterator[GgufTensor]:
    experts = max((tensor.count for tensor in layer.tensors if tensor.role == "expert"), default=0)
    if experts:
        origin = Tensor("mlp.gate.e_score_correction_bias", (experts,), "router")
        yield GgufTensor(origin, "other", experts, 1, 1, is_quantizable=False)


def _rope_frequencies(model: ModelSpec) -> Iterator[GgufTensor]:
    """Yield the tables that scaled rotations need: fp32, a factor each two elements of a head."""
    for name, count in rope_tables(model):
        yield GgufTensor(Tensor(name, (count,), "other"), "other", count, 1, 1, is_quantizable=False)
