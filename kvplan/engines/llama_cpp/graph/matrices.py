"""The bytes of a layer's matrices, for those that are copied to a card to be used there."""

from functools import lru_cache

from kvplan.dtypes import GGML_TYPES
from kvplan.engines.llama_cpp.graph.cuda import ROW_PADDING
from kvplan.engines.llama_cpp.graph.reading import FUSED_EXPERT_ARCHS
from kvplan.gguf.mix import sized_tensors
from kvplan.gguf.names import GgufTensor, llama_cpp_arch, num_experts_of
from kvplan.model import ModelSpec

# Hugging Face name (its end) -> name of the matrix in a GGUF file; experts and shared ones get a suffix.
_STEMS: tuple[tuple[str, str], ...] = (
    ("self_attn.gate_proj.weight", "attn_gate"),
    ("self_attn.gate.weight", "attn_gate"),
    ("self_attn.g_proj.weight", "attn_gate"),
    ("gate_up_proj.weight", "ffn_up"),
    ("gate_proj.weight", "ffn_gate"),
    ("up_proj.weight", "ffn_up"),
    ("down_proj.weight", "ffn_down"),
    ("qkv_proj.weight", "attn_qkv"),
    ("q_a_proj.weight", "attn_q_a"),
    ("q_b_proj.weight", "attn_q_b"),
    ("kv_a_proj_with_mqa.weight", "attn_kv_a_mqa"),
    ("q_proj.weight", "attn_q"),
    ("k_proj.weight", "attn_k"),
    ("v_proj.weight", "attn_v"),
    ("o_proj.weight", "attn_output"),
    ("in_proj_qkvz.weight", "attn_qkv"),
    ("in_proj_qkv.weight", "attn_qkv"),
    ("in_proj_z.weight", "attn_gate"),
    ("conv.in_proj.weight", "shortconv.in_proj"),
    ("conv.out_proj.weight", "shortconv.out_proj"),
    ("in_proj.weight", "ssm_in"),
    ("x_proj.weight", "ssm_x"),
    ("dt_proj.weight", "ssm_dt"),
    ("out_proj.weight", "ssm_out"),
    ("per_layer_input_gate.weight", "inp_gate"),
    ("per_layer_projection.weight", "proj"),
    ("laurel.linear_left.weight", "laurel_l"),
    ("laurel.linear_right.weight", "laurel_r"),
    ("altup.modality_router.weight", "altup_router"),
    ("altup.prediction_coefs.weight", "altup_predict_coef"),
    ("altup.correction_coefs.weight", "altup_correct_coef"),
    ("router.layer.weight", "ffn_gate_inp"),
    ("router.proj.weight", "ffn_gate_inp"),
    ("feed_forward.router.weight", "ffn_gate_inp"),
    (".gate.weight", "ffn_gate_inp"),
    ("shared_expert_gate.weight", "ffn_gate_inp_shexp"),
    ("indexer.wq_b.weight", "indexer.attn_q_b"),
    ("indexer.wk.weight", "indexer.attn_k"),
    ("indexer.weights_proj.weight", "indexer.proj"),
)
FUSED, _HALVES = "ffn_gate_up_exps", ("ffn_gate_exps", "ffn_up_exps")
_SUFFIX = {"expert": "_exps", "shared_expert": "_shexp"}


@lru_cache(maxsize=64)
def matrix_bytes(model: ModelSpec, mix: str) -> dict[tuple[int, str], int]:
    """Return the bytes that each layer's matrices take on a card, by (layer, GGUF name).

    The names are without ``blk.N.`` and ``.weight``. From the file's own table where it was read.
    """
    found: dict[tuple[int, str], int] = {}
    if model.gguf_metadata and model.stored and mix == model.weights_format:
        for stored in model.stored:
            block, _, rest = stored.name.removeprefix("blk.").partition(".")
            if stored.name.startswith("blk.") and rest.endswith(".weight") and block.isdigit():
                padded = _padded(stored.num_bytes, stored.dtype, stored.shape[0])
                found[int(block), rest.removesuffix(".weight")] = padded
        return found
    has_experts, fused = num_experts_of(model) > 0, llama_cpp_arch(model) in FUSED_EXPERT_ARCHS
    for layer, tensor, kind, num_bytes in sized_tensors(model, mix):
        stem = _stem(tensor, has_experts=has_experts)
        if layer >= 0 and stem is not None:
            if stem == "attn_k_b":
                stem = "attn_v_b" if (layer, "attn_k_b") in found else "attn_k_b"
            padded = _padded(num_bytes, kind, tensor.num_columns)
            if fused and stem in _HALVES:
                stem, padded = FUSED, padded + found.get((layer, FUSED), 0)
            found[layer, stem] = padded
    return found


@lru_cache(maxsize=64)
def output_bytes(model: ModelSpec, mix: str) -> int:
    """Return what the output projection takes on a card: its own matrix, or the embedding's where tied."""
    if model.gguf_metadata and model.stored and mix == model.weights_format:
        tables = {stored.name: stored for stored in model.stored}
        table = tables.get("output.weight", tables.get("token_embd.weight"))
        return 0 if table is None else _padded(table.num_bytes, table.dtype, table.shape[0])
    hidden = model.structure.hidden_size
    tied = own = 0
    for layer, tensor, kind, num_bytes in sized_tensors(model, mix):
        if layer < 0 and tensor.num_columns == hidden:
            padded = _padded(num_bytes, kind, hidden)
            if tensor.origin.role == "lm_head":
                own = own or padded
            elif tensor.origin.role == "embedding":
                tied = tied or padded
    return own or tied


def _stem(tensor: GgufTensor, *, has_experts: bool) -> str | None:
    origin = tensor.origin
    if origin.name.endswith("kv_b_proj.weight"):
        return "attn_kv_b" if tensor.category == "attn_v" else "attn_k_b"
    stem: str | None = tensor.category
    if tensor.category in ("other", "output", "token_embd"):
        stem = next((stem for ending, stem in _STEMS if origin.name.endswith(ending)), None)
    if stem is None or not stem.startswith("ffn_"):
        return stem
    if ".chunk_experts." in origin.name:
        return stem + "_chexps"
    # Granite's shared MLP is a plain one where there are no experts.
    return stem + (_SUFFIX.get(origin.role, "") if has_experts else "")


def _padded(num_bytes: int, kind: str, num_columns: int) -> int:
    block = GGML_TYPES[kind]
    if block.block_size == 1 or num_columns % ROW_PADDING == 0:
        return num_bytes
    missing = ROW_PADDING - num_columns % ROW_PADDING
    return num_bytes + block.row_bytes(missing // block.block_size * block.block_size)
