"""vLLM: the activation peak of the profile run on one rank.

vLLM 0.33 v1/worker/gpu_model_runner.py: a forward pass over ``max_num_batched_tokens`` dummy tokens,
then the sampler over ``max_num_seqs`` rows of logits on the last pipeline stage (see ``sampler``); the
larger counts. Beside the sampler's lie the pass's last hidden states, the rows sampled from, picked and
made up (``_dummy_sampler_run``), and cuBLAS's workspace. Fused experts keep their workspace through both
(layers/fused_moe, ``workspace_shapes``), sparse latent attention its prefill buffer
(v1/attention/backends/mla/indexer.py). Multimodal models also encode their largest item. Nothing of it
is fitted; how far logs lie from it: see ``_vllm_calibration``.
"""

from functools import lru_cache

from kvplan.dtypes import DTYPE_BYTES
from kvplan.engines import _vllm_calibration as fit
from kvplan.engines.vllm.pages import indexer_bytes
from kvplan.engines.vllm.sampler import COUNTS_PER_MASK, Held, workspace_bytes
from kvplan.frozen import dataclass
from kvplan.layers import CompressedAttention, LatentAttention
from kvplan.model import ModelSpec, cache_kinds
from kvplan.quantity import Quantity
from kvplan.units import GIB
from kvplan.weight_formats import weight_format

# (576 x 2) // 132 rows of an index key a token of context, times the default factor of 5.
PREFILL_ROWS_PER_TOKEN = 40
FORWARD_WIDTHS, FORWARD_HIDDENS = 3, 4
# Formats and the classes of card whose expert kernels bring no workspace of their own: Triton's and
# TensorRT-LLM's for 4 bits. Elsewhere Marlin's runs (fused_moe/experts/marlin_moe.py), which does.
WITHOUT_WORKSPACE: dict[str, tuple[str, ...]] = {
    "mxfp4": ("hopper", "blackwell", "amd"),
    "nvfp4": ("blackwell",),
}
SAMPLED_ROWS = 2
# Encoders pool instead (``_dummy_pooler_run``): hidden states in fp32, normalized, up to twice.
POOLED_HIDDENS = 4
MULTIMODAL_HIDDENS = 2
# Formats that quantize activations to 8 bits keep that copy beside the 16-bit one.
EIGHT_BIT_FAMILIES = ("fp8", "int8")


@dataclass(frozen=True, slots=True)
class Terms:
    """The sizes that the peak is made of, in bytes.

    ``logits`` are fp32 rows of the vocabulary, one a sequence, ``row`` is one of them, ``own_logits``
    the same in the model's type, ``sampled`` the hidden states they come from, ``hidden`` one row of
    the hidden size a batched token, ``forward`` the widest layer's pass, ``experts`` the fused experts'
    workspace, ``prefill`` the sparse attention's buffer.
    """

    logits: int
    row: int
    own_logits: int
    sampled: int
    hidden: int
    forward: int
    experts: int
    prefill: int


@lru_cache(maxsize=4096)
def terms_of(
    model: ModelSpec,
    format_name: str,
    max_num_seqs: int,
    max_num_batched_tokens: int,
    tensor: int,
    dtype: str,
    expert_ranks: int,
    kernels: str,
) -> Terms:
    """Return the sizes for one rank of a class of card; ``prefill`` is of one token of context."""
    structure, width = model.structure, DTYPE_BYTES[dtype]
    rows = max_num_seqs * structure.vocab_size
    inner = _intermediate(model) // tensor
    tokens, hidden = max_num_batched_tokens, structure.hidden_size
    forward = tokens * width * (FORWARD_WIDTHS * inner + FORWARD_HIDDENS * hidden)
    if weight_format(format_name).family in EIGHT_BIT_FAMILIES:
        forward += tokens * (inner + hidden)
    return Terms(
        logits=rows * 4,
        row=structure.vocab_size * 4,
        own_logits=rows * width,
        sampled=SAMPLED_ROWS * max_num_seqs * hidden * width,
        hidden=tokens * hidden * width,
        forward=forward,
        experts=0
        if kernels in WITHOUT_WORKSPACE.get(format_name, ())
        else _expert_workspace(model, tokens, tensor, width, expert_ranks),
        prefill=_prefill_row_bytes(model),
    )


