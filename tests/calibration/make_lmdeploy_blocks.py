"""Make tests/oracles/lmdeploy_blocks.jsonl by running LMDeploy's own sizing of its PyTorch backend.

    python -m venv /tmp/lmdeploy && /tmp/lmdeploy/bin/pip install torch==2.13.0 transformers pyyaml ...
    /tmp/lmdeploy/bin/pip install --no-deps lmdeploy==0.18.0
    PYTHONPATH=. /tmp/lmdeploy/bin/python tests/calibration/make_lmdeploy_blocks.py

LMDeploy's Python imports mmengine-lite, aiohttp, openai, ray, triton and a few more: install what it
asks for. Nothing is loaded: config builders, block layouts (on torch's meta device) and the executor's
update_configs run as they are; the free memory is ours, FlashMLA and bfloat16 are said to be there.
"""

import json
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import lmdeploy.pytorch.config as config_module
from lmdeploy.pytorch import configurations
from lmdeploy.pytorch.backends.default.cache import DefaultCacheBackend
from lmdeploy.pytorch.config import CacheConfig, DistConfig, ModelConfig
from lmdeploy.pytorch.consts import dsa_packed_indexer_k_cache_shape
from lmdeploy.pytorch.engine.cache_engine import plan as plans
from lmdeploy.pytorch.engine.cache_engine import schema, state
from lmdeploy.pytorch.engine.engine import Engine
from lmdeploy.pytorch.engine.executor import base
from transformers import AutoConfig, PretrainedConfig

from kvplan.sources.catalog import find

