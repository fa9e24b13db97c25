"""How many tokens TGI prefills at once where no flag says so: the launcher's own estimate.

TGI 3.0 launcher/src/main.rs (compute_optimal, Config::flop, ComputeType::f16_flop): as many tokens as
the cards compute in a second, where the launcher knows the card by its name and the answer is above
100; else 4,096; never more than the model's positions. Before 3.0: the longest input and 50 more.
Versions since 3.1 also cap it by an estimate of the memory, which was not read; one public start-up of
3.3 (gemma-3-27b on two RTX A6000) shows 8,000 for a model with a vision tower.
"""

from kvplan.device import Device
from kvplan.model import ModelSpec

DEFAULT_PREFILL_TOKENS = 4096
VISION_PREFILL_TOKENS, VISION_SINCE = 8000, (3, 3)
MIN_OPTIMAL = 100
ALIGNMENT_EDGE = 50
# Part of the card's name -> 16-bit operations a second, for names that nvidia-smi spells as the launcher.
CARDS = (("h100-sxm", 900 * 10**12), ("l4", 121 * 10**12), ("a10g", 125 * 10**12))


def default_prefill_tokens(
    model: ModelSpec, device: Device | None, shards: int, version: tuple[int, ...]
) -> int:
    """Return ``max_batch_prefill_tokens`` since 3.0."""
    sees = (model.config or {}).get("vision_config") is not None
    usual = VISION_PREFILL_TOKENS if sees and version >= VISION_SINCE else DEFAULT_PREFILL_TOKENS
    tokens = _optimal(model, device, shards) or usual
    limit = model.context_limit_tokens
    return min(tokens, limit) if limit else tokens


def _optimal(model: ModelSpec, device: Device | None, shards: int) -> int:
    name = device.name.casefold() if device is not None else ""
    speed = next((flops for card, flops in CARDS if name == card), 0)
    work = _operations(model)
    optimal = speed * shards // work if speed and work else 0
    return optimal if optimal > MIN_OPTIMAL else 0


def _operations(model: ModelSpec) -> int:
    """Return a token's operations as the launcher counts them; 0 where it cannot."""
    config = model.config or {}
    if config.get("vision_config") is not None:
        return 0
    hidden, heads = _whole(config, "hidden_size"), _whole(config, "num_attention_heads")
    layers, inner = _whole(config, "num_hidden_layers"), _whole(config, "intermediate_size")
    if not (hidden and heads and layers and inner):
        return 0
    head_dim = _whole(config, "head_dim") or hidden // heads
    kv_heads = _whole(config, "num_key_value_heads") or heads
    inner *= _whole(config, "num_experts_per_tok") or 1
    attention = 2 * head_dim * hidden * (3 * heads + 2 * kv_heads)
    return (attention + 6 * hidden * inner) * layers


def _whole(config: object, name: str) -> int:
    value = config.get(name) if hasattr(config, "get") else None
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
