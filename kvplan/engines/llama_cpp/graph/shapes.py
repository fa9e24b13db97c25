"""What a layer's graph is built from: its parts and their widths."""

from kvplan.engines.llama_cpp.graph.traits import Routing
from kvplan.frozen import dataclass
from kvplan.layers import RecurrentState


@dataclass(frozen=True, slots=True)
class Attention:
    """Heads and their sizes.

    ``stores`` is False where another layer's cache is read; ``sinks`` adds a score to each head;
    ``keys_are_values`` projects no values. ``gate_width`` is the width of the gate that what the heads
    bring is multiplied by, 0 without one: a number for each head, or for each element. ``qk_normed``
    layers have norms for queries and keys.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    v_head_dim: int
    windowed: bool
    stores: bool
    fused_qkv: bool
    qkv_bias: bool
    out_bias: bool
    sinks: bool
    keys_are_values: bool = False
    gate_width: int = 0
    qk_normed: bool = False


@dataclass(frozen=True, slots=True)
class Latent:
    """MLA. ``q_lora_rank`` is 0 where queries are projected at once.

    ``num_index_heads`` of ``index_dim`` choose the cells that are attended to, 0 without an indexer.
    """

    num_heads: int
    kv_lora_rank: int
    rope_dim: int
    nope_dim: int
    v_head_dim: int
    q_lora_rank: int
    num_index_heads: int = 0
    index_dim: int = 0


@dataclass(frozen=True, slots=True)
class FeedForward:
    """A dense MLP of ``width``; ``fused`` has gate and up in one matrix, not ``gated`` has one of them.

    ``clamped`` limits both before they are multiplied.
    """

    width: int
    gated: bool
    fused: bool
    clamped: bool = False


@dataclass(frozen=True, slots=True)
class Experts:
    """Routed experts of ``width``, ``num_used`` of ``num`` a token, and a shared MLP of ``shared``.

    ``biased`` experts add a row each; ``corrected`` routers add one to the scores they choose by;
    ``fused`` ones have gate and up in one matrix, ``scaled`` ones a factor each, ``clamped`` ones (and
    ``shared_clamped``) limits as an MLP. ``num_chunks`` of ``chunk_width`` are smaller experts, one for
    several of the others (GroveMoE).
    """

    num: int
    num_used: int
    width: int
    gated: bool
    biased: bool
    corrected: bool
    shared: int
    shared_gate: bool
    fused: bool = False
    scaled: bool = False
    clamped: bool = False
    shared_clamped: bool = False
    num_chunks: int = 0
    chunk_width: int = 0


@dataclass(frozen=True, slots=True)
class LayerShape:
    """One layer: at most one of each part.

    ``is_odd`` marks the layers that an architecture treats in its own way: without rotation
    (SmolLM3, Llama 4, AFMoE, Baichuan, SmallThinker), with a sparse gate (Gemma 3n), with a picture's
    features (Qwen3-VL), with two norms (Falcon, Jina BERT) or none (ModernBERT), without parallel parts
    (GPT-NeoX). ``scaled`` multiplies what the layer returns by a factor. ``expanded`` is the latent that
    keys and values are made of where whole heads are cached; ``widths`` gives the rows of RWKV's tensors
    by name.
    """

    attention: Attention | Latent | None
    state: RecurrentState | None
    dt_rank: int
    mlp: FeedForward | None
    experts: Experts | None
    is_odd: bool = False
    scaled: bool = False
    expanded: Latent | None = None
    widths: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A model: its architecture as GGUF names it, and its layers in order.

    ``num_layers`` is their number in the file, more than those listed where repeats are left out;
    ``is_uncached`` models attend to the batch itself;
    ``rope_table`` says that rotations read a table of factors; ``index_top_k`` is how many cells an
    indexer chooses.
    """

    arch: str
    hidden_size: int
    vocab_size: int
    layers: tuple[LayerShape, ...]
    num_layers: int
    routing: Routing
    per_layer_input: int
    num_altup: int
    rope_table: bool = False
    has_token_types: bool = False
    is_uncached: bool = False
    index_top_k: int = 0
