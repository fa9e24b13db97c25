"""Make tests/oracles/vllm_planner.jsonl by running vLLM's own KV cache planner.

It needs no GPU: unpack the ``.py`` files of ``pip download --no-deps vllm==0.33.0`` into a folder, make
a virtual environment with ``torch==2.13.0`` and the pure-Python packages that vLLM imports, and run

    python tests/calibration/make_vllm_planner.py FOLDER CONFIGS [CASES]

CONFIGS is a folder of config.json files named ``org__name.json``; CASES an earlier table whose layer
lists are run again. What is vLLM's here: the spec classes and the backends' packing of them, the
hybrid block alignment, the mamba state shapes, grouping, bytes of a block, fit test, longest context,
tokens and concurrency. What is a stub: the resolved VllmConfig (a namespace with the settings of a
row) and modules that are not installed. Layers are written here from the models' published configs.
"""

import json
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

HERE = Path(__file__).resolve().parent
ORACLE = HERE.parent / "oracles" / "vllm_planner.jsonl"
PUBLISHED = json.loads((HERE / "vllm_published_configs.json").read_text(encoding="utf-8"))
GIB = 2**30
ORIGIN = (
    "vLLM 0.33.0's own planner (specs, backends' packing, hybrid alignment, groups, fit test, capacity) "
    "run by tests/calibration/make_vllm_planner.py on layers of real models' published configs"
)


def load(folder):
    """Import vLLM's modules, putting an empty stand-in for every module that is not installed."""
    sys.path.insert(0, folder)

    def module(name):
        for _ in range(60):
            try:
                return __import__(f"vllm.{name}", fromlist=["*"])
            except ModuleNotFoundError as error:
                sys.modules[error.name] = MagicMock(name=error.name)
        raise SystemExit(f"vllm.{name} does not load")

    return SimpleNamespace(
        spec=module("v1.kv_cache_interface"),
        plan=module("v1.core.kv_cache_planning"),
        use=module("v1.core.kv_cache_utils"),
        triton=module("v1.attention.backends.triton_attn").TritonAttentionBackend,
        turboquant=module("v1.attention.backends.turboquant_attn").TurboQuantAttentionBackend,
        flash=module("v1.attention.backends.flash_attn").FlashAttentionBackend,
        flashinfer=module("v1.attention.backends.flashinfer").FlashInferBackend,
        latent=module("model_executor.layers.attention.mla_attention").MLACommonBackend,
        shapes=module("model_executor.layers.mamba.mamba_utils").MambaStateShapeCalculator,
        platform=module("platforms.interface").Platform,
        dtypes=module("utils.torch_utils").STR_DTYPE_TO_TORCH_DTYPE,
        models=module("model_executor.models"),
    )


V = SimpleNamespace()
DS_MLA = {"fp8_ds_mla": 656, "nvfp4_ds_mla": 352}


def torch_dtype(name):
    """Return the torch dtype of a cache dtype; the model's own is bf16."""
    import torch

    return torch.uint8 if name == "uint8" else V.dtypes["bfloat16" if name == "auto" else name]


def backend_of(dtype, kind):
    """Return the backend that packs a dtype."""
    if kind == "mla":
        return V.latent
    if dtype.startswith("turboquant"):
        return V.turboquant
    return V.flashinfer if dtype.startswith("nvfp4") else V.triton


def attention_spec(layer, block, dtype):
    """Build one attention layer's spec, packed by its backend."""
    kind = layer["type"]
    dtype = layer.get("kv_cache_dtype", dtype)
    mode = V.spec.get_kv_quant_mode(dtype)
    common = {
        "block_size": layer.get("block_size", block),
        "dtype": torch_dtype(dtype),
        "kv_quant_mode": mode,
    }
    if kind == "mla":
        spec = V.spec.MLAAttentionSpec(
            **common,
            num_kv_heads=1,
            head_size=layer["head_size"],
            cache_dtype_str=dtype,
            state_content_bytes=DS_MLA.get(dtype),
        )
        return V.latent.customize_spec(spec)
    if kind == "indexer":
        return V.spec.MLAAttentionSpec(
            block_size=block,
            num_kv_heads=1,
            head_size=layer["head_size"],
            dtype=torch_dtype(layer.get("dtype", "uint8")),
            cache_role=V.spec.SparseCacheRole.INDEXER,
        )
    common |= {"num_kv_heads": layer["num_kv_heads"], "head_size": layer["head_size"]}
    made = {
        "full": lambda: V.spec.FullAttentionSpec(**common),
        "sliding": lambda: V.spec.SlidingWindowSpec(**common, sliding_window=layer["sliding_window"]),
        "chunked": lambda: V.spec.ChunkedLocalAttentionSpec(**common, attention_chunk_size=layer["chunk"]),
        "cross": lambda: V.spec.CrossAttentionSpec(**common),
    }[kind]()
    return backend_of(dtype, kind).customize_spec(made)


