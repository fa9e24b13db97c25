"""Ollama: llama.cpp's server with defaults of its own.

ollama/ollama fb30760996 (August 2026), which runs llama.cpp b10488 as a process: ``-c num_ctx x
num_parallel -np num_parallel``, ``-b`` and ``-ub`` num_batch, no ``-ngl`` (llm/llama_server.go). Where
nobody names a context it goes by the memory of all GPUs together (server/routes.go); a longer one than
the model's is cut. llama.cpp's ``--fit`` then keeps 1 GiB free on each GPU and leaves the rest in system
memory without a word.
"""

from collections.abc import Sequence
from dataclasses import replace

from kvplan.device import Device
from kvplan.engines.base import Notice
from kvplan.engines.llama_cpp import LlamaCppEngine, without_options
from kvplan.engines.llama_cpp_commands import file_of
from kvplan.engines.llama_cpp_fit import DEFAULT_TARGET_BYTES
from kvplan.engines.llama_cpp_settings import Settings, gguf_format, whole
from kvplan.errors import InvalidValue
from kvplan.gguf_names import llama_cpp_arch
from kvplan.layers import FullAttention, SlidingWindow
from kvplan.model import ModelSpec, cache_kinds, num_layers
from kvplan.units import GIB, format_tokens
from kvplan.weights import format_name_of, weight_bytes
from kvplan.workload import Workload

VERSIONS = ("0.12",)
# server/routes.go: memory of all GPUs, less OLLAMA_GPU_OVERHEAD, to the context taken by default.
CONTEXT_TIERS: tuple[tuple[int, int], ...] = ((47 * GIB, 262_144), (23 * GIB, 32_768), (0, 4096))
DEFAULT_NUM_BATCH = 512
# server/sched.go: (context above, share of the memory that the prediction may take, num_batch).
BATCH_TIERS: tuple[tuple[int, int, int], ...] = ((32_768, 60, 2048), (4096, 75, 1024))
# server/sched.go: architectures that serve one sequence at a time.
ONE_AT_A_TIME = ("qwen3next", "qwen35", "nemotron_h", "lfm2", "mllama", "qwen3vl", "bert", "nomic-bert")
FLASH = {"1": "on", "true": "on", "on": "on", "0": "off", "false": "off", "off": "off"}


