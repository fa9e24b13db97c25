"""The blocks that most decoders are built from: attention, MLPs, experts.

Families put these together; each returns the tensors of one layer with the names that Llama's
checkpoints use, which vLLM and SGLang shard in the same way.
"""

from kvplan.tensors import Role, Tensor, linear


def attention(
    hidden_size: int,
    num_attention_heads: int,
    num_key_value_heads: int,
    head_dim: int,
    *,
    v_head_dim: int | None = None,
    qkv_bias: bool = False,
    o_bias: bool = False,
    gate: bool = False,
    name: str = "self_attn",
    role: Role = "attention",
) -> tuple[Tensor, ...]:
    """Return q, k, v and o projections.

    ``v_head_dim`` differs from ``head_dim`` in few models (MiMo-V2); ``gate`` doubles the query
    projection for a per-element output gate (Qwen3-Next).
    """
    v_dim = head_dim if v_head_dim is None else v_head_dim
    q_out = num_attention_heads * head_dim * (2 if gate else 1)
    return (
        *linear(f"{name}.q_proj", q_out, hidden_size, role, bias=qkv_bias, split="out"),
        *linear(
            f"{name}.k_proj",
            num_key_value_heads * head_dim,
            hidden_size,
            role,
            bias=qkv_bias,
            split="kv",
            num_heads=num_key_value_heads,
        ),
        *linear(
            f"{name}.v_proj",
            num_key_value_heads * v_dim,
            hidden_size,
            role,
            bias=qkv_bias,
            split="kv",
            num_heads=num_key_value_heads,
        ),
        *linear(f"{name}.o_proj", hidden_size, num_attention_heads * v_dim, role, bias=o_bias, split="in"),
    )


def gated_mlp(
    hidden_size: int,
    intermediate_size: int,
    *,
    bias: bool = False,
    name: str = "mlp",
    role: Role = "mlp",
) -> tuple[Tensor, ...]:
    """Return gate, up and down projections (SwiGLU, GeGLU)."""
    return (
        *linear(f"{name}.gate_proj", intermediate_size, hidden_size, role, bias=bias, split="out"),
        *linear(f"{name}.up_proj", intermediate_size, hidden_size, role, bias=bias, split="out"),
        *linear(f"{name}.down_proj", hidden_size, intermediate_size, role, bias=bias, split="in"),
    )


def plain_mlp(
    hidden_size: int,
    intermediate_size: int,
    *,
    bias: bool = True,
    up: str = "mlp.fc1",
    down: str = "mlp.fc2",
    role: Role = "mlp",
) -> tuple[Tensor, ...]:
    """Return the two projections of an ungated MLP."""
    return (
        *linear(up, intermediate_size, hidden_size, role, bias=bias, split="out"),
        *linear(down, hidden_size, intermediate_size, role, bias=bias, split="in"),
    )


def experts(
    hidden_size: int,
    intermediate_size: int,
    num_experts: int,
    num_experts_per_tok: int,
    *,
    bias: bool = False,
    gated: bool = True,
    name: str = "mlp.experts",
) -> tuple[Tensor, ...]:
    """Return the routed experts: ``num_experts`` MLPs of which a token uses ``num_experts_per_tok``."""
    projections = [("up_proj", intermediate_size, hidden_size), ("down_proj", hidden_size, intermediate_size)]
    if gated:
        projections.insert(0, ("gate_proj", intermediate_size, hidden_size))
    return tuple(
        tensor
        for projection, num_out, num_in in projections
        for tensor in linear(
            f"{name}.*.{projection}",
            num_out,
            num_in,
            "expert",
            bias=bias,
            split="in" if projection == "down_proj" else "out",
            count=num_experts,
            num_active=num_experts_per_tok,
        )
    )


def router(
    hidden_size: int, num_experts: int, *, name: str = "mlp.gate", bias: bool = False
) -> tuple[Tensor, ...]:
    """Return the router, which every engine keeps whole and unquantized."""
    return linear(name, num_experts, hidden_size, "router", bias=bias)
