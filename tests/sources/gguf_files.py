"""Writes small GGUF and safetensors files, byte by byte, for the tests of their readers."""

import json
import struct

F32, F16, Q4_K, Q6_K, Q8_0 = 0, 1, 12, 14, 8


def text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def typed(value):
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + text(value)
    if all(isinstance(item, str) for item in value):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))
    if all(isinstance(item, bool) for item in value):
        return struct.pack("<IIQ", 9, 7, len(value)) + bytes(value)
    return struct.pack("<IIQ", 9, 5, len(value)) + struct.pack(f"<{len(value)}i", *value)


def gguf_bytes(metadata, tensors, version=3):
    """Return a GGUF header; ``tensors`` are (name, shape with columns first, type)."""
    data = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata))
    for key, value in metadata.items():
        data += text(key) + typed(value)
    for name, shape, kind in tensors:
        data += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, 0)
    return data


def llama_gguf(num_layers=2, hidden=512, heads=8, kv_heads=2, vocab=1024, feed_forward=1024):
    """Return metadata and tensors of a small Llama in q4_k with a q6_k head."""
    metadata = {
        "general.architecture": "llama",
        "general.name": "Tiny",
        "general.file_type": 15,
        "llama.block_count": num_layers,
        "llama.context_length": 4096,
        "llama.embedding_length": hidden,
        "llama.feed_forward_length": feed_forward,
        "llama.attention.head_count": heads,
        "llama.attention.head_count_kv": kv_heads,
        "llama.rope.dimension_count": hidden // heads,
        "tokenizer.ggml.tokens": [f"token {index}" for index in range(vocab)],
    }
    kv = hidden // heads * kv_heads
    tensors = [
        ("token_embd.weight", (hidden, vocab), Q4_K),
        ("output.weight", (hidden, vocab), Q6_K),
        ("output_norm.weight", (hidden,), F32),
    ]
    for index in range(num_layers):
        tensors += [
            (f"blk.{index}.attn_norm.weight", (hidden,), F32),
            (f"blk.{index}.attn_q.weight", (hidden, hidden), Q4_K),
            (f"blk.{index}.attn_k.weight", (hidden, kv), Q4_K),
            (f"blk.{index}.attn_v.weight", (hidden, kv), Q6_K),
            (f"blk.{index}.attn_output.weight", (hidden, hidden), Q4_K),
            (f"blk.{index}.ffn_norm.weight", (hidden,), F32),
            (f"blk.{index}.ffn_gate.weight", (hidden, feed_forward), Q4_K),
            (f"blk.{index}.ffn_up.weight", (hidden, feed_forward), Q4_K),
            (f"blk.{index}.ffn_down.weight", (feed_forward, hidden), Q6_K),
        ]
    return metadata, tensors


WIDTHS = {"F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "U8": 1, "I32": 4}


def safetensors_bytes(tensors, data=True):
    """Return a safetensors file; ``tensors`` are (name, dtype, shape)."""
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, dtype, shape in tensors:
        start = end
        num_elements = 1
        for size in shape:
            num_elements *= size
        end += num_elements * WIDTHS[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    written = json.dumps(header).encode()
    return struct.pack("<Q", len(written)) + written + (b"\0" * end if data else b"")


TINY_CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 256,
    "max_position_embeddings": 2048,
    "torch_dtype": "bfloat16",
    "tie_word_embeddings": False,
}


def tiny_llama(dtype="BF16", layers=(0, 1)):
    """Return the tensors of TINY_CONFIG's checkpoint."""
    tensors = [("model.embed_tokens.weight", dtype, (256, 64)), ("model.norm.weight", dtype, (64,))]
    for index in layers:
        name = f"model.layers.{index}."
        tensors += [
            (name + "self_attn.q_proj.weight", dtype, (64, 64)),
            (name + "self_attn.k_proj.weight", dtype, (32, 64)),
            (name + "self_attn.v_proj.weight", dtype, (32, 64)),
            (name + "self_attn.o_proj.weight", dtype, (64, 64)),
            (name + "mlp.gate_proj.weight", dtype, (128, 64)),
            (name + "mlp.up_proj.weight", dtype, (128, 64)),
            (name + "mlp.down_proj.weight", dtype, (64, 128)),
            (name + "input_layernorm.weight", dtype, (64,)),
            (name + "post_attention_layernorm.weight", dtype, (64,)),
        ]
    return [*tensors, ("lm_head.weight", dtype, (256, 64))]


TINY_PARAMETERS = 2 * 256 * 64 + 64 + 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 128 * 64 + 2 * 64)
