"""Which family reads which ``model_type``: a plain table, ``module:function``."""

FAMILIES: dict[str, str] = {
    # Llama's shape
    "llama": "llama:llama",
    "mistral": "llama:mistral",
    "ministral": "llama:mistral",
    "ministral3": "llama:mistral",
    "qwen2": "llama:qwen2",
    "qwen3": "llama:qwen3",
    "olmo2": "llama:olmo2",
    "olmo3": "llama:olmo3",
    "smollm3": "llama:smollm3",
    "granite": "llama:granite",
    "seed_oss": "llama:seed_oss",
    "ernie4_5": "llama:ernie4_5",
    "hunyuan_v1_dense": "llama:hunyuan_dense",
    "mimo": "llama:mimo",
    "internlm": "llama:internlm",
    "internlm2": "llama:internlm2",
    "orion": "llama:orion",
    "minicpm": "llama:minicpm",
    "aquila": "llama:llama",
    "yi": "llama:llama",
    # Gemma
    "gemma": "gemma:gemma",
    "gemma2": "gemma:gemma2",
    "gemma3_text": "gemma:gemma3_text",
    "gemma3": "multimodal:gemma3",
    "llava": "multimodal:llava",
    # Phi
    "phi": "phi:phi",
    "phi3": "phi:phi3",
    # mixtures of experts
    "mixtral": "mixtral:mixtral",
    "qwen2_moe": "mixtral:qwen2_moe",
    "qwen3_moe": "mixtral:qwen3_moe",
    "olmoe": "mixtral:olmoe",
    "minimax_m2": "mixtral:minimax_m2",
    "glm4_moe": "mixtral:glm4_moe",
    "gpt_oss": "gpt_oss:gpt_oss",
    # latent attention
    "deepseek": "deepseek:deepseek_v1",
    "deepseek_v2": "deepseek:deepseek_v2",
    "deepseek_v3": "deepseek:deepseek_v2",
    "kimi_k2": "deepseek:deepseek_v2",
    "deepseek_v32": "deepseek:deepseek_v32",
    "glm_moe_dsa": "deepseek:glm_moe_dsa",
}
