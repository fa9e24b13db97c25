"""A GGUF header's keys as the config.json they were converted from.

llama.cpp's converter (convert_hf_to_gguf.py) writes a model's hyperparameters under the
architecture's name; here they are turned back into the config keys that the families read, so that
a header without its tensors, or another mix of it, can be planned. The tied head is not among the keys:
it shows only in the tensors.
"""

from collections.abc import Callable

from kvplan.families import family_of
from kvplan.sources.gguf_archs import GEMMA3N_LAYERS_WITH_CACHE
from kvplan.sources.gguf_keys import Keys

Config = dict[str, object]

# GGUF architecture -> transformers' model_type, where they are spelled differently.
TYPE_OF_ARCH: dict[str, str] = {
    "command-r": "cohere",
    "deepseek": "deepseek",
    "deepseek2": "deepseek_v3",
    "deci": "nemotron-nas",
    "exaone4": "exaone4",
    "falcon-h1": "falcon_h1",
    "gemma3": "gemma3_text",
    "gemma3n": "gemma3n_text",
    "gemma4": "gemma4_text",
    "glm4moe": "glm4_moe",
    "gpt-oss": "gpt_oss",
    "gpt2": "gpt2",
    "gptneox": "gpt_neox",
    "granitehybrid": "granitemoehybrid",
    "hunyuan-dense": "hunyuan_v1_dense",
    "lfm2moe": "lfm2_moe",
    "llama4": "llama4_text",
    "minimax-m2": "minimax_m2",
    "mistral3": "mistral",
    "qwen2moe": "qwen2_moe",
    "qwen3moe": "qwen3_moe",
    "qwen3next": "qwen3_next",
    "qwen35": "qwen3_5_text",
    "qwen35moe": "qwen3_5_moe_text",
}
# Heads that these models tie whatever their size.
TIED = frozenset((
    "gemma", "gemma2", "gemma3", "gemma3n", "gemma4", "cohere2", "command-r", "lfm2", "lfm2moe", "smollm3",
    "granitehybrid",
))  # fmt: skip
# Others tie where the embedding is a large part of all weights, in percent: every Qwen2, Qwen2.5 and Qwen3
# below 7B, Llama 3.2 and Phi-4-mini lie above, their larger siblings below. Mamba and Jamba tie at less.
TIED_SHARE = 9
TIED_SHARE_OF_STATES = 4
# Rope frequencies show only in the tensors too: Llama 3's vocabulary with a context beyond Llama 3.0's has
# them, as Llama 4 does.
LLAMA3_VOCABULARY, LLAMA3_CONTEXT = 128_256, 8192
_PLAIN: tuple[tuple[str, str], ...] = (
    ("embedding_length", "hidden_size"),
    ("block_count", "num_hidden_layers"),
    ("context_length", "max_position_embeddings"),
    ("attention.key_length", "head_dim"),
    ("attention.sliding_window", "sliding_window"),
    ("expert_count", "num_experts"),
    ("expert_used_count", "num_experts_per_tok"),
    ("expert_feed_forward_length", "moe_intermediate_size"),
    ("expert_shared_feed_forward_length", "shared_expert_intermediate_size"),
    ("leading_dense_block_count", "first_k_dense_replace"),
    ("expert_shared_count", "n_shared_experts"),
    ("attention.kv_lora_rank", "kv_lora_rank"),
    ("attention.q_lora_rank", "q_lora_rank"),
)

# What a router does with its scores; numbers of any kind.
_ROUTER: tuple[tuple[str, str], ...] = (
    ("expert_weights_scale", "routed_scaling_factor"),
    ("expert_weights_norm", "norm_topk_prob"),
    ("expert_group_count", "n_group"),
    ("expert_group_used_count", "topk_group"),
)


def config_is_known(arch: str) -> bool:
    """Tell whether some family reads the configs of a GGUF architecture."""
    return family_of(TYPE_OF_ARCH.get(arch, arch)) is not None


