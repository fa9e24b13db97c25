"""One small model for every kind of layer, and the cache formats of each engine."""

from dataclasses import replace
from functools import cache as cached

from kvplan.engines import engine_named
from kvplan.layers import (
    ChunkedAttention,
    CompressedAttention,
    CrossAttention,
    FullAttention,
    GatedDeltaState,
    KimiDeltaState,
    LatentAttention,
    Layer,
    LightningState,
    Mamba1State,
    Mamba2State,
    RgLruState,
    RwkvState,
    SharedCache,
    ShortConvState,
    SlidingWindow,
    XlstmState,
    run_lengths,
)
from kvplan.plan import plan
from kvplan.sources.catalog import entries, model_from_spec
from kvplan.workload import Workload

FULL = FullAttention(8, 2, 64, 64)
KINDS = {
    "full": FULL,
    "uneven heads": FullAttention(8, 2, 96, 64),
    "indexed": FullAttention(8, 2, 64, 64, index_head_dim=128),
    "sliding": SlidingWindow(8, 2, 64, 64, 256),
    "chunked": ChunkedAttention(8, 2, 64, 64, 512),
    "latent": LatentAttention(16, 512, 64, 128, 128),
    "sparse latent": LatentAttention(16, 512, 64, 128, 128, index_head_dim=128),
    "compressed": CompressedAttention(16, 512, 128, 4, index_head_dim=128),
    "cross": CrossAttention(8, 2, 64, 64, "encoder", 1500),
    "shared": SharedCache(FULL),
    "mamba": Mamba1State(512, 16, 4),
    "mamba2": Mamba2State(16, 64, 128, 2, 4),
    "gated delta": GatedDeltaState(4, 8, 64, 64, 4),
    "kimi delta": KimiDeltaState(8, 64, 4),
    "lightning": LightningState(8, 64),
    "short conv": ShortConvState(512, 3),
    "rg-lru": RgLruState(512, 4),
    "rwkv": RwkvState(512, 2, 512 * 64),
    "xlstm": XlstmState(4, 64, 128),
}
FORMATS = {
    "ideal": (
        "bf16",
        "fp16",
        "fp8",
        "int8",
        "int4",
        "nvfp4",
        "mxfp8",
        "q8_0",
        "q5_0",
        "q5_1",
        "q4_0",
        "q4_1",
    ),
    "vllm": ("auto", "fp16", "fp8", "int8", "int4", "nvfp4"),
    "sglang": ("auto", "fp8", "fp8_e5m2", "mxfp8", "nvfp4", "fp4_mx_block16"),
    "tgi": ("auto", "fp8"),
    "lmdeploy": ("auto", "int8", "int4"),
    "tensorrt-llm": ("auto", "fp16", "fp8", "nvfp4"),
    "llama.cpp": ("f16", "bf16", "q8_0", "q5_1", "q4_0", "iq4_nl"),
    "transformers": ("auto",),
}


@cached
def bundled():
    return [model_from_spec(spec) for spec in list(entries())[::6]]


def model_of(cache, num_layers=3):
    """A small model whose layers all cache ``cache`` beside one full-attention layer."""
    base = bundled()[0]
    # Shared layers read another's cache, so there must be one.
    layers = (Layer((FULL,)),) + (Layer((cache,)),) * num_layers
    return replace(base, structure=replace(base.structure, layers=run_lengths(layers)))


def planned(model, engine, kv, tokens=1000, sequences=2, options=(), devices=()):
    workload = Workload(
        context_tokens=tokens,
        num_sequences=sequences,
        kv_cache_dtype_k=kv,
        kv_cache_dtype_v=kv,
        encoder_tokens=77,
        engine_options=tuple(options),
    )
    return plan(model, workload, tuple(devices), engine_named(engine))
