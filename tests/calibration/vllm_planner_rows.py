"""The settings and layers that make_vllm_planner.py runs; layers as the models' configs say."""

GIB = 2**30


def row(model, config_file, layers, **given):
    """Return one row with the usual settings filled in."""
    made = {
        "model": model,
        "config_file": config_file,
        "tp": 1,
        "pp": 1,
        "dcp": 1,
        "max_model_len": 32768,
        "kv_cache_dtype": "auto",
        "available_bytes": 20 * GIB,
        "max_num_batched_tokens": 8192,
        "async_scheduling": True,
        "mamba_cache_mode": "align",
        "block_size": 16,
        "layers": layers,
        "options": {},
    }
    return made | given


def full(count, heads, head_size, **more):
    """Full attention layers."""
    return {"type": "full", "count": count, "num_kv_heads": heads, "head_size": head_size} | more


def sliding(count, heads, head_size, window):
    """Sliding-window layers."""
    return full(count, heads, head_size, type="sliding", sliding_window=window)


def chunked(count, heads, head_size, chunk):
    """Chunked attention layers."""
    return full(count, heads, head_size, type="chunked", chunk=chunk)


def mla(count, **more):
    """Latent attention of 512 + 64."""
    return {"type": "mla", "count": count, "head_size": 576} | more


def state(count, kind, dtypes, **arguments):
    """Recurrent layers, shaped by vLLM's own calculator."""
    return {"type": "mamba", "count": count, "state": kind, "dtypes": dtypes, "arguments": arguments}


def repeated(pattern, times):
    """A pattern of layers repeated in order."""
    return list(pattern) * times


LLAMA = "meta-llama__Meta-Llama-3-8B.json"
GEMMA = "google__gemma-3-27b-it.json"
OSS = "openai__gpt-oss-20b.json"
NEXT = "Qwen__Qwen3-Next-80B-A3B-Instruct.json"
NANO = "nvidia__NVIDIA-Nemotron-3-Nano-30B-A3B-BF16.json"
QWEN = "Qwen__Qwen3-8B.json"
QWEN_SMALL = "Qwen__Qwen3-0.6B.json"
LLAMA_SMALL = "meta-llama__Llama-3.2-1B-Instruct.json"
GEMMA_SMALL = "google__gemma-3-1b-it.json"
QWEN_27B = "Qwen__Qwen3.6-27B.json"
SCOUT = "meta-llama__Llama-4-Scout-17B-16E-Instruct.json"
V32 = "deepseek-ai__DeepSeek-V3.2.json"
V4 = "deepseek-ai__DeepSeek-V4-Flash.json"
M3 = "MiniMaxAI__MiniMax-M3.json"
BF16, F32 = "bfloat16", "float32"


def gemma_27b(heads):
    """62 layers: five windows, one full, in turn; two windows remain."""
    return [*repeated([sliding(5, heads, 128, 1024), full(1, heads, 128)], 10), sliding(2, heads, 128, 1024)]


def gdn(heads_k=16, heads_v=32, kernel=4):
    """The arguments of Qwen3-Next's gated delta layers."""
    return {
        "num_k_heads": heads_k,
        "num_v_heads": heads_v,
        "head_k_dim": 128,
        "head_v_dim": 128,
        "conv_kernel_size": kernel,
    }


def qwen_next(kv_heads, ssm=BF16):
    """48 layers: three gated delta layers, one full."""
    layer = state(3, "gated_delta_net", [BF16, ssm], **gdn())
    return repeated([layer, full(1, kv_heads, 256)], 12)


def nano(kv_heads, ssm=F32):
    """Nemotron-3-Nano's pattern without its expert layers, which cache nothing."""
    pattern = "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME"
    mamba = {
        "intermediate_size": 4096,
        "n_groups": 8,
        "num_heads": 64,
        "head_dim": 64,
        "state_size": 128,
        "conv_kernel": 4,
    }
    return [
        state(1, "mamba2", [BF16, ssm], **mamba) if mark == "M" else full(1, kv_heads, 128)
        for mark in pattern
        if mark != "E"
    ]


def ratios():
    """DeepSeek-V4-Flash: compress_ratios of its 43 layers."""
    return [0, 0, *([4, 128] * 20), 4]


def scout(heads):
    """48 layers: three chunked, one full."""
    return repeated([chunked(3, heads, 128, 8192), full(1, heads, 128)], 12)


def turboquant(dtype):
    """36 full layers of which two at each end stay in the model's own type."""
    plain = full(2, 8, 128, kv_cache_dtype="auto")
    return [plain, full(32, 8, 128), dict(plain)]


