"""Which MLPs are routed, over how many experts: the spellings that most mixtures share.

Source: transformers 5.23 configuration_utils.py (``mlp_layer_types``), models/*.
"""

from kvplan.blocks.attention_pattern import unknown_layer_type
from kvplan.blocks.transformer import experts, router
from kvplan.config import Config
from kvplan.tensors import Tensor


def num_experts_of(
    config: Config, *, experts_key: str = "num_experts", active_key: str = "num_experts_per_tok"
) -> tuple[int, int]:
    """Return (experts of a layer, those that a token takes).

    Raises InvalidSpec where a token takes more than there are.
    """
    num_experts, active = config.positive(experts_key), config.positive(active_key)
    if active > num_experts:
        raise config.invalid(active_key, f"is {active}, more than {num_experts} experts")
    return num_experts, active


def routed_mlp(
    config: Config, hidden_size: int, width: int, *, name: str = "mlp", gate: str = "gate"
) -> tuple[Tensor, ...]:
    """Return the experts of one layer, each ``width`` wide, and their router."""
    num_experts, active = num_experts_of(config)
    return (
        *experts(hidden_size, width, num_experts, active, name=f"{name}.experts"),
        *router(hidden_size, num_experts, name=f"{name}.{gate}"),
    )


def stated_sparse(config: Config, num_layers: int) -> tuple[bool, ...] | None:
    """Return which layers route as ``mlp_layer_types`` says; None where the config does not say.

    Raises UnsupportedArchitecture for a kind that is neither ``sparse`` nor ``dense``.
    """
    kinds = config.per_layer("mlp_layer_types", num_layers)
    return None if kinds is None else sparse_of(config, kinds)


def sparse_of(config: Config, kinds: tuple[str, ...]) -> tuple[bool, ...]:
    """Return which of these kinds of MLPs route. Raises UnsupportedArchitecture for an unknown kind."""
    unknown = next((kind for kind in kinds if kind not in ("sparse", "dense")), None)
    if unknown is not None:
        raise unknown_layer_type(config, unknown)
    return tuple(kind == "sparse" for kind in kinds)