def config_of_keys(keys: Keys, *, is_tied: bool | None = None) -> Config:
    """Return the config that a header's keys stand for.

    ``is_tied`` says whether the head is the embedding where that is known; otherwise the
    architecture decides. Raises InvalidSpec for a key that is missing or no count.
    """
    arch = keys.arch
    config: Config = {"model_type": TYPE_OF_ARCH.get(arch, arch)}
    for key, name in _PLAIN:
        if keys.raw(key) is not None and (value := keys.count(key)):
            config[name] = value
    for key, name in _ROUTER:
        said = keys.raw(key)
        if isinstance(said, bool | int | float):
            config[name] = said
    if keys.raw("vocab_size") is not None:
        config["vocab_size"] = keys.count("vocab_size")
    num_layers = keys.count("block_count") - keys.count("nextn_predict_layers", 0)
    config["num_hidden_layers"] = num_layers
    heads = max(keys.per_layer("attention.head_count", num_layers, 0))
    if heads:
        config["num_attention_heads"] = heads
        config["num_key_value_heads"] = max(keys.per_layer("attention.head_count_kv", num_layers, heads))
    width = max(keys.per_layer("feed_forward_length", num_layers, 0))
    if width:
        config["intermediate_size"] = width
    config["tie_word_embeddings"] = arch in TIED if is_tied is None else is_tied
    special = _SPECIAL.get(arch)
    if special is not None:
        special(keys, config, num_layers)
    return config


def usually_tied(arch: str, num_embedding_elements: int, num_elements: int) -> bool:
    """Tell whether a model of this size ties its head, for a header that lists no tensors: a guess."""
    share = TIED_SHARE_OF_STATES if arch in ("mamba", "mamba2", "jamba") else TIED_SHARE
    return arch in TIED or 100 * num_embedding_elements > share * num_elements


def _attends(keys: Keys, num_layers: int) -> tuple[bool, ...]:
    return tuple(bool(count) for count in keys.per_layer("attention.head_count_kv", num_layers, 0))


def _llama(keys: Keys, config: Config, num_layers: int) -> None:  # noqa: ARG001
    if config.get("vocab_size") == LLAMA3_VOCABULARY and keys.count("context_length", 0) > LLAMA3_CONTEXT:
        config["rope_scaling"] = {"rope_type": "llama3"}
    if keys.count("expert_count", 0):
        config["model_type"] = "mixtral"
        config["num_local_experts"] = config["num_experts"]


def _deepseek2(keys: Keys, config: Config, num_layers: int) -> None:  # noqa: ARG001
    rope = keys.count("rope.dimension_count")
    config["qk_rope_head_dim"] = rope
    config["qk_nope_head_dim"] = (
        keys.count("attention.key_length_mla", keys.count("attention.key_length")) - rope
    )
    config["v_head_dim"] = keys.count("attention.value_length_mla", keys.count("attention.value_length"))
    config["n_routed_experts"] = config.get("num_experts", 0)
    config.pop("head_dim", None)
    if keys.raw("attention.q_lora_rank") is None:
        config["q_lora_rank"] = None
    # A sigmoid gate (2) is DeepSeek-V3's, whose router has a score correction.
    if keys.count("expert_gating_func", 1) != 2:
        config["model_type"] = "deepseek_v2"


def _glm4moe(keys: Keys, config: Config, num_layers: int) -> None:  # noqa: ARG001
    config["n_routed_experts"] = config["num_experts"]
    config["attention_bias"] = True


def _gpt_oss(keys: Keys, config: Config, num_layers: int) -> None:  # noqa: ARG001
    config["num_local_experts"] = config["num_experts"]


