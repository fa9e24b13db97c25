"""The tensors of whole GGUF files by architecture, as llama.cpp's loader asks for them (src/models)."""

from sources.gguf_files import F16, F32

SHAPED = frozenset((
    "llama", "qwen2", "qwen3", "qwen3moe", "gemma2", "gemma3", "olmo2", "phi3", "glm4moe", "gpt-oss",
    "deepseek2", "cohere2", "mamba", "qwen3next",
))  # fmt: skip


class _Layer:
    def __init__(self, arch, keys, index):
        self.arch, self.keys, self.index, self.made = arch, keys, index, []
        self.hidden = keys["embedding_length"]

    def add(self, name, *shape):
        is_matrix = (
            len(shape) > 1
            and name.endswith(".weight")
            and not name.startswith(("ffn_gate_inp", "ssm_conv1d"))
        )
        self.made.append((f"blk.{self.index}.{name}", shape, F16 if is_matrix else F32))

    def vectors(self, size, *names):
        for name in names:
            self.add(name, size)


def full_tensors(arch, keys):
    """Return (name, shape with columns first, type) of every tensor but embedding and head, in F16."""
    made = [("output_norm.weight", (keys["embedding_length"],), F32)]
    for index in range(keys["block_count"]):
        layer = _Layer(arch, keys, index)
        if arch == "mamba":
            _mamba(layer)
        else:
            _attention(layer)
            _feed_forward(layer)
        made += layer.made
    return made