class OllamaEngine(LlamaCppEngine):
    """Ollama's server."""

    name = "ollama"
    versions = VERSIONS
    about = "llama.cpp with a context by the memory of the GPUs, spilling what does not fit"
    spills_by_itself = True

    def resolved(
        self, model: ModelSpec, workload: Workload, devices: Sequence[Device]
    ) -> tuple[Workload, tuple[Notice, ...]]:
        """Return the workload with Ollama's parameters and defaults read into it."""
        notices: list[Notice] = []
        parallel = whole(workload.option("num_parallel"), workload.num_sequences)
        if parallel > 1 and llama_cpp_arch(model).startswith(ONE_AT_A_TIME):
            text = f"Ollama serves {model.architecture} one at a time: OLLAMA_NUM_PARALLEL {parallel} is 1"
            notices.append(Notice("batch-capped", text))
            parallel = 1
        workload = replace(workload, num_sequences=max(1, parallel))
        workload = self._with_context(model, workload, devices, notices)
        cache_type = workload.option("kv_cache_type")
        if cache_type:
            name = str(cache_type).casefold()
            workload = replace(workload, kv_cache_dtype_k=name, kv_cache_dtype_v=name)
        added: list[tuple[str, object]] = []
        flash = workload.option("flash_attention")
        if flash is not None:
            added.append(("flash_attn", FLASH.get(str(flash).casefold(), "auto")))
        num_gpu = workload.option("num_gpu")
        if isinstance(num_gpu, int) and num_gpu >= 0:
            added.append(("n_gpu_layers", str(num_gpu)))
        batch = whole(workload.option("num_batch"), 0) or _num_batch(model, workload, devices)
        added += [("n_batch", batch), ("n_ubatch", batch)]
        workload = without_options(workload, "num_ctx", "num_parallel", "kv_cache_type", "flash_attention")
        given = {key for key, _ in workload.engine_options}
        options = (*workload.engine_options, *(pair for pair in added if pair[0] not in given))
        return replace(workload, engine_options=options), tuple(notices)

    def _with_context(
        self, model: ModelSpec, workload: Workload, devices: Sequence[Device], notices: list[Notice]
    ) -> Workload:
        asked, source = whole(workload.option("num_ctx"), 0) or workload.context_tokens, "flag"
        if workload.context_tokens and not whole(workload.option("num_ctx"), 0):
            source = workload.context_source
        if not asked:
            memory = sum(device.usable_bytes for device in devices if device.kind == "gpu")
            memory -= whole(workload.option("gpu_overhead"), 0)
            asked = next(tokens for least, tokens in CONTEXT_TIERS if memory >= least or not least)
            source = "engine"
        limit = model.context_limit_tokens
        if limit and asked > limit:
            if source == "flag":
                text = f"Ollama cuts {format_tokens(asked)} to the model's {format_tokens(limit)}"
                notices.append(Notice("context-cut", text))
            asked = limit
        return replace(
            workload, context_tokens=asked, context_source="engine" if source == "engine" else "flag"
        )

    def budget_bytes(self, device: Device, workload: Workload) -> int:
        """Return what Ollama uses of a device: all but OLLAMA_GPU_OVERHEAD and what --fit keeps free."""
        kept = whole(workload.option("gpu_overhead"), 0) + DEFAULT_TARGET_BYTES
        return max(0, super().budget_bytes(device, workload) - kept)

    def options(self, settings: Settings) -> tuple[tuple[str, object], ...]:
        """Return the settings under Ollama's names, then llama.cpp's."""
        each = settings.n_ctx // settings.n_parallel
        return (
            ("num_ctx", each),
            ("num_parallel", settings.n_parallel),
            ("num_batch", settings.n_batch),
            *super().options(settings),
        )

    def commands(
        self, model: ModelSpec, format_name: str, settings: Settings, workload: Workload, num_gpus: int
    ) -> tuple[str, ...]:
        """Return the Modelfile's lines, and the variables to start the server with."""
        lines = [f"FROM ./{file_of(model, format_name)}"]
        if model.source.casefold().endswith(".gguf"):
            lines = [f"FROM {file_of(model, format_name)}"]
        lines.append(f"PARAMETER num_ctx {settings.n_ctx // settings.n_parallel}")
        if workload.option("num_batch") is not None:
            lines.append(f"PARAMETER num_batch {settings.n_batch}")
        if num_gpus and workload.option("num_gpu") is not None:
            layers = min(settings.n_gpu_layers, num_layers(model.structure) + 1)
            lines.append(f"PARAMETER num_gpu {layers}")
        variables = [f"OLLAMA_NUM_PARALLEL={settings.n_parallel}"]
        if settings.type_k != "f16":
            variables.append(f"OLLAMA_KV_CACHE_TYPE={settings.type_k}")
            variables.append("OLLAMA_FLASH_ATTENTION=1")
        if overhead := whole(workload.option("gpu_overhead"), 0):
            variables.append(f"OLLAMA_GPU_OVERHEAD={overhead}")
        return (*lines, f"{' '.join(variables)} ollama serve")


def engine(version: str | None) -> OllamaEngine:
    """Return the policy; versions are named like 0.12."""
    if version is not None and not version.replace(".", "").isdigit():
        raise InvalidValue(
            f"'ollama@{version}' is not a version",
            why="the rules are those of August 2026",
            hint=f"write it like --engine ollama@{VERSIONS[-1]}",
        )
    return OllamaEngine(version or VERSIONS[-1])


def _num_batch(model: ModelSpec, workload: Workload, devices: Sequence[Device]) -> int:
    """Return num_batch as the scheduler raises it where much memory is left (server/sched.go)."""
    memory = sum(device.usable_bytes - device.used_bytes for device in devices if device.kind == "gpu")
    predicted = predicted_bytes(model, workload)
    for above, percent, batch in BATCH_TIERS:
        if workload.context_tokens > above and predicted * 100 <= memory * percent:
            return batch
    return DEFAULT_NUM_BATCH


def predicted_bytes(model: ModelSpec, workload: Workload) -> int:
    """Return what Ollama predicts before it loads: the file and an fp16 cache of every layer.

    llm/llama_server.go PredictServerVRAM; it ignores cache types, windows, latents and buffers.
    """
    format_name = gguf_format(format_name_of(model, workload.weights_format), explicit=False)
    structure = model.structure
    heads = structure.num_attention_heads
    kv_heads = [
        cache.num_key_value_heads
        for cache, _ in cache_kinds(model)
        if isinstance(cache, FullAttention | SlidingWindow)
    ]
    if not heads or not kv_heads:
        return weight_bytes(model, format_name).expected
    row = min(kv_heads) * (structure.hidden_size // heads)
    tokens = workload.context_tokens * workload.num_sequences
    return weight_bytes(model, format_name).expected + 4 * num_layers(structure) * row * tokens
