"""Multi-head latent attention as configs state it: its shape, what it caches, what it stores.

Source: DeepSeek-V2, arXiv 2405.04434; transformers 5.23 models/deepseek_v3.
"""

from kvplan.blocks.decoder import Shape
from kvplan.config import Config
from kvplan.layers import LatentAttention
from kvplan.tensors import Tensor, linear


def latent_shape(config: Config, num_layers: int | None = None) -> Shape:
    """Return a model's shape; ``head_dim`` in these files is the rotary part and sizes nothing."""
    hidden, heads = config.positive("hidden_size"), config.positive("num_attention_heads")
    layers = config.layers() if num_layers is None else num_layers
    return Shape(hidden, layers, heads, heads, max(1, hidden // heads), config.positive("vocab_size"))


def latent_cache(config: Config, *, has_index: bool = False) -> LatentAttention:
    """Return what a layer caches, with the key of an indexer where it has one."""
    return LatentAttention(
        config.positive("num_attention_heads"),
        config.positive("kv_lora_rank"),
        config.positive("qk_rope_head_dim"),
        config.positive("qk_nope_head_dim"),
        config.positive("v_head_dim"),
        config.positive("index_head_dim") if has_index else 0,
    )


def latent_attention(
    config: Config, cache: LatentAttention, *, q_lora_rank: int | None, name: str = "self_attn"
) -> tuple[Tensor, ...]:
    """Return the projections: low-rank queries where ``q_lora_rank`` is given, one latent for the rest."""
    hidden_size, heads = config.positive("hidden_size"), cache.num_attention_heads
    bias = config.flag("attention_bias", False)
    q_out = heads * (cache.qk_nope_head_dim + cache.qk_rope_head_dim)
    kv_out = heads * (cache.qk_nope_head_dim + cache.v_head_dim)
    rank, rope = cache.kv_lora_rank, cache.qk_rope_head_dim
    if q_lora_rank is None:
        query = linear(f"{name}.q_proj", q_out, hidden_size, "attention", split="out")
    else:
        query = (
            *linear(f"{name}.q_a_proj", q_lora_rank, hidden_size, "attention", bias=bias),
            Tensor(f"{name}.q_a_layernorm.weight", (q_lora_rank,), "norm"),
            *linear(f"{name}.q_b_proj", q_out, q_lora_rank, "attention", split="out"),
        )
    return (
        *query,
        *linear(f"{name}.kv_a_proj_with_mqa", rank + rope, hidden_size, "attention", bias=bias),
        Tensor(f"{name}.kv_a_layernorm.weight", (rank,), "norm"),
        *linear(f"{name}.kv_b_proj", kv_out, rank, "attention", split="out"),
        *linear(f"{name}.o_proj", hidden_size, heads * cache.v_head_dim, "attention", bias=bias, split="in"),
    )
