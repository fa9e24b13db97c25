"""Run SGLang's own sizing code on a made-up card: settings, pools, slots and running requests.

It needs no GPU: unpack the ``.py`` files of ``pip download --no-deps sglang==0.5.23`` into a folder, make a
virtual environment with ``torch``, ``triton``, ``transformers==5.19.0`` and the pure-Python packages that
SGLang imports, and run

    python tests/calibration/make_sglang_models.py FOLDER ROWS.jsonl OUT.jsonl

ROWS has one run a line: ``model``, ``config``, ``gpu`` (``mib``, compute capability ``cap``, ``name``; one
capability a file), ``server_args`` and, where pools are sized, ``pre_model_load_gb`` and
``avail_after_load_gb``; ``pp_rank`` where it is not 0. Each run is a process of its own, forked once
everything is imported. What is SGLang's: ServerArgs, ModelConfig, the cache's dtype and
KVCacheConfigurator. What is a stub: the card, its free memory, process groups, the model object. Lines of
OUT that ran have ``result``, others ``crash``; sglang_scoreboard.py compares and trims them.
"""

import json
import os
import sys
import tempfile
import types
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import made_up_card

MIB = 2**20
KERNELS = made_up_card.KERNELS | {
    "sgl_kernel", "pynvml", "vllm", "gguf", "numba", "tvm", "decord", "blake3", "grpc", "prometheus_client",
    "outlines", "llguidance", "uvicorn", "fastapi", "starlette", "mistral_common", "openai",
}  # fmt: skip
NOT_AFTER_LOADING = 0.96
FREE = {"gib": 0.0, "mib": 0.0}


def load(folder, gpu):
    """Import SGLang on a card; what it reads of the card's memory comes from ``FREE``."""
    made_up_card.install("sglang", tuple(gpu["cap"]), gpu["mib"] * MIB, gpu["name"], kernels=KERNELS)
    sys.path.insert(0, folder)
    package = types.ModuleType("sglang")
    package.__path__, package.__version__ = [f"{folder}/sglang"], "0.5.23"
    sys.modules["sglang"] = package
    import sglang.srt.utils
    import torch
    from sglang.srt.utils import common

    def free(*args, **kwargs):
        return FREE["gib"]

    common.get_available_gpu_memory = sglang.srt.utils.get_available_gpu_memory = free
    common.get_nvgpu_memory_capacity = lambda: float(FREE["mib"])
    common.get_device_memory_capacity = lambda *args, **kwargs: float(FREE["mib"])
    from sglang.srt.mem_cache import kv_cache_configurator

    kv_cache_configurator.get_available_gpu_memory = free
    torch.distributed.all_reduce = lambda *args, **kwargs: None