def _llama4(keys: Keys, config: Config, num_layers: int) -> None:  # noqa: ARG001
    config["intermediate_size_mlp"] = keys.count("feed_forward_length")
    config["intermediate_size"] = keys.count("expert_feed_forward_length")
    config["num_local_experts"] = config["num_experts"]
    config["interleave_moe_layer_step"] = keys.count("interleave_moe_layer_step", 1)
    config["attention_chunk_size"] = keys.count("attention.chunk_size", 8192)
    config["rope_scaling"] = {"rope_type": "llama3"}


def _gemma3n(keys: Keys, config: Config, num_layers: int) -> None:
    config["hidden_size_per_layer_input"] = keys.count("embedding_length_per_layer_input", 256)
    config["vocab_size_per_layer_input"] = config.get("vocab_size", 262_144)
    config["num_kv_shared_layers"] = max(0, num_layers - GEMMA3N_LAYERS_WITH_CACHE)
    config["altup_num_inputs"] = keys.count("altup.num_inputs", 4)


def _gemma4(keys: Keys, config: Config, num_layers: int) -> None:
    windowed = keys.per_layer_flags("attention.sliding_window_pattern", num_layers)
    kv_heads = keys.per_layer("attention.head_count_kv", num_layers, keys.count("attention.head_count"))
    config["layer_types"] = ["sliding_attention" if one else "full_attention" for one in windowed]
    config["global_head_dim"] = keys.count("attention.key_length")
    config["head_dim"] = keys.count("attention.key_length_swa", keys.count("attention.key_length"))
    local = [count for count, one in zip(kv_heads, windowed, strict=True) if one]
    whole = [count for count, one in zip(kv_heads, windowed, strict=True) if not one]
    config["num_key_value_heads"] = max(local or whole)
    # Where global layers have fewer heads their keys are their values.
    config["num_global_key_value_heads"] = max(whole or local)
    config["attention_k_eq_v"] = max(whole or local) != max(local or whole)
    config["hidden_size_per_layer_input"] = keys.count("embedding_length_per_layer_input", 0)
    config["vocab_size_per_layer_input"] = config.get("vocab_size", 262_144)
    config["num_kv_shared_layers"] = keys.count("attention.shared_kv_layers", 0)
    widths = keys.per_layer("feed_forward_length", num_layers, 0)
    config["intermediate_size"] = min(widths)
    config["use_double_wide_mlp"] = max(widths) != min(widths)
    config["enable_moe_block"] = bool(keys.count("expert_count", 0))
    config["top_k_experts"] = config.get("num_experts_per_tok", 0)


def _mamba(keys: Keys, config: Config, num_layers: int) -> None:  # noqa: ARG001
    config["intermediate_size"] = keys.count("ssm.inner_size")
    config["state_size"] = keys.count("ssm.state_size")
    config["conv_kernel"] = keys.count("ssm.conv_kernel")
    config["time_step_rank"] = keys.count("ssm.time_step_rank")


def _mamba2(keys: Keys, config: Config, num_layers: int) -> None:  # noqa: ARG001
    heads = keys.count("ssm.time_step_rank")
    config["num_heads"] = heads
    config["head_dim"] = keys.count("ssm.inner_size") // max(1, heads)
    config["state_size"] = keys.count("ssm.state_size")
    config["n_groups"] = keys.count("ssm.group_count")
    config["conv_kernel"] = keys.count("ssm.conv_kernel")
    config.pop("intermediate_size", None)


def _jamba(keys: Keys, config: Config, num_layers: int) -> None:
    attends = _attends(keys, num_layers)
    offset = attends.index(True) if any(attends) else num_layers
    later = [index for index in range(offset + 1, num_layers) if attends[index]]
    config["attn_layer_period"] = later[0] - offset if later else num_layers
    config["attn_layer_offset"] = offset
    config["mamba_d_state"] = keys.count("ssm.state_size")
    config["mamba_d_conv"] = keys.count("ssm.conv_kernel")
    config["mamba_dt_rank"] = keys.count("ssm.time_step_rank")
    config["mamba_expand"] = keys.count("ssm.inner_size") // keys.count("embedding_length")
    config["num_experts"] = keys.count("expert_count", 0) or 1


