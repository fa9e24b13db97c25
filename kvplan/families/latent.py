"""Latent attention outside DeepSeek's line: LongCat-Flash, MiniCPM3, Youtu-LLM.

transformers 5.23 models/longcat_flash, youtu; MiniCPM3 from its own repository (openbmb
modeling_minicpm.py).
"""

from kvplan.blocks.decoder import by_index, finish
from kvplan.blocks.latent import latent_attention, latent_cache, latent_shape
from kvplan.blocks.transformer import gated_mlp, router
from kvplan.config import Config
from kvplan.layers import Layer
from kvplan.model import Structure
from kvplan.tensors import Tensor, norms_of


def longcat_flash(config: Config) -> Structure:
    """Read LongCat-Flash: every layer has two attentions, two MLPs, and experts some of which do nothing.

    transformers 5.23 gives the zero experts rows in the fused gate-and-up matrix, so they count there.
    """
    num_layers = config.layers("num_hidden_layers")
    shape = latent_shape(config, num_layers)
    hidden = shape.hidden_size
    num_experts, active = config.positive("num_experts"), config.positive("num_experts_per_tok")
    num_zero = config.integer("zero_expert_num", 256)
    query_dim = config.positive("qk_nope_head_dim") + config.positive("qk_rope_head_dim")
    if config.integer("qk_head_dim", query_dim) != query_dim:
        raise config.invalid(
            "qk_head_dim", f"is {config.integer('qk_head_dim')}, but its parts add up to {query_dim}"
        )
    width = config.positive("expert_ffn_hidden_size")
    dense_width = config.positive("intermediate_size")
    if active > num_experts + num_zero:
        raise config.invalid("moe_topk", f"is {active}, more than {num_experts + num_zero} experts")
    cache, rank = latent_cache(config), config.integer("q_lora_rank", None)
    every = num_experts + num_zero
    tensors = (
        *latent_attention(config, cache, q_lora_rank=rank, name="self_attn.0"),
        *latent_attention(config, cache, q_lora_rank=rank, name="self_attn.1"),
        Tensor("mlp.experts.*.gate_proj.weight", (width, hidden), "expert", every, active, "out"),
        Tensor("mlp.experts.*.up_proj.weight", (width, hidden), "expert", every, active, "out"),
        Tensor(
            "mlp.experts.*.down_proj.weight",
            (hidden, width),
            "expert",
            num_experts,
            min(active, num_experts),
            "in",
        ),
        *router(hidden, every, name="mlp.router.classifier", bias=config.flag("router_bias", False)),
        *gated_mlp(hidden, dense_width, name="mlps.0"),
        *gated_mlp(hidden, dense_width, name="mlps.1"),
        *norms_of(
            hidden,
            "input_layernorm.0",
            "input_layernorm.1",
            "post_attention_layernorm.0",
            "post_attention_layernorm.1",
        ),
    )
    layer = Layer((cache, cache), tensors)
    return finish(config, shape, by_index(num_layers, lambda _: layer), tied=False)


def minicpm3(config: Config) -> Structure:
    """Read MiniCPM3, whose first files leave out the size of a value head: hidden / heads.

    Source: openbmb/MiniCPM3-4B modeling_minicpm.py.
    """
    size = config.positive("hidden_size") // config.positive("num_attention_heads")
    return youtu(config.behind({"v_head_dim": max(1, size)}))


def youtu(config: Config) -> Structure:
    """Read Youtu-LLM (and MiniCPM3): latent attention around a dense MLP, tied."""
    shape = latent_shape(config)
    hidden, cache = shape.hidden_size, latent_cache(config)
    tensors = (
        *latent_attention(config, cache, q_lora_rank=config.integer("q_lora_rank", None)),
        *gated_mlp(hidden, config.positive("intermediate_size"), bias=config.flag("mlp_bias", False)),
        *norms_of(hidden, "input_layernorm", "post_attention_layernorm"),
    )
    layer = Layer((cache,), tensors)
    return finish(config, shape, by_index(shape.num_layers, lambda _: layer), tied=True)
