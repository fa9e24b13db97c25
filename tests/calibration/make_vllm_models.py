"""Run vLLM's own configuration, model classes, backends and planner on a made-up card.

It needs no GPU: unpack the ``.py`` files of ``pip download --no-deps vllm==0.33.0`` into a folder, make a
virtual environment with ``torch==2.13.0``, ``triton``, ``transformers`` and the pure-Python packages that
vLLM imports, and run

    python tests/calibration/make_vllm_models.py FOLDER h100 ROWS.jsonl OUT.jsonl
    python tests/calibration/make_vllm_models.py FOLDER h100 CONFIGS OUT.jsonl --seed 1 --number 160

ROWS has one run a line: ``model``, ``config``, ``args`` (EngineArgs) and ``available_bytes``; CONFIGS is a
folder of config.json files named ``org__name.json``, of which runs with random settings are drawn. Each run
is a process of its own, forked once everything is imported. What is vLLM's: EngineArgs to VllmConfig, the
model's layers, the choice of attention backends, block sizes, specs, groups, fit test and capacity. What
is a stub: the card, process groups, kernels, and weights, which stay on torch's meta device. Lines of OUT
that ran have ``result``, others ``crash``; those of tests/oracles/vllm_models.jsonl are such lines, without
their config where the bundled model gives the same plan.
"""

import argparse
import json
import os
import random
import sys
import tempfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parent))

import made_up_card

GIB = 2**30
# Compute capability, GiB that CUDA shows, name.
CARDS = {
    "h100": ((9, 0), 79.19, "NVIDIA H100 80GB HBM3"),
    "b200": ((10, 0), 178.35, "NVIDIA B200"),
    "rtx-5090": ((12, 0), 31.36, "NVIDIA GeForce RTX 5090"),
    "a100-80gb": ((8, 0), 79.25, "NVIDIA A100-SXM4-80GB"),
}
EXTENSIONS = (
    "vllm._C", "vllm._C_stable_libtorch", "vllm._moe_C", "vllm._moe_C_stable_libtorch", "vllm._flashmla_C",
    "vllm._flashmla_extension_C", "vllm._flashkda_C", "vllm.cumem_allocator",
    "vllm.vllm_flash_attn._vllm_fa2_C", "vllm.vllm_flash_attn._vllm_fa3_C",
)  # fmt: skip
GROUPS = {"_TP": "tensor", "_PP": "pipeline", "_DP": "data", "_DCP": "decode_context"}
NESTED = ("llm_config", "text_config", "vision_config", "language_config", "audio_config")
DTYPES = (
    "fp8", "fp8_e5m2", "bfloat16", "fp8_per_token_head", "int8_per_token_head", "int4_per_token_head",
    "nvfp4", "turboquant_k8v4", "turboquant_4bit_nc", "turboquant_3bit_nc",
)  # fmt: skip


def load(folder, card):
    """Import vLLM on a card."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ["VLLM_NO_USAGE_STATS"] = os.environ["HF_HUB_OFFLINE"] = "1"
    capability, gib, name = CARDS[card]
    made_up_card.install("vllm", capability, int(gib * GIB), name, EXTENSIONS)
    metadata = Path(tempfile.mkdtemp()) / "vllm-0.33.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.33.0\n")
    sys.path[:0] = [folder, str(metadata.parent)]
    import vllm.platforms
    from vllm.platforms.cuda import CudaPlatformBase
    from vllm.platforms.interface import DeviceCapability

    class Card(CudaPlatformBase):
        get_device_capability = classmethod(lambda cls, device_id=0: DeviceCapability(*capability))
        get_device_name = classmethod(lambda cls, device_id=0: name)
        get_device_total_memory = classmethod(lambda cls, device_id=0: int(gib * GIB))
        get_device_uuid = classmethod(lambda cls, device_id=0: "GPU-0")
        is_fully_connected = classmethod(lambda cls, device_ids: True)
        device_count = classmethod(lambda cls: 8)
        import_kernels = classmethod(lambda cls: None)

    vllm.platforms._current_platform = Card()
    import vllm.model_executor.models.registry as registry

    # Classes are inspected here, not in a process that would see no card.
    registry._LazyRegisteredModel.inspect_model_cls = lambda self: registry._ModelInfo.from_model_cls(
        self.load_model_cls()
    )
    import vllm.v1.core.kv_cache_planning
    import vllm.v1.worker.gpu.attn_utils


class Group:
    """A process group of one process that believes in ``world_size`` ranks."""

    def __init__(self, size, rank):
        import torch

        self.world_size, self.rank_in_group, self.rank, self.local_rank = size, rank, rank, rank
        self.ranks, self.first_rank, self.last_rank = list(range(size)), 0, size - 1
        self.is_first_rank, self.is_last_rank = rank == 0, rank == size - 1
        self.device, self.unique_name = torch.device("meta"), "group"
        self.device_communicator = self.mq_broadcaster = None
        self.device_group = self.cpu_group = SimpleNamespace(
            size=lambda: size, rank=lambda: rank, name=lambda: "group", group_name="group"
        )

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: args[0] if args else None


def set_groups(parallel, stage):
    """Give the process the groups of one pipeline stage's first rank."""
    import vllm.distributed.parallel_state as state

    world = parallel.tensor_parallel_size * parallel.data_parallel_size
    for name, value in list(vars(state).items()):
        if not (name.startswith("_") and name.isupper() and isinstance(value, Group | None)):
            continue
        size = {"_EP": world, "_WORLD": world * parallel.pipeline_parallel_size}.get(name, 1)
        if name in GROUPS:
            size = getattr(parallel, f"{GROUPS[name]}_parallel_size")
        setattr(state, name, Group(size, stage if name == "_PP" else 0))