def compressed_specs(layer, block):
    """Build DeepSeek-V4's caches of one layer, as models/deepseek_v4 declares them."""
    import torch

    ratio, packed = layer["ratio"], {"dtype": torch.uint8, "num_kv_heads": 1, "alignment": 576}
    yield (
        "swa",
        V.spec.SlidingWindowMLASpec(
            **packed,
            block_size=64,
            head_size=512,
            sliding_window=128,
            cache_dtype_str="fp8_ds_mla",
            state_content_bytes=584,
            model_version="deepseek_v4",
        ),
    )
    if not ratio:
        return
    yield (
        "rows",
        V.spec.MLAAttentionSpec(
            **packed,
            block_size=block,
            head_size=512,
            tokens_per_state=ratio,
            cache_dtype_str="fp8_ds_mla",
            model_version="deepseek_v4",
            state_content_bytes=584,
        ),
    )

    def compressor(width):
        overlap = 2 if ratio == 4 else 1
        return V.spec.SlidingWindowMLASpec(
            block_size=4 if ratio == 4 else 8,
            num_kv_heads=1,
            head_size=2 * overlap * width,
            dtype=torch.float32,
            sliding_window=overlap * ratio,
            alignment=576,
        )

    yield "compressor", compressor(512)
    if ratio == 4:
        yield (
            "index",
            V.spec.MLAAttentionSpec(
                **packed,
                block_size=block,
                head_size=132,
                tokens_per_state=4,
            ),
        )
        yield "index_compressor", compressor(128)


def mamba_parts(layer, row):
    """Return (shapes, torch dtypes) of a recurrent layer on one rank."""
    if "shapes" in layer:
        return [tuple(shape) for shape in layer["shapes"]], [V.dtypes[name] for name in layer["dtypes"]]
    kind, arguments = layer["state"], dict(layer["arguments"])
    num_spec = row["options"].get("speculative_config", {}).get("num_speculative_tokens", 0)
    if kind != "mamba1":
        arguments["num_spec"] = num_spec
    shapes = getattr(V.shapes, f"{kind}_state_shape")(tp_world_size=row["tp"], **arguments)
    return list(shapes), [V.dtypes[name] for name in layer["dtypes"]]


def config_of(row, num_spec):
    """Return the stand-in for the resolved VllmConfig."""
    tokens, steps = row["max_num_batched_tokens"], row["pp"] + 1 if row["async_scheduling"] else row["pp"]
    layout = V.spec.KVCacheLayout[row.get("layout", "LBNHC")]
    return SimpleNamespace(
        max_in_flight_tokens=tokens * steps,
        num_speculative_tokens=num_spec,
        num_prefill_lookahead_tokens=0,
        speculative_config=None,
        kv_transfer_config=None,
        attention_config=SimpleNamespace(hisparse_config=None),
        device_config=SimpleNamespace(device_type="cuda"),
        model_config=SimpleNamespace(
            max_model_len=row["max_model_len"],
            original_max_model_len=row["max_model_len"],
            supports_kv_cache_grouping=False,
        ),
        parallel_config=SimpleNamespace(
            decode_context_parallel_size=row["dcp"],
            tensor_parallel_size=row["tp"],
            pipeline_parallel_size=row["pp"],
        ),
        scheduler_config=SimpleNamespace(
            disable_hybrid_kv_cache_manager=row["options"].get("disable_hybrid_kv_cache_manager", False),
            max_num_encoder_input_tokens=tokens,
            max_num_batched_tokens=tokens,
        ),
        cache_config=SimpleNamespace(
            mamba_cache_mode=row["mamba_cache_mode"],
            num_gpu_blocks_override=None,
            prefix_cache_retention_interval=None,
            get_resolved_kv_cache_layout=lambda: layout,
        ),
    )


