"""A GGUF small enough to write in a test, that a real llama.cpp loads."""

import struct

F32, F16 = 0, 1
BYTES = {F32: 4, F16: 2}
ALIGNMENT = 32
NUM_LAYERS, HIDDEN, HEADS, KV_HEADS, FEED_FORWARD, VOCABULARY = 4, 512, 8, 2, 1024, 320


# GGUF's numbers of types: int32, float32 and string; lengths and sizes are uint32 (4).
_ELEMENTS = {int: 5, float: 6, str: 8}


def _text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value):
    if isinstance(value, list):
        return struct.pack("<IIQ", 9, _ELEMENTS[type(value[0])], len(value)) + b"".join(map(_element, value))
    kind = 4 if isinstance(value, int) else _ELEMENTS[type(value)]
    return struct.pack("<I", kind) + _element(value)


def _element(value):
    if isinstance(value, str):
        return _text(value)
    return struct.pack("<f" if isinstance(value, float) else "<i", value)


def _vocabulary():
    """A sentencepiece vocabulary: three control tokens, every byte, and made-up pieces."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens += [f"piece{number}" for number in range(VOCABULARY - len(tokens))]
    kinds = [2, 3, 3] + [6] * 256 + [1] * (VOCABULARY - 259)
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [-float(number) for number in range(VOCABULARY)],
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }


def written(path, *, has_vocabulary=False):
    """Write a llama of small shape with zero weights; returns the path. Servers need a vocabulary."""
    width = HIDDEN // HEADS
    metadata = {
        "general.architecture": "llama",
        "general.name": "Tiny",
        "general.file_type": 1,
        "llama.block_count": NUM_LAYERS,
        "llama.context_length": 4096,
        "llama.embedding_length": HIDDEN,
        "llama.feed_forward_length": FEED_FORWARD,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV_HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": width,
        "llama.vocab_size": VOCABULARY,
        **(_vocabulary() if has_vocabulary else {"tokenizer.ggml.model": "no_vocab"}),
    }
    tensors = [
        ("token_embd.weight", (HIDDEN, VOCABULARY), F16),
        ("output.weight", (HIDDEN, VOCABULARY), F16),
        ("output_norm.weight", (HIDDEN,), F32),
    ]
    for layer in range(NUM_LAYERS):
        tensors += [
            (f"blk.{layer}.attn_norm.weight", (HIDDEN,), F32),
            (f"blk.{layer}.ffn_norm.weight", (HIDDEN,), F32),
            (f"blk.{layer}.attn_q.weight", (HIDDEN, HIDDEN), F16),
            (f"blk.{layer}.attn_k.weight", (HIDDEN, KV_HEADS * width), F16),
            (f"blk.{layer}.attn_v.weight", (HIDDEN, KV_HEADS * width), F16),
            (f"blk.{layer}.attn_output.weight", (HIDDEN, HIDDEN), F16),
            (f"blk.{layer}.ffn_gate.weight", (HIDDEN, FEED_FORWARD), F16),
            (f"blk.{layer}.ffn_up.weight", (HIDDEN, FEED_FORWARD), F16),
            (f"blk.{layer}.ffn_down.weight", (FEED_FORWARD, HIDDEN), F16),
        ]
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    for key, value in metadata.items():
        head += _text(key) + _value(value)
    data = 0
    for name, shape, kind in tensors:
        head += _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, data)
        size = BYTES[kind]
        for side in shape:
            size *= side
        data += -(-size // ALIGNMENT) * ALIGNMENT
    head += bytes(-len(head) % ALIGNMENT)
    path.write_bytes(head + bytes(data))
    return path