def register(kind):
    """Make transformers know a model type whose config class comes with its repository."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from vllm.transformers_utils.config import _CONFIG_REGISTRY

    if not kind or kind in _CONFIG_REGISTRY or kind in CONFIG_MAPPING:
        return

    class Plain(transformers.PretrainedConfig):
        model_type = kind

        def __init__(self, **given):
            for name in NESTED:
                if isinstance(given.get(name), dict):
                    inner = given[name].get("model_type")
                    make = CONFIG_MAPPING.get(inner, transformers.PretrainedConfig)
                    given[name] = make(**given[name])
            super().__init__(**given)

    transformers.AutoConfig.register(kind, Plain, exist_ok=True)


def resolved(row):
    """Return vLLM's VllmConfig for a run's flags."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.usage.usage_lib import UsageContext

    folder = Path(tempfile.mkdtemp()) / row["model"].replace("/", "__")
    folder.mkdir()
    config = {key: value for key, value in row["config"].items() if key != "auto_map"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    register(config.get("model_type"))
    arguments = EngineArgs(
        model=str(folder), tokenizer=str(folder), skip_tokenizer_init=True, load_format="dummy", **row["args"]
    )
    return arguments.create_engine_config(UsageContext.OPENAI_API_SERVER)


def build(config, stage, factories):
    """Make the layers of a stage, and of what drafts on the last one."""
    from vllm.compilation.backends import set_model_tag
    from vllm.config import replace, set_current_vllm_config
    from vllm.model_executor.model_loader.utils import initialize_model
    from vllm.utils.torch_utils import set_default_torch_dtype

    set_groups(config.parallel_config, stage)
    config.compilation_config.static_forward_context.clear()
    with factories, set_current_vllm_config(config), set_default_torch_dtype(config.model_config.dtype):
        initialize_model(vllm_config=config)
        drafts = config.speculative_config
        is_last = stage == config.parallel_config.pipeline_parallel_size - 1
        if drafts is None or not is_last or not (drafts.method == "mtp" or "eagle" in drafts.method):
            return
        own = replace(
            config, model_config=drafts.draft_model_config, parallel_config=drafts.draft_parallel_config,
            quant_config=None,
        )  # fmt: skip
        with set_model_tag("eagle_head"):
            initialize_model(vllm_config=own, model_config=drafts.draft_model_config)
        if own.compilation_config is not config.compilation_config:
            layers = own.compilation_config.static_forward_context
            config.compilation_config.static_forward_context.update(layers)


def run(row):
    """Return vLLM's results for one run, in the order in which its engine core works them out."""
    from vllm.config import get_layers_from_vllm_config, set_current_vllm_config
    from vllm.distributed.kv_transfer.kv_connector.utils import get_current_attn_backends
    from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase
    from vllm.platforms import current_platform
    from vllm.v1.attention.backends.utils import get_supported_kv_cache_layouts, resolve_kv_cache_layout
    from vllm.v1.core.single_type_kv_cache_manager import register_all_kvcache_specs
    from vllm.v1.worker.gpu.attn_utils import get_kv_cache_spec

    factories = made_up_card.factories()
    config = resolved(row)
    register_all_kvcache_specs(config)
    stages = []
    for stage in range(config.parallel_config.pipeline_parallel_size):
        build(config, stage, factories)
        if stage == 0:
            current_platform.update_block_size_for_backend(config)
        with set_current_vllm_config(config):
            stages.append(get_kv_cache_spec(config))
    backends = get_current_attn_backends(config)
    supported = [each.name for each in get_supported_kv_cache_layouts(backends)]
    resolve_kv_cache_layout(config, [supported], [spec for stage in stages for spec in stage.values()])
    layers = get_layers_from_vllm_config(config, AttentionLayerBase).values()
    names = sorted({layer.get_attn_backend().get_name() for layer in layers})
    row["max_model_len"] = config.model_config.max_model_len
    return {"backends": names, **planned(config, stages, row)}


def planned(config, stages, row):
    """Run the planner on the stages' specs."""
    import vllm.v1.core.kv_cache_planning as plan
    from vllm.v1.core.kv_cache_config_builder import get_kv_cache_config_builder
    from vllm.v1.core.kv_cache_utils import get_kv_cache_capacity

    builder = get_kv_cache_config_builder(config)
    try:
        groups = plan.get_global_kv_cache_groups(config, stages)
    except ValueError as raised:
        return {"fits": False, "error": str(raised)}
    mine = [plan._project_kv_cache_groups_to_worker(groups, stage) for stage in stages]
    each = [plan._pool_bytes_per_block_from_builder(builder, config, part) for part in mine]
    needed = [plan._max_memory_usage_bytes_from_groups(builder, config, part) for part in mine]
    blocks = config.cache_config.num_gpu_blocks_override
    rooms = [blocks * size if blocks else row["available_bytes"] for size in each]
    longest = partial(plan._estimate_max_model_len_from_groups, builder, config)
    worst = each.index(max(each))
    made = builder.get_kv_cache_config_from_groups(config, mine[worst], rooms[worst] // each[worst])
    error = None
    try:
        plan.get_kv_cache_configs(config, stages, [row["available_bytes"]] * len(stages), groups)
    except ValueError as raised:
        error = str(raised).split(" Try increasing")[0]
    tokens, concurrency = get_kv_cache_capacity(config, made)
    return {
        "pool_bytes_per_block": each[worst],
        "num_blocks": made.num_blocks,
        "kv_tokens": tokens,
        "max_concurrency": round(concurrency, 4),
        "blocks_per_request": needed[worst] // each[worst],
        "max_memory_usage_bytes": needed[worst],
        "estimated_max_len": min(
            longest(part, room - size) for part, room, size in zip(mine, rooms, each, strict=True)
        ),
        "fits": error is None,
        "error": error,
        "groups": [
            [len(group.layer_names), group.kv_cache_spec.block_size, group.kv_cache_spec.page_size_bytes]
            for group in groups
        ],
    }


def drawn(folder, seed, number):
    """Yield runs with random settings of random configs."""
    chance = random.Random(seed)
    files = sorted(Path(folder).glob("*.json"))

    def maybe(share, *values):
        return chance.choice(values) if chance.random() < share else None

    for index in range(number):
        path = chance.choice(files)
        config = json.loads(path.read_text(encoding="utf-8"))
        text = config.get("text_config") or config
        settings = {
            "tensor_parallel_size": maybe(0.5, 2, 4, 8),
            "kv_cache_dtype": maybe(0.35, *DTYPES),
            "block_size": maybe(0.2, 32, 64, 128, 256),
            "enable_prefix_caching": maybe(0.3, False),
            "max_num_batched_tokens": maybe(0.3, 2048, 4096, 16384, 32768),
            "max_num_seqs": maybe(0.15, 1, 16, 64, 256, 2048),
            "disable_hybrid_kv_cache_manager": maybe(0.12, True),
            "async_scheduling": maybe(0.15, True, False),
            "mamba_ssm_cache_dtype": maybe(0.1, "float32", "bfloat16"),
            "num_gpu_blocks_override": maybe(0.06, 500, 5000),
        }
        draft = maybe(0.2, {"method": "ngram", "num_speculative_tokens": chance.choice((1, 3, 5))})
        if text.get("num_nextn_predict_layers") or text.get("mtp_num_hidden_layers"):
            draft = maybe(0.5, {"method": "mtp", "num_speculative_tokens": chance.choice((1, 2, 3))})
        settings["speculative_config"] = draft
        gib = chance.choice((chance.uniform(0.01, 2), chance.uniform(1, 60), chance.uniform(2, 20)))
        yield {
            "id": f"{seed}-{index}",
            "model": path.stem.replace("__", "/"),
            "config": config,
            "args": {key: value for key, value in settings.items() if value is not None},
            "available_bytes": int(gib * GIB),
        }


def main():
    """Run the rows and write them with their results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("card", choices=CARDS)
    parser.add_argument("runs", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--number", type=int, default=100)
    asked = parser.parse_args()
    if asked.runs.is_dir():
        rows = list(drawn(asked.runs, asked.seed, asked.number))
    else:
        rows = [json.loads(line) for line in asked.runs.read_text(encoding="utf-8").splitlines()]
    load(asked.folder, asked.card)
    with asked.out.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(made_up_card.forked(run, {**row, "gpu": asked.card}) + "\n")
            file.flush()


if __name__ == "__main__":
    main()
