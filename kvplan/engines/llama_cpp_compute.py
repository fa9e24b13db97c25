"""llama.cpp's compute buffers: what one micro-batch's graph needs at its widest point.

A closed form of the phases that compete for the buffer (attention, feed-forward or experts, logits),
each with the tensors alive in it; llama.cpp's allocator reuses the rest. It is exact for dense
models and low for some mixtures and hybrids, whose graphs fragment: the interval covers what 2,612
breakdowns printed by llama.cpp itself show. Flash attention keeps masks in fp16, and dequantizes a
quantized cache into fp16 scratch on CUDA (ggml-cuda/fattn-common.cuh).
"""

from dataclasses import dataclass
from functools import lru_cache

from kvplan.engines.llama_cpp_cache import Cells
from kvplan.layers import (
    RECURRENT_STATES,
    ChunkedAttention,
    FullAttention,
    LatentAttention,
    SlidingWindow,
)
from kvplan.model import ModelSpec, layer_kinds
from kvplan.quantity import Quantity

FLOAT32_BYTES = 4
# How far measured buffers lie from the closed form, per kind of graph: (below, above) in percent.
DENSE_MARGIN = (6, 12)
EXPERTS_MARGIN = (20, 60)
HYBRID_MARGIN = (30, 60)
WHY = "closed form; interval from llama.cpp's own breakdowns of 34 model shapes"


@dataclass(frozen=True, slots=True)
class GraphShape:
    """The widths that size the buffers.

    ``query`` is heads x head_dim, ``key_value`` KV heads x head_dim, ``feed_forward`` the widest
    dense MLP, ``expert`` and ``num_used`` the routed ones, ``latent_heads`` > 0 for MLA.
    """

    hidden: int
    query: int
    key_value: int
    heads: int
    feed_forward: int
    fused_gate: bool
    expert: int
    num_used: int
    vocab: int
    latent_row: int
    latent_rank: int
    latent_heads: int
    has_states: bool
    has_window: bool


@lru_cache(maxsize=512)
def graph_shape(model: ModelSpec) -> GraphShape:
    """Read a model's widths from its layers."""
    structure = model.structure
    query = key_value = heads = feed_forward = expert = used = 0
    latent_row = latent_rank = latent_heads = 0
    fused = has_states = has_window = False
    for layer, _ in layer_kinds(model):
        for cache in layer.caches:
            if isinstance(cache, FullAttention | SlidingWindow | ChunkedAttention):
                query = max(query, cache.num_attention_heads * cache.head_dim)
                key_value = max(key_value, cache.num_key_value_heads * cache.head_dim)
                heads = max(heads, cache.num_attention_heads)
                has_window = has_window or not isinstance(cache, FullAttention)
            elif isinstance(cache, LatentAttention):
                latent_row = cache.kv_lora_rank + cache.qk_rope_head_dim
                latent_rank, latent_heads = cache.kv_lora_rank, cache.num_attention_heads
                query = cache.num_attention_heads * (cache.qk_nope_head_dim + cache.qk_rope_head_dim)
                heads = cache.num_attention_heads
            elif isinstance(cache, RECURRENT_STATES):
                has_states = True
        for tensor in layer.tensors:
            if tensor.role == "expert" and tensor.split == "out":
                expert, used = tensor.shape[0], tensor.num_active or 1
            elif tensor.role == "mlp" and tensor.split == "out" and len(tensor.shape) == 2:
                fused = tensor.name.endswith("gate_up_proj.weight")
                width = tensor.shape[0] // 2 if fused else tensor.shape[0]
                feed_forward = max(feed_forward, width)
    return GraphShape(
        structure.hidden_size, query, key_value, heads, feed_forward, fused, expert, used,
        structure.vocab_size, latent_row, latent_rank, latent_heads, has_states, has_window,
    )  # fmt: skip


def compute_buffers(
    model: ModelSpec,
    cells: Cells,
    *,
    n_ubatch: int,
    num_outputs: int,
    flash_attn: bool,
    quantized_cache: tuple[bool, bool],
) -> tuple[Quantity, Quantity]:
    """Return (device, host) compute buffers of one context on one device.

    ``quantized_cache`` says for keys and values whether they are neither fp16 nor fp32.
    """
    return _buffers(model, cells, n_ubatch, num_outputs, flash_attn, quantized_cache)


@lru_cache(maxsize=8192)
def _buffers(
    model: ModelSpec,
    cells: Cells,
    n_ubatch: int,
    num_outputs: int,
    flash_attn: bool,
    quantized_cache: tuple[bool, bool],
) -> tuple[Quantity, Quantity]:
    shape = graph_shape(model)
    tokens = n_ubatch
    per_token = FLOAT32_BYTES * tokens
    windowed = cells.window if shape.has_window else 0
    mask = (cells.full + windowed) * tokens * (2 if flash_attn else 4)
    phases = [per_token * (2 * shape.hidden + shape.query) + mask]
    if shape.feed_forward:
        inputs = 2 * shape.hidden + (0 if shape.fused_gate else shape.query)
        phases.append(per_token * (inputs + 3 * shape.feed_forward) + mask)
    if shape.expert:
        used = shape.num_used
        phases.append(per_token * (3 * used * shape.expert + 2 * shape.hidden + shape.query) + mask)
        phases.append(per_token * (2 * used * shape.hidden + 3 * shape.hidden + shape.query) + mask)
    phases.append(_attention(shape, cells, per_token, mask, flash_attn, quantized_cache))
    outputs = min(tokens, num_outputs)
    phases.append(FLOAT32_BYTES * (outputs * shape.vocab + tokens * shape.hidden))
    expected = max(phases)
    host = per_token * 2 * shape.hidden + mask
    below, above = _margin(shape)
    # Where attention and feed-forward run side by side, the scratch may come on top of the widest phase.
    rows = 2 * (cells.full + windowed) * cells.num_streams * (shape.latent_row or shape.key_value)
    on_top = max(phases) + rows * sum(quantized_cache) if flash_attn else 0
    high = max(expected + expected * above // 100, on_top)
    device = Quantity(expected - expected * below // 100, expected, high, "calibrated", WHY)
    return device, Quantity(host * 9 // 10, host, host * 12 // 10, "calibrated", WHY)


def _attention(
    shape: GraphShape,
    cells: Cells,
    per_token: int,
    mask: int,
    flash_attn: bool,
    quantized_cache: tuple[bool, bool],
) -> int:
    if shape.latent_heads:
        row = shape.latent_row + shape.latent_rank + 192 + 128
        alive = per_token * (2 * shape.hidden + shape.latent_heads * row) + mask
        if flash_attn and quantized_cache[0]:
            alive += 2 * cells.full * cells.num_streams * shape.latent_row
        if not flash_attn:
            alive += cells.full * per_token * shape.heads
        return alive
    if not flash_attn:
        scores = cells.full * per_token * shape.heads
        return per_token * (3 * shape.hidden + shape.query + 2 * shape.key_value) + scores + mask
    scratch = 2 * cells.full * cells.num_streams * shape.key_value * sum(quantized_cache)
    return per_token * (2 * shape.hidden + 2 * shape.query) + mask + scratch


def _margin(shape: GraphShape) -> tuple[int, int]:
    if shape.has_states:
        return HYBRID_MARGIN
    if shape.expert or shape.latent_heads:
        return EXPERTS_MARGIN
    return DENSE_MARGIN