GIB = 1024**3
ORACLE = Path(__file__).resolve().parent.parent / "oracles" / "lmdeploy_blocks.jsonl"
MODELS = (
    "llama-3.1-8b", "llama-2-7b", "qwen2.5-7b", "qwen3-30b-a3b", "gpt-oss-20b", "gemma-3-27b",
    "mistral-7b-v0.1", "deepseek-v2-lite", "deepseek-v3", "deepseek-v3.2", "glm-5", "qwen3-next-80b-a3b",
    "qwen3.5-35b-a3b", "qwen3.5-27b", "minicpm3-4b", "llama-4-scout-17b-16e", "gemma-7b",
    "internlm2.5-7b", "mixtral-8x7b",
)  # fmt: skip
# free bytes after loading, share, max_batch_size, max_prefill_token_num
MEMORIES = (
    (60 * GIB, 0.8, 384, 8192),
    (20 * GIB + 12345, 0.5, 128, 8192),
    (9 * GIB, 0.8, 128, 8192),
    (3 * GIB, 0.8, 16, 8192),
    (3 * GIB // 2, 0.9, 8, 8192),
)
POLICIES = (0, 4, 8, 16, 42)


class Backend:
    """Layouts of the CUDA backend, whose module needs a GPU: plain rows, the default packing."""

    @staticmethod
    def get_k_block_shape(block_size, num_heads, head_size, dtype):
        return (block_size, num_heads, head_size)

    get_v_block_shape = get_k_block_shape

    @staticmethod
    def get_cache_backend():
        return DefaultCacheBackend


for module in (plans, schema, state):
    module.get_backend = lambda: Backend
for module in (config_module, configurations.qwen3_5):
    module.is_bf16_supported = lambda *_: True
configurations.deepseek_v2.flash_mla_available = lambda: True


class Executor(base.ExecutorBase):
    """The executor with one worker and a free memory that is given."""

    def __init__(self, model_config, cache_config, tensor, free):
        self.tensor, self.free = tensor, free
        dist = DistConfig(tp=tensor)
        misc = SimpleNamespace(memdecode_config=None)
        super().__init__("", model_config, cache_config, None, dist, misc)

    def gather_free_mem(self):
        return [self.free] * self.tensor

    def _prepare_worker_cache_plans(self, cache_config, spec_cache_config=None):
        made = plans.build_block_cache_plan(
            self.model_config, cache_config, self.tensor, partial(indexers, self.model_config)
        )
        return [base._WorkerCachePlanSizes(made.logical_block_nbytes)] * self.tensor

    def set_cache_config(self, cache_config, spec_cache_config=None):
        pass

    def set_model_config(self, model_config, spec_model_config=None):
        pass


def indexers(model_config, context):
    """Request the sparse indexers' rows as backends/cuda/nsa.py does, one a layer."""
    if model_config.mla_index_topk is None:
        return ()
    block = context.geometry.kernel_block_size
    shape = dsa_packed_indexer_k_cache_shape(block, model_config.hf_config.index_head_dim)
    request = schema.BlockCacheRequest("indexer", shape, schema.torch.uint8, per_row_contiguous=True)
    return (request,) * model_config.num_layers


def hf_config(model):
    """Return transformers' config of a bundled one; positions and weights do not matter here."""
    values = without(model.config, ("quantization_config", "rope_scaling", "rope_parameters"))
    values = {"bos_token_id": 1, "eos_token_id": 2} | values
    values |= {"architectures": [model.architecture], "model_type": model.model_type}
    try:
        made = AutoConfig.for_model(**values)
    except ValueError:
        made = PretrainedConfig.from_dict(values)
    for key, value in values.items():
        if not hasattr(made, key):
            setattr(made, key, value)
    return made


def without(config, names):
    """Return a copy of a config, nested ones included, without some keys."""
    return {
        key: without(value, names) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in names
    }


def rows():
    """Yield one row a model, rank count, policy and memory."""
    for name in MODELS:
        model = find(name)
        for tensor in (1, 2, 8):
            for policy in POLICIES:
                for free, share, batch, prefill in MEMORIES if not policy else MEMORIES[::2]:
                    asked = {
                        "model": name, "tp": tensor, "quant_policy": policy, "free_bytes": free,
                        "cache_max_entry_count": share, "max_batch_size": batch,
                        "max_prefill_token_num": prefill,
                    }  # fmt: skip
                    answer = one(model, tensor, policy, free, share, batch, prefill)
                    if answer is not None:
                        yield {**asked, **answer}


def one(model, tensor, policy, free, share, batch, prefill):
    """Return what the executor settles on, None where LMDeploy's own asserts refuse the layout."""
    try:
        config = ModelConfig.from_hf_config(
            hf_config(model), dtype="bfloat16", dist_config=DistConfig(tp=tensor)
        )
        config.block_size = 64
    except AssertionError as error:
        print(f"{model.name} on {tensor}: {error!r}", file=sys.stderr)
        return None
    if policy == 16 and config.mla_index_topk is not None:
        config.mla_kv_cache_dtype = "fp8_ds_mla"
    cache = CacheConfig(
        max_batches=batch, block_size=64, num_cpu_blocks=0, num_gpu_blocks=0, cache_max_entry_count=share,
        max_prefill_token_num=prefill, quant_policy=policy, num_reserved_gpu_blocks=1,
    )  # fmt: skip
    executor = Executor(config, cache, tensor, free)
    try:
        executor.update_configs()
    except (RuntimeError, AssertionError) as error:
        if isinstance(error, AssertionError) and "gpu memory" not in str(error):
            print(f"{model.name} on {tensor}, policy {policy}: {error!r}", file=sys.stderr)
            return None
        return {"error": str(error)}
    fake = SimpleNamespace(scheduler_config=SimpleNamespace(max_session_len=None), cache_config=cache)
    longest = Engine._get_max_session_len(fake)
    return {
        "block_length": cache.block_size,
        "block_bytes": executor._prepare_worker_cache_plans(cache)[0].target,
        "state_bytes": executor._get_state_cache_mem(),
        "num_gpu_blocks": cache.num_gpu_blocks,
        "settled_prefill": cache.max_prefill_token_num,
        "max_session_len": longest if cache.window_size <= 0 else None,
    }


if __name__ == "__main__":
    origin = "LMDeploy 0.18.0's PyTorch backend run on a CPU by tests/calibration/make_lmdeploy_blocks.py"
    lines = [json.dumps(row) for row in ({"origin": origin}, *rows())]
    ORACLE.write_text("\n".join(lines) + "\n", encoding="utf-8")