def added():
    """Rows that the first table does not cover."""
    mtp = {"speculative_config": {"method": "mtp", "num_speculative_tokens": 2}}
    eagle = {"speculative_config": {"method": "eagle3", "model": "eagle3", "num_speculative_tokens": 3}}
    off = {"disable_hybrid_kv_cache_manager": True}
    for pp, sizes in ((2, [16, 16]), (3, [10, 11, 11]), (4, [8, 8, 8, 8])):
        yield row("Llama-3-8B", LLAMA, [full(32, 8, 128)], pp=pp, stage_sizes=fixed(32, pp, sizes))
    for pp in (2, 4):
        yield row("Gemma-3-27B", GEMMA, gemma_27b(16), pp=pp, stage_sizes=fixed(62, pp), max_model_len=131072)
        yield row("gpt-oss-20b", OSS, oss(8), pp=pp, stage_sizes=fixed(24, pp))
        yield row("Qwen3-Next-80B", NEXT, qwen_next(2), pp=pp, stage_sizes=fixed(48, pp))
    for dtype in ("fp8_per_token_head", "int8_per_token_head", "int4_per_token_head"):
        yield row("Llama-3-8B", LLAMA, [full(32, 8, 128)], kv_cache_dtype=dtype)
        yield row("Gemma-3-27B", GEMMA, gemma_27b(16), kv_cache_dtype=dtype)
        yield row("Qwen3-Next-80B", NEXT, qwen_next(2), kv_cache_dtype=dtype)
    for dtype in ("turboquant_k8v4", "turboquant_4bit_nc", "turboquant_k3v4_nc", "turboquant_3bit_nc"):
        yield row("Qwen3-8B", QWEN, turboquant(dtype), kv_cache_dtype=dtype)
        yield row("Qwen3-Next-80B", NEXT, qwen_next(2), kv_cache_dtype=dtype)
    yield row("Qwen3-8B", QWEN, [full(36, 8, 128)], kv_cache_dtype="nvfp4")
    yield row("Qwen3-8B", QWEN, [full(36, 8, 128)], kv_cache_dtype="fp8_e5m2", options={"block_size": 64})
    sparse = {"block_size": 64, "tp": 8, "max_model_len": 131072}
    index = {"type": "indexer", "count": 61, "head_size": 132}
    for dtype in ("fp8_ds_mla", "nvfp4_ds_mla", "fp8_e4m3"):
        yield row("DeepSeek-V3.2", V32, [mla(61), index], kv_cache_dtype=dtype, **sparse)
    yield row("DeepSeek-V4-Flash", V4, [v4(ratio) for ratio in ratios()], layout="BLHNC", block_size=256)
    yield row(
        "DeepSeek-V4-Flash",
        V4,
        [v4(ratio) for ratio in ratios()],
        layout="BLHNC",
        block_size=256,
        tp=8,
        max_model_len=1048576,
    )
    m3_index = {"type": "indexer", "count": 57, "head_size": 128, "dtype": BF16}
    yield row("MiniMax-M3", M3, [full(60, 4, 128), m3_index], block_size=128)
    for mode in ("align", "none"):
        for tp in (1, 2, 4, 8):
            for ssm in (BF16, F32):
                yield row(
                    "Qwen3-Next-80B",
                    NEXT,
                    qwen_next(max(1, 2 // tp), ssm),
                    tp=tp,
                    mamba_cache_mode=mode,
                    max_model_len=262144,
                    options={"mamba_ssm_cache_dtype": ssm},
                )
        yield row("Nemotron-3-Nano", NANO, nano(2), mamba_cache_mode=mode, max_model_len=131072)
        yield row("Nemotron-3-Nano", NANO, nano(1), tp=4, mamba_cache_mode=mode, kv_cache_dtype="fp8")
        yield row("Nemotron-3-Nano", NANO, nano(1), tp=16, mamba_cache_mode=mode)
    qwen = [*repeated([state(3, "gated_delta_net", [BF16, F32], **gdn(16, 48)), full(1, 4, 256)], 16)]
    for dtype in ("auto", "fp8"):
        yield row(
            "Qwen3.6-27B",
            "Qwen__Qwen3.6-27B.json",
            [*qwen, full(1, 4, 256)],
            kv_cache_dtype=dtype,
            options=mtp,
        )
    yield row("Llama-3-8B", LLAMA, [full(33, 8, 128)], options=eagle)
    yield row("gpt-oss-20b", OSS, [*oss(8), full(1, 8, 64)], options=eagle)
    yield row("Llama-4-Scout", SCOUT, scout(8), max_model_len=131072, max_num_batched_tokens=2048)
    yield row("Llama-4-Scout", SCOUT, scout(2), tp=4, kv_cache_dtype="fp8", max_model_len=1048576)
    for model, config, layers in (("Gemma-3-27B", GEMMA, gemma_27b(16)), ("gpt-oss-20b", OSS, oss(8))):
        yield row(model, config, layers, options=off, max_model_len=131072)
    yield row("Llama-4-Scout", SCOUT, scout(8), options=off)
    yield row("gpt-oss-20b", OSS, oss(8), async_scheduling=False, max_model_len=131072)
    yield row("gpt-oss-20b", OSS, oss(1), tp=16, max_num_batched_tokens=16384, max_model_len=131072)
    yield row("Llama-3-8B", LLAMA, [full(32, 1, 128)], tp=8, max_model_len=8192, available_bytes=2 * GIB)
    for megabytes in (1, 512, 1024, 4096, 4098, 4100):
        yield row("Llama-3-8B", LLAMA, [full(32, 8, 128)], available_bytes=megabytes * 2**20)
    for gibibytes in (1, 2, 3):
        yield row("Qwen3-Next-80B", NEXT, qwen_next(2), available_bytes=gibibytes * GIB, max_model_len=262144)
        yield row("Gemma-3-27B", GEMMA, gemma_27b(16), available_bytes=gibibytes * GIB, max_model_len=131072)
    yield from drafted()


def drafted():
    """Rows of a separate model that drafts: its layers are planned with the served model's."""
    small = {"speculative_config": {"method": "draft_model", "model": "draft", "num_speculative_tokens": 3}}
    with_qwen = {"draft_file": QWEN_SMALL, "options": small}
    yield row("Qwen3-8B", QWEN, [full(36, 8, 128), full(28, 8, 128)], **with_qwen)
    yield row("Qwen3-8B", QWEN, [full(36, 2, 128), full(28, 2, 128)], tp=4, kv_cache_dtype="fp8", **with_qwen)
    yield row("Qwen3-8B", QWEN, [full(36, 8, 128), full(28, 8, 128)], available_bytes=4 * GIB, **with_qwen)
    with_llama = {"draft_file": LLAMA_SMALL, "options": small}
    yield row("Llama-3-8B", LLAMA, [full(32, 8, 128), full(16, 8, 64)], **with_llama)
    yield row(
        "Llama-3-8B", LLAMA, [full(32, 1, 128), full(16, 1, 64)], tp=8, max_model_len=8192, **with_llama
    )
    with_gemma = {"draft_file": GEMMA_SMALL, "options": small, "max_model_len": 131072}
    yield row("Gemma-3-27B", GEMMA, [*gemma_27b(16), *gemma_1b()], **with_gemma)
    yield row("Qwen3-Next-80B", NEXT, [*qwen_next(2), full(28, 8, 128)], max_model_len=131072, **with_qwen)


def gemma_1b():
    """26 layers: five windows of 512, one full, in turn; two windows remain."""
    return [*repeated([sliding(5, 1, 256, 512), full(1, 1, 256)], 4), sliding(2, 1, 256, 512)]


def oss(heads):
    """24 layers: a window of 128 and full attention in turn."""
    return repeated([sliding(1, heads, 64, 128), full(1, heads, 64)], 12)


def v4(ratio):
    """One layer of DeepSeek-V4."""
    return {"type": "compressed", "count": 1, "ratio": ratio}


def fixed(total, parts, expected=None):
    """vLLM's split: even, what remains from the second-last stage backwards (distributed/utils.py)."""
    sizes = [total // parts] * parts
    for offset in range(total % parts):
        sizes[(parts - 2 - offset) % parts] += 1
    assert expected is None or sorted(sizes) == sorted(expected)
    return sizes


def rows(cases):
    """Yield every row: the earlier cases with their settings as options, then those added here."""
    for case in cases:
        yield case_row(case)
    for number, one in enumerate(added(), start=1):
        yield {"id": f"x{number:03}"} | one


def case_row(case):
    """Return an earlier case with its label's settings as vLLM's options."""
    options = {}
    label = case["model"]
    if "bf16 ssm" in label:
        options["mamba_ssm_cache_dtype"] = BF16
    if "MTP(k=" in label:
        tokens = int(label.split("MTP(k=")[1].split(")")[0])
        options["speculative_config"] = {"method": "mtp", "num_speculative_tokens": tokens}
    keep = (
        "id",
        "model",
        "tp",
        "dcp",
        "max_model_len",
        "kv_cache_dtype",
        "available_bytes",
        "block_size",
        "max_num_batched_tokens",
        "async_scheduling",
        "mamba_cache_mode",
        "layers",
        "result",
        "config_file",
    )
    made = {key: case[key] for key in keep if key in case} | {"pp": 1, "options": options}
    if any(layer["type"] == "mamba" for layer in case["layers"]):
        # The block before alignment: vLLM's default, which its own code aligns again here.
        made["block_size"] = 16
    if not made.get("config_file"):
        made["config_of"] = label
    return made