def beside_wide_layers(row, layers, block):
    """Run the real alignment for layers that keep the model's own type; return the block."""
    first = next((layer for layer in layers if "num_kv_heads" in layer), None)
    dtype = row["kv_cache_dtype"]
    if first is None or not any(layer.get("kv_cache_dtype", dtype) != dtype for layer in layers):
        return block
    cache = SimpleNamespace(
        cache_dtype=dtype,
        block_size=block,
        mamba_page_size_padded=None,
        kv_cache_dtype_skip_layers=["0"],
    )
    config = SimpleNamespace(
        cache_config=cache,
        model_config=SimpleNamespace(
            dtype=V.dtypes["bfloat16"],
            get_num_kv_heads=lambda parallel: first["num_kv_heads"],
            get_head_size=lambda: first["head_size"],
        ),
        parallel_config=None,
    )
    from contextlib import nullcontext

    import vllm.config.vllm as module

    kept, module.set_current_vllm_config = module.set_current_vllm_config, lambda *a, **k: nullcontext()
    try:
        # The first layer's backend, which is one of those in the model's own type.
        V.platform._align_heterogeneous_kv_block_size(config, V.flash)
    finally:
        module.set_current_vllm_config = kept
    return cache.block_size


def aligned(row, layers):
    """Run the real hybrid alignment; return (attention block, padded mamba page or None)."""
    states = [layer for layer in layers if layer["type"] == "mamba"]
    attention = [layer for layer in layers if layer["type"] in ("full", "sliding", "mla")]
    block = row["options"].get("block_size") or row["block_size"]
    if not states or not attention:
        return beside_wide_layers(row, layers, block), None
    shapes, dtypes = mamba_parts(states[0], row)
    model = SimpleNamespace(
        get_mamba_state_shape_from_config=lambda config: shapes,
        get_mamba_state_dtype_from_config=lambda config: dtypes,
    )
    # A class without get_mamba_specs_from_config, as all but one are.
    V.models.ModelRegistry = SimpleNamespace(resolve_model_cls=lambda *a, **k: (model, ""))
    first = attention[0]
    dtype = row["kv_cache_dtype"]
    cache = SimpleNamespace(
        cache_dtype=dtype,
        block_size=block,
        mamba_cache_mode=row["mamba_cache_mode"],
        mamba_block_size=None,
        mamba_page_size_padded=None,
        kv_cache_dtype_skip_layers=[],
    )
    config = SimpleNamespace(
        cache_config=cache,
        model_config=SimpleNamespace(
            dtype=V.dtypes["bfloat16"],
            use_mla=first["type"] == "mla",
            get_num_kv_heads=lambda parallel: first.get("num_kv_heads", 1),
            get_head_size=lambda: first["head_size"],
            architecture="",
        ),
        parallel_config=None,
        compilation_config=MagicMock(),
    )
    backend = backend_of(dtype, first["type"])
    platform = type("Here", (V.platform,), {"_find_non_ssm_backends": classmethod(lambda c, v: [backend])})
    from contextlib import nullcontext

    import vllm.config.vllm as module
    import vllm.model_executor.layers.mamba.abstract as abstract

    abstract.get_mamba_prefill_checkpoint_alignment = lambda config: None
    kept, module.set_current_vllm_config = module.set_current_vllm_config, lambda *a, **k: nullcontext()
    try:
        platform._align_hybrid_block_size(config, backend)
    finally:
        module.set_current_vllm_config = kept
    return cache.block_size, cache.mamba_page_size_padded


def specs_of(row):
    """Return each pipeline stage's specs by layer name, in layer order."""
    num_spec = row["options"].get("speculative_config", {}).get("num_speculative_tokens", 0)
    order = [layer for part in row["layers"] for layer in [part] * part["count"]]
    block, padded = aligned(row, row["layers"])
    mamba_block = row["max_model_len"] if row["mamba_cache_mode"] == "none" else block
    made = []
    for index, layer in enumerate(order):
        name = f"layers.{index}"
        if layer["type"] == "mamba":
            shapes, dtypes = mamba_parts(layer, row)
            made.append(
                {
                    name: V.spec.MambaSpec(
                        block_size=mamba_block,
                        shapes=tuple(shapes),
                        dtypes=tuple(dtypes),
                        page_size_padded=padded,
                        mamba_cache_mode=row["mamba_cache_mode"],
                        num_speculative_blocks=num_spec,
                    )
                }
            )
        elif layer["type"] == "compressed":
            made.append({f"{name}.{part}": spec for part, spec in compressed_specs(layer, block)})
        else:
            made.append({name: attention_spec(layer, block, row["kv_cache_dtype"])})
    if row["pp"] == 1:
        return [{name: spec for part in made for name, spec in part.items()}]
    stages, start = [], 0
    for size in row["stage_sizes"]:
        part = made[start : start + size]
        stages.append({name: spec for one in part for name, spec in one.items()})
        start += size
    return stages