def _attention(layer):
    keys, arch, hidden = layer.keys, layer.arch, layer.hidden
    heads, kv_heads = keys["attention.head_count"], keys["attention.head_count_kv"]
    head = keys.get("attention.key_length", hidden // heads)
    queries, key_values = heads * head, kv_heads * head
    if arch != "olmo2":
        layer.add("attn_norm.weight", hidden)
    if arch == "deepseek2":
        return _latent(layer)
    if arch == "qwen3next" and (layer.index + 1) % keys["full_attention_interval"]:
        return _gated_delta(layer)
    if arch == "phi3":
        layer.add("attn_qkv.weight", hidden, queries + 2 * key_values)
    else:
        layer.add("attn_q.weight", hidden, 2 * queries if arch == "qwen3next" else queries)
        layer.add("attn_k.weight", hidden, key_values)
        layer.add("attn_v.weight", hidden, key_values)
    layer.add("attn_output.weight", queries, hidden)
    if arch in ("qwen2", "glm4moe", "gpt-oss"):
        for name, size in (
            ("attn_q.bias", queries),
            ("attn_k.bias", key_values),
            ("attn_v.bias", key_values),
        ):
            layer.add(name, size)
    if arch == "gpt-oss":
        layer.add("attn_output.bias", hidden)
        layer.add("attn_sinks.weight", heads)
    if arch in ("qwen3", "qwen3moe", "gemma3", "qwen3next"):
        layer.vectors(head, "attn_q_norm.weight", "attn_k_norm.weight")
    if arch == "olmo2":
        layer.add("attn_q_norm.weight", queries)
        layer.add("attn_k_norm.weight", key_values)
    if arch in ("gemma2", "gemma3", "olmo2"):
        layer.vectors(hidden, "post_attention_norm.weight", "post_ffw_norm.weight")
    if arch in ("glm4moe", "gpt-oss", "qwen3next"):
        layer.add("post_attention_norm.weight", hidden)
    return None


def _latent(layer):
    keys, hidden = layer.keys, layer.hidden
    heads, rank = keys["attention.head_count"], keys["attention.kv_lora_rank"]
    rope, queries = keys["rope.dimension_count"], keys["attention.q_lora_rank"]
    nope, value = keys["attention.key_length_mla"] - rope, keys["attention.value_length_mla"]
    layer.add("attn_q_a_norm.weight", queries)
    layer.add("attn_kv_a_norm.weight", rank)
    layer.add("attn_q_a.weight", hidden, queries)
    layer.add("attn_q_b.weight", queries, heads * (nope + rope))
    layer.add("attn_kv_a_mqa.weight", hidden, rank + rope)
    layer.add("attn_k_b.weight", nope, rank, heads)
    layer.add("attn_v_b.weight", rank, value, heads)
    layer.add("attn_output.weight", heads * value, hidden)


def _gated_delta(layer):
    keys, hidden = layer.keys, layer.hidden
    inner, heads = keys["ssm.inner_size"], keys["ssm.time_step_rank"]
    channels = inner + 2 * keys["ssm.group_count"] * keys["ssm.state_size"]
    layer.add("attn_qkv.weight", hidden, channels)
    layer.add("attn_gate.weight", hidden, inner)
    layer.add("ssm_conv1d.weight", keys["ssm.conv_kernel"], channels)
    layer.vectors(heads, "ssm_dt.bias", "ssm_a")
    layer.add("ssm_ba.weight", hidden, 2 * heads)
    layer.add("ssm_norm.weight", keys["ssm.state_size"])
    layer.add("ssm_out.weight", inner, hidden)
    layer.add("post_attention_norm.weight", hidden)


def _feed_forward(layer):
    keys, arch, hidden = layer.keys, layer.arch, layer.hidden
    if arch not in ("cohere2", "olmo2", "glm4moe", "gpt-oss", "qwen3next"):
        layer.add("ffn_norm.weight", hidden)
    experts = keys.get("expert_count", 0)
    width = keys["feed_forward_length"]
    if not experts or layer.index < keys.get("leading_dense_block_count", 0):
        if arch == "phi3":
            layer.add("ffn_up.weight", hidden, 2 * width)
        else:
            layer.add("ffn_gate.weight", hidden, width)
            layer.add("ffn_up.weight", hidden, width)
        layer.add("ffn_down.weight", width, hidden)
        return
    each = keys.get("expert_feed_forward_length", width)
    layer.add("ffn_gate_inp.weight", hidden, experts)
    layer.add("ffn_gate_exps.weight", hidden, each, experts)
    layer.add("ffn_up_exps.weight", hidden, each, experts)
    layer.add("ffn_down_exps.weight", each, hidden, experts)
    if arch == "gpt-oss":
        layer.add("ffn_gate_inp.bias", experts)
        layer.add("ffn_gate_exps.bias", each, experts)
        layer.add("ffn_up_exps.bias", each, experts)
        layer.add("ffn_down_exps.bias", hidden, experts)
    if arch in ("deepseek2", "glm4moe"):
        layer.add("exp_probs_b.bias", experts)
    shared = each * keys.get("expert_shared_count", 0) or keys.get("expert_shared_feed_forward_length", 0)
    if shared:
        layer.add("ffn_gate_shexp.weight", hidden, shared)
        layer.add("ffn_up_shexp.weight", hidden, shared)
        layer.add("ffn_down_shexp.weight", shared, hidden)
    if arch == "qwen3next":
        layer.add("ffn_gate_inp_shexp.weight", hidden)


def _mamba(layer):
    keys, hidden = layer.keys, layer.hidden
    inner, state, rank = keys["ssm.inner_size"], keys["ssm.state_size"], keys["ssm.time_step_rank"]
    layer.add("attn_norm.weight", hidden)
    layer.add("ssm_in.weight", hidden, 2 * inner)
    layer.add("ssm_conv1d.weight", keys["ssm.conv_kernel"], inner)
    layer.add("ssm_conv1d.bias", inner)
    layer.add("ssm_x.weight", inner, rank + 2 * state)
    layer.add("ssm_dt.weight", rank, inner)
    layer.add("ssm_dt.bias", inner)
    layer.add("ssm_a", state, inner)
    layer.add("ssm_d", inner)
    layer.add("ssm_out.weight", inner, hidden)