def activations(
    terms: Terms,
    model: ModelSpec,
    context_tokens: int,
    held: Held,
    kernels: str,
    *,
    samples: bool,
    sees: bool = True,
) -> Quantity:
    """Return the peak, between the residuals of the logs.

    Encoders pool instead of sampling. ``held`` is what the sampler holds and ``kernels`` the class of
    card; ``samples`` is false on pipeline stages before the last, whose peak is the forward pass alone;
    ``sees`` where images or sound are encoded.
    """
    pools = model.structure.kind == "encoder"
    samples = samples and not pools
    kept = terms.experts + terms.prefill * context_tokens
    if held.counts_are_kept and samples:
        kept += terms.logits + terms.logits // COUNTS_PER_MASK
    forward = terms.forward + kept
    beside = terms.hidden + workspace_bytes(kernels) + terms.sampled + terms.own_logits + kept
    least, expected, worst = (
        max(alive * terms.logits // 1000 + rows * terms.row + beside if samples else 0, forward)
        for alive, rows in zip((held.low, held.expected, held.high), held.rows, strict=True)
    )
    low = least - max(fit.LOW_BYTES, least * fit.LOW_PER_MILLE // 1000)
    high = worst + max(fit.HIGH_BYTES, worst * fit.HIGH_PER_MILLE // 1000)
    basis = held.basis
    if pools:
        expected += POOLED_HIDDENS * terms.hidden // 2
        high += POOLED_HIDDENS * terms.hidden
        basis = "assumed"
    if sees and has_towers(model):
        expected += MULTIMODAL_HIDDENS * terms.hidden
        high += MULTIMODAL_HIDDENS * terms.hidden + _tower_high_bytes(model)
    if any(isinstance(cache, CompressedAttention) for cache, _ in cache_kinds(model)):
        high += fit.COMPRESSED_HIGH_BYTES
        basis = "assumed"
    return Quantity(max(0, low), expected, max(high, expected), basis, fit.ACTIVATION_WHY)


@lru_cache(maxsize=1024)
def _intermediate(model: ModelSpec) -> int:
    """Return the widest MLP's width; fused projections hold it twice."""
    widths = [
        tensor.shape[0] // (2 if "gate_up" in tensor.name else 1)
        for group in model.layers
        for tensor in group.layer.tensors
        if tensor.role in ("mlp", "shared_expert") and tensor.split == "out" and len(tensor.shape) == 2
    ]
    return max(widths, default=0)


def _expert_workspace(model: ModelSpec, num_tokens: int, tensor: int, width: int, expert_ranks: int) -> int:
    """Return what every routed token keeps: both projections' outputs, each shared with the hidden row.

    layers/fused_moe/experts/triton_moe.py, cutlass_moe.py and marlin_moe.py: ``max(I, K)`` and
    ``max(2 I, K)`` a token and expert.
    """
    for group in reversed(model.layers):
        for part in group.layer.tensors:
            if part.role == "expert" and part.split == "in":
                inner = part.shape[1] // (1 if expert_ranks > 1 else tensor) or 1
                routed = num_tokens * (part.num_active or 1)
                return routed * width * (max(2 * inner, part.shape[0]) + max(inner, part.shape[0]))
    return 0


@lru_cache(maxsize=512)
def _prefill_row_bytes(model: ModelSpec) -> int:
    for cache, _ in cache_kinds(model):
        if isinstance(cache, LatentAttention) and cache.index_head_dim:
            return PREFILL_ROWS_PER_TOKEN * indexer_bytes(cache.index_head_dim)
    return 0


@lru_cache(maxsize=512)
def has_towers(model: ModelSpec) -> bool:
    """Tell whether the model sees or hears."""
    return any(tensor.role in ("vision", "audio") for tensor in model.structure.tensors)


@lru_cache(maxsize=512)
def _tower_high_bytes(model: ModelSpec) -> int:
    """Return how much encoding the largest item may take: more where the image decides its size."""
    config = model.config or {}
    vision = config.get("vision_config")
    if isinstance(vision, dict) and not vision.get("image_size"):
        return fit.DYNAMIC_TOWER_HIGH_BYTES
    return GIB