def resolved(row):
    """Return SGLang's ServerArgs and ModelConfig, published for the row's rank."""
    from sglang.srt.configs.model_config import ModelConfig
    from sglang.srt.runtime_context import SpawnRanks, get_parallel, publish
    from sglang.srt.server_args import ServerArgs

    folder = Path(tempfile.mkdtemp()) / row["model"].replace("/", "__")
    folder.mkdir()
    config = {key: value for key, value in row["config"].items() if key != "auto_map"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    arguments = ServerArgs(model_path=str(folder), **row["server_args"])
    arguments.resolve_once()
    tensor, pipeline = (row["server_args"].get(name, 1) for name in ("tp_size", "pp_size"))
    rank = row.get("pp_rank") or 0
    publish(arguments, role="scheduler", ranks=SpawnRanks(world_rank=rank * tensor, gpu_id=0))
    world = types.SimpleNamespace(
        world_size=pipeline * tensor, rank_in_group=0, cpu_group=None, device_group=None
    )
    get_parallel().override_permanently(world_group=world)
    return arguments, ModelConfig.from_server_args(arguments)


def settings():
    """Return what the published settings say."""
    from sglang.srt.runtime_context import attention_backends, get_exec, get_schedule

    schedule = get_schedule()
    return {
        "mem_fraction_static": schedule.mem_fraction_static,
        "chunked_prefill_size": schedule.chunked_prefill_size,
        "page_size": schedule.page_size,
        "attention_backend": list(attention_backends()),
        "cuda_graph_decode_max_bs": get_exec().graph.cuda_graph_config.decode.max_bs,
    }


def stand_in(row, model_config):
    """Return what the configurator reads of a model: its config, its stage, its cache's scheme."""
    from sglang.srt.distributed.utils import get_pp_indices

    model = types.SimpleNamespace(config=model_config.hf_config)
    stages = row["server_args"].get("pp_size", 1)
    if stages > 1:
        part = get_pp_indices(model_config.num_hidden_layers, row.get("pp_rank") or 0, stages)
        model.start_layer, model.end_layer = part
    config = row["config"]
    scheme = (
        config.get("quantization_config")
        or (config.get("text_config") or {}).get("quantization_config")
        or {}
    )
    if scheme.get("quant_method") == "modelopt":
        inner = scheme.get("quantization") or {}
        named = scheme.get("kv_cache_quant_algo") or inner.get("kv_cache_quant_algo")
        bits = (scheme.get("kv_cache_scheme") or {}).get("num_bits")
        algorithm = named or ("FP8" if bits == 8 else None)
        model.quant_config = types.SimpleNamespace(kv_cache_quant_algo=algorithm)
    return model


def configurator(row, arguments, model_config):
    """Return SGLang's KVCacheConfigurator of the row's rank."""
    from sglang.srt.configs.model_config import AttentionArch
    from sglang.srt.mem_cache.kv_cache_configurator import KVCacheConfigurator
    from sglang.srt.mem_cache.kv_cache_dtype import configure_kv_cache_dtype
    from sglang.srt.model_executor.model_runner_components.layer_setup import resolve_layer_indices
    from sglang.srt.model_executor.model_runner_components.spec_aux_hidden_state import (
        resolve_spec_aux_hidden_state_config,
    )
    from sglang.srt.runtime_context import get_model, get_parallel, get_schedule, get_spec
    from sglang.srt.speculative.spec_info import SpeculativeAlgorithm

    model = stand_in(row, model_config)
    rank, stages = row.get("pp_rank") or 0, row["server_args"].get("pp_size", 1)
    algorithm = SpeculativeAlgorithm.from_string(get_spec().speculative_algorithm)
    auxiliary = resolve_spec_aux_hidden_state_config(
        server_args=arguments, model_config=model_config, spec_algorithm=algorithm, is_draft_worker=False
    )
    name, dtype = configure_kv_cache_dtype(
        server_args_kv_cache_dtype=get_model().kv_cache_dtype, model=model, model_dtype=model_config.dtype,
        is_draft_worker=False, is_dflash=False, speculative_draft_attention_backend=None,
        speculative_draft_kv_cache_dtype=get_spec().speculative_draft_kv_cache_dtype,
    )  # fmt: skip
    stage = types.SimpleNamespace(
        world_size=stages, rank_in_group=rank, cpu_group=None, device_group=None,
        is_first_rank=rank == 0, is_last_rank=rank == stages - 1,
    )  # fmt: skip
    return KVCacheConfigurator(
        device="cuda", gpu_id=0, attn_dp_size=get_parallel().attn_dp_size, pp_size=stages, pp_group=stage,
        model=model, model_config=model_config, server_args=arguments, kv_cache_dtype=dtype,
        kv_cache_dtype_str=get_model().kv_cache_dtype if name is None else name,
        model_dtype=model_config.dtype, page_size=get_schedule().page_size,
        sliding_window_size=model_config.sliding_window_size, spec_algorithm=algorithm,
        is_draft_worker=False, post_capture_kv_active=False, spec_aux_config=auxiliary,
        draft_parallel_layout=None, is_hybrid_swa=model_config.is_hybrid_swa,
        is_hybrid_swa_compress=model_config.is_hybrid_swa_compress,
        use_mla_backend=model_config.attention_arch == AttentionArch.MLA,
        layer_info=resolve_layer_indices(
            model=model, model_config=model_config, is_draft_worker=False, draft_model_idx=None
        ),
        forward_stream=None, req_to_token_pool=None, token_to_kv_pool_allocator=None,
        memory_pool_config=None, draft_model_idx=None,
    )  # fmt: skip


def run(row):
    """Return SGLang's results for one run."""
    from sglang.srt.mem_cache.kv_cache_configurator import KVCacheConfigurator
    from sglang.srt.model_executor.pool_configurator import create_memory_pool_configurator
    from sglang.srt.runtime_context import get_schedule

    mib, before = row["gpu"]["mib"], row.get("pre_model_load_gb")
    FREE.update(mib=mib, gib=before or mib / 1024 * NOT_AFTER_LOADING)
    arguments, model_config = resolved(row)
    found = settings()
    if before is None:
        return found
    sizing = configurator(row, arguments, model_config)
    FREE["gib"] = row["avail_after_load_gb"]
    measured = KVCacheConfigurator._profile_available_bytes

    def noted(self, *args):
        found["kv_budget_bytes"] = measured(self, *args)
        return found["kv_budget_bytes"]

    KVCacheConfigurator._profile_available_bytes = noted
    try:
        pools = sizing._resolve_memory_pool_config(before)
    except (ValueError, RuntimeError) as error:
        found.pop("kv_budget_bytes", None)
        return found | {"error": f"{type(error).__name__}: {error}"}
    found["max_total_num_tokens"] = pools.max_total_num_tokens
    found["max_running_requests"] = pools.max_running_requests
    if model_config.is_hybrid_swa:
        found["full_tokens"] = pools.full_max_total_num_tokens
        found["swa_tokens"] = pools.swa_max_total_num_tokens
    if sizing.mambaish_config is not None:
        found["mamba_slots"] = get_schedule().max_mamba_cache_size
    made = create_memory_pool_configurator(sizing)
    for name in ("_cell_size", "cell_size"):
        if hasattr(made, name):
            found["cell_size_bytes"] = getattr(made, name)
    return found


def main():
    """Run the rows and write them with their results."""
    folder, rows, out = sys.argv[1:4]
    lines = Path(rows).read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if "origin" not in row]
    load(folder, rows[0]["gpu"])
    with Path(out).open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(made_up_card.forked(run, row) + "\n")
            file.flush()


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    main()