def run(row):
    """Plan one row with vLLM and return its results."""
    num_spec = row["options"].get("speculative_config", {}).get("num_speculative_tokens", 0)
    config = config_of(row, num_spec)
    builder = V.plan.DefaultKVCacheConfigBuilder()
    stages = specs_of(row)
    groups = V.plan.get_kv_cache_groups_from_builder(
        builder, config, {name: spec for stage in stages for name, spec in stage.items()}
    )
    projected = [V.plan._project_kv_cache_groups_to_worker(groups, stage) for stage in stages]
    each = [V.plan._pool_bytes_per_block_from_builder(builder, config, mine) for mine in projected]
    available = row["available_bytes"]
    needed = [V.plan._max_memory_usage_bytes_from_groups(builder, config, mine) for mine in projected]
    estimated = [
        V.plan._estimate_max_model_len_from_groups(builder, config, mine, available - size)
        for mine, size in zip(projected, each, strict=True)
    ]
    error = None
    for mine, size in zip(projected, each, strict=True):
        try:
            V.plan._check_enough_kv_cache_memory(
                available - size,
                partial(V.plan._max_memory_usage_bytes_from_groups, builder, config, mine),
                row["max_model_len"],
                partial(V.plan._estimate_max_model_len_from_groups, builder, config, mine),
            )
        except ValueError as raised:
            error = str(raised)
            break
    worst = max(range(len(each)), key=lambda stage: each[stage])
    made = builder.get_kv_cache_config_from_groups(config, projected[worst], available // each[worst])
    tokens, concurrency = V.use.get_kv_cache_capacity(config, made)
    return {
        "pool_bytes_per_block": each[worst],
        "groups": [
            {
                "layers": len(group.layer_names),
                "block_size": group.kv_cache_spec.block_size,
                "page_size_bytes": group.kv_cache_spec.page_size_bytes,
            }
            for group in groups
        ],
        "max_memory_usage_bytes": needed[worst],
        "blocks_per_request": needed[worst] // each[worst],
        "estimated_max_len": min(estimated),
        "fits": error is None,
        "error": error,
        "num_blocks": made.num_blocks,
        "kv_tokens": tokens,
        "max_concurrency": round(concurrency, 4),
    }


def main():
    """Write the table: the rows of CASES and of vllm_planner_rows.py, each with its config."""
    vars(V).update(vars(load(sys.argv[1])))
    from vllm_planner_rows import rows

    configs = Path(sys.argv[2])
    cases = Path(sys.argv[3]).read_text(encoding="utf-8").splitlines() if len(sys.argv) > 3 else []
    lines = [json.dumps({"origin": ORIGIN})]
    for row in rows([json.loads(line) for line in cases]):
        name = row.pop("config_file", None)
        if name:
            row["config"] = shortened(json.loads((configs / name).read_text(encoding="utf-8")))
        else:
            row["config"] = PUBLISHED[row["config_of"]]["config"]
        draft = row.pop("draft_file", None)
        if draft:
            row["draft"] = shortened(json.loads((configs / draft).read_text(encoding="utf-8")))
        old = row.pop("result", None)
        row["result"] = run(row)
        for key, value in (old or {}).items():
            if key in row["result"] and key not in ("groups", "error") and row["result"][key] != value:
                print(row["id"], row["model"], key, "now", row["result"][key], "before", value)
        lines.append(json.dumps(row))
    ORACLE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines) - 1} rows")


def shortened(config):
    """Drop what says nothing of shapes, so that the table stays small."""
    drop = ("quantization_config", "vision_config", "audio_config", "id2label", "label2id", "auto_map")
    return {key: value for key, value in config.items() if key not in drop}


if __name__ == "__main__":
    main()
