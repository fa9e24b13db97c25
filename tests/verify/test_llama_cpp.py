"""A real llama.cpp loading a small GGUF written here: its printed buffers against the plan, in bytes.

llama-cpp-python brings it (``pip install llama-cpp-python`` builds it for the CPU); its log callback
gives the lines that llama-server prints.
"""

import ctypes
import struct

import pytest

from kvplan.engines import engine_named
from kvplan.plan import plan
from kvplan.sources import open_model
from kvplan.verify.logs import read_log
from kvplan.workload import Workload

llama_cpp = pytest.importorskip(
    "llama_cpp", reason="llama.cpp is not installed: pip install -e '.[test,llama-cpp]' (builds for minutes)"
)
F32, F16 = 0, 1
BYTES = {F32: 4, F16: 2}
ALIGNMENT = 32
NUM_LAYERS, HIDDEN, HEADS, KV_HEADS, FEED_FORWARD, VOCABULARY = 4, 512, 8, 2, 1024, 320


def _text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value):
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    return struct.pack("<I", 8) + _text(value) if isinstance(value, str) else struct.pack("<II", 4, value)


def written(path):
    """Write a llama of random shape with zero weights and no tokenizer; returns the path."""
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
        "tokenizer.ggml.model": "no_vocab",
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


def printed(path, n_ctx, n_parallel, kv_type, flash):
    """Load the file and make a context; return what llama.cpp logs."""
    lines = []

    @llama_cpp.llama_log_callback
    def collect(_level, text, _data):
        lines.append(text)

    llama_cpp.llama_log_set(collect, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
    assert model, b"".join(lines)
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx, settings.n_seq_max = n_ctx, n_parallel
    settings.type_k = settings.type_v = kv_type
    settings.flash_attn_type = 1 if flash else 0
    context = llama_cpp.llama_init_from_model(model, settings)
    assert context, b"".join(lines)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return b"".join(lines).decode()


@pytest.mark.parametrize(
    ("n_ctx", "n_parallel", "kv", "kv_type", "flash"),
    [
        (512, 1, "f16", 1, False),
        (4096, 1, "f16", 1, True),
        (4096, 4, "q8_0", 8, True),
        (1000, 2, "f32", 0, False),
    ],
)
def test_printed_buffers_equal_the_plan(n_ctx, n_parallel, kv, kv_type, flash, tmp_path):
    path = written(tmp_path / "tiny.gguf")
    said = read_log(printed(path, n_ctx, n_parallel, kv_type, flash), "llama.cpp")
    workload = Workload(
        context_tokens=n_ctx // n_parallel,
        num_sequences=n_parallel,
        kv_cache_dtype_k=kv,
        kv_cache_dtype_v=kv,
        engine_options=(
            ("ctx_size", n_ctx),
            ("parallel", n_parallel),
            ("n_gpu_layers", "0"),
            ("no_kv_offload", True),
            ("flash_attn", "on" if flash else "off"),
        ),
    )
    result = plan(open_model(str(path)), workload, (), engine_named("llama.cpp"))
    cache = said.of("kv_cache")
    assert abs(sum(one.num_bytes for one in cache) - result.cache.total.expected) <= cache[0].rounding_bytes
    compute = next(one for one in said.of("activations") if one.device.startswith("CPU"))
    planned = next(part.bytes for part in result.host if part.name == "activations")
    assert planned.low - compute.rounding_bytes <= compute.num_bytes <= planned.high + compute.rounding_bytes
    if planned.basis == "exact":
        assert abs(compute.num_bytes - planned.expected) <= compute.rounding_bytes