def _granite_hybrid(keys: Keys, config: Config, num_layers: int) -> None:
    config["layer_types"] = ["attention" if one else "mamba" for one in _attends(keys, num_layers)]
    config["num_local_experts"] = config.get("num_experts", 0)
    config["shared_intermediate_size"] = keys.count("expert_shared_feed_forward_length", 0) or keys.count(
        "feed_forward_length"
    )
    _mamba2_mixer(keys, config)
    config.pop("head_dim", None)


def _mamba2_mixer(keys: Keys, config: Config) -> None:
    heads, inner = keys.count("ssm.time_step_rank"), keys.count("ssm.inner_size")
    config["mamba_n_heads"] = heads
    config["mamba_d_head"] = inner // max(1, heads)
    config["mamba_d_ssm"] = inner
    config["mamba_expand"] = max(1, inner // keys.count("embedding_length"))
    config["mamba_d_state"] = keys.count("ssm.state_size")
    config["mamba_n_groups"] = keys.count("ssm.group_count")
    config["mamba_d_conv"] = keys.count("ssm.conv_kernel")


def _falcon_h1(keys: Keys, config: Config, num_layers: int) -> None:  # noqa: ARG001
    _mamba2_mixer(keys, config)


def _nemotron_h(keys: Keys, config: Config, num_layers: int) -> None:
    widths = keys.per_layer("feed_forward_length", num_layers, 0)
    marks = [
        "*" if one else ("-" if wide else "M")
        for one, wide in zip(_attends(keys, num_layers), widths, strict=True)
    ]
    config["hybrid_override_pattern"] = "".join(marks)
    config["mamba_num_heads"] = keys.count("ssm.time_step_rank")
    config["mamba_head_dim"] = keys.count("ssm.inner_size") // max(1, keys.count("ssm.time_step_rank"))
    config["ssm_state_size"] = keys.count("ssm.state_size")
    config["n_groups"] = keys.count("ssm.group_count")
    config["conv_kernel"] = keys.count("ssm.conv_kernel")


def _gated_delta(keys: Keys, config: Config, num_layers: int) -> None:  # noqa: ARG001
    heads = keys.count("ssm.time_step_rank")
    config["full_attention_interval"] = keys.count("full_attention_interval", 4)
    config["linear_num_key_heads"] = keys.count("ssm.group_count")
    config["linear_num_value_heads"] = heads
    config["linear_key_head_dim"] = keys.count("ssm.state_size")
    config["linear_value_head_dim"] = keys.count("ssm.inner_size") // max(1, heads)
    config["linear_conv_kernel_dim"] = keys.count("ssm.conv_kernel")


def _lfm2(keys: Keys, config: Config, num_layers: int) -> None:
    config["layer_types"] = ["full_attention" if one else "conv" for one in _attends(keys, num_layers)]
    config["conv_L_cache"] = keys.count("shortconv.l_cache")
    config["block_auto_adjust_ff_dim"] = False
    config["num_dense_layers"] = keys.count("leading_dense_block_count", 0)


_SPECIAL: dict[str, Callable[[Keys, Config, int], None]] = {
    "llama": _llama,
    "deepseek2": _deepseek2,
    "glm4moe": _glm4moe,
    "gpt-oss": _gpt_oss,
    "llama4": _llama4,
    "gemma3n": _gemma3n,
    "gemma4": _gemma4,
    "mamba": _mamba,
    "mamba2": _mamba2,
    "jamba": _jamba,
    "granitehybrid": _granite_hybrid,
    "falcon-h1": _falcon_h1,
    "nemotron_h": _nemotron_h,
    "qwen3next": _gated_delta,
    "qwen35": _gated_delta,
    "qwen35moe": _gated_delta,
    "lfm2": _lfm2,
    "lfm2moe": _lfm2,
}
