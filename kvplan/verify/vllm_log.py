"""What vLLM prints while it starts, from 0.4's ``# GPU blocks`` to 0.33's memory lines.

Source: the log lines of vLLM v1/worker/gpu_worker.py, v1/core/kv_cache_utils.py,
v1/worker/gpu_model_runner.py and, before V1, worker/worker.py and worker/model_runner.py. "GB" in
its older lines is GiB as well.
"""

import re
from collections.abc import Sequence

from kvplan.verify.command_line import options_in
from kvplan.verify.log_text import Line
from kvplan.verify.readings import GIB, MIB, Reading, Readings, amount, last_of_each
from kvplan.verify.vllm_arguments import settings_in

_NUMBER = r"(-?[\d,]*\.?\d+)"
_GIB = r" ?Gi?B"

# Pattern -> the names of its groups: an amount in GiB each.
AMOUNTS: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), names)
    for pattern, names in (
        (rf"Model loading took {_NUMBER}{_GIB}", ("weights",)),
        (rf"Loading model weights took {_NUMBER}{_GIB}", ("weights",)),
        (rf"model weights take {_NUMBER}{_GIB}", ("weights",)),
        (rf"(?<!model )weights memory: {_NUMBER}{_GIB}", ("weights",)),
        (rf"Available KV cache(?: memory)?:? {_NUMBER}{_GIB}", ("kv_cache_available",)),
        (rf"reserved for KV Cache is {_NUMBER}{_GIB}", ("kv_cache_available",)),
        (rf"non_torch_memory takes {_NUMBER}{_GIB}", ("non_torch",)),
        (rf"activation peak memory takes {_NUMBER}{_GIB}", ("activations",)),
        (rf"torch peak memory increase: {_NUMBER}{_GIB}", ("activations",)),
        (rf"non-torch forward increase memory: {_NUMBER}{_GIB}", ("non_torch",)),
        (rf"Total non KV cache memory: {_NUMBER}{_GIB}", ("non_kv",)),
        (rf"Graph capturing .{{0,40}}took {_NUMBER}{_GIB}", ("cuda_graphs",)),
        (
            rf"CUDA graph pool memory: {_NUMBER}{_GIB} \(actual\), {_NUMBER}{_GIB} \(estimated\)",
            ("cuda_graphs", "cuda_graphs_estimated"),
        ),
        (rf"Estimated CUDA graph memory: {_NUMBER}{_GIB}", ("cuda_graphs_estimated",)),
        (
            rf"total_gpu_memory \({_NUMBER}{_GIB}\) x gpu_memory_utilization \([\d.]+\) = {_NUMBER}{_GIB}",
            ("device_total", "requested"),
        ),
        (rf"\btotal_memory={_NUMBER}{_GIB}", ("device_total",)),
        # 0.6.3 to 0.6.5 (worker/worker.py), with and without commas.
        (rf"Memory profiling results:.*?total_gpu_memory={_NUMBER}{_GIB}", ("device_total",)),
        (
            rf"non_torch_memory={_NUMBER}{_GIB},?\s+kv_cache_size={_NUMBER}{_GIB}",
            ("non_torch", "kv_cache_available"),
        ),
        # A pool of --kv-cache-memory-bytes.
        (
            rf"Initial free memory {_NUMBER}{_GIB}, reserved {_NUMBER}{_GIB} memory for KV Cache",
            ("free_at_start", "kv_cache_available"),
        ),
        (rf"requested GPU memory: {_NUMBER}{_GIB}", ("requested",)),
        (rf"Requested memory: [\d.]+ \(util\), {_NUMBER}{_GIB}", ("requested",)),
        (rf"Free memory after profiling: {_NUMBER}{_GIB} \(total\)", ("free_after_profile",)),
        (rf"total consumed \(from mem_get_info\): {_NUMBER}{_GIB}", ("weights_and_non_torch",)),
        (rf"Initial free memory: {_NUMBER}{_GIB}", ("free_at_start",)),
        (rf"requested memory: {_NUMBER}{_GIB}", ("requested",)),
        (
            rf"Free memory on device (?:\S+ )?\({_NUMBER}/{_NUMBER}{_GIB}\) on startup",
            ("free_at_start", "device_total"),
        ),
        (rf"Desired GPU memory utilization is \([\d.]+, {_NUMBER}{_GIB}\)", ("requested",)),
        (
            rf"Actual usage is {_NUMBER}{_GIB} for weight, {_NUMBER}{_GIB} for peak activation, "
            rf"{_NUMBER}{_GIB} for non-torch memory",
            ("weights", "activations", "non_torch"),
        ),
        (
            rf"Actual usage is {_NUMBER}{_GIB} for consumed memory \(weights \+ non-torch\), "
            rf"{_NUMBER}{_GIB} for peak activation",
            ("weights_and_non_torch", "activations"),
        ),
        (rf"and {_NUMBER}{_GIB} for CUDAGraph memory", ("cuda_graphs",)),
        (rf"kv cache memory in use is {_NUMBER}{_GIB}", ("kv_cache_available",)),
        (rf"{_NUMBER}{_GIB} KV cache is needed", ("kv_cache_needed",)),
        (rf"larger than the available KV cache memory \({_NUMBER}{_GIB}\)", ("kv_cache_available",)),
        (rf"total capacity of {_NUMBER}{_GIB}", ("device_total",)),
        # The keys that benchmark harnesses give the same lines.
        (rf'"weight_memory_gib": {_NUMBER}', ("weights",)),
        (rf'"kv_cache_memory_gib": {_NUMBER}', ("kv_cache_available",)),
        (rf'"cuda_graph_memory_gib": {_NUMBER}', ("cuda_graphs_estimated",)),
        (rf'"activation_memory_gib": {_NUMBER}', ("activations",)),
        (rf'"non_torch_forward_memory_gib": {_NUMBER}', ("non_torch",)),
        (rf'"total_non_kv_memory_gib": {_NUMBER}', ("non_kv",)),
    )
)
# As people quote those lines; what vLLM printed itself comes before them.
QUOTED: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (rf"\bKV {_NUMBER}{_GIB}", "kv_cache_available"),
        (rf"(?<!\w ){_NUMBER}{_GIB} KV(?: cache)? ?(?:->|\()", "kv_cache_available"),
        (rf"\bweights {_NUMBER}(?=;|{_GIB})", "weights"),
    )
)
COUNTS: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), names)
    for pattern, names in (
        (rf"KV cache size: {_NUMBER} tokens", ("kv_cache_tokens",)),
        (rf"tokens that can be stored in (?:the )?KV cache \({_NUMBER}\)", ("kv_cache_tokens",)),
        (
            rf"Maximum concurrency for {_NUMBER} tokens per request: {_NUMBER}x",
            ("max_model_len", "max_concurrency"),
        ),
        # The platform names the device: GPU, CUDA, cuda, rocm, hpu, xpu.
        (rf"# (?!CPU\b)\w+ blocks: {_NUMBER}", ("num_blocks",)),
        (rf"with num_gpu_blocks_override={_NUMBER}", ("num_blocks",)),
        (rf"num_gpu_blocks is: {_NUMBER}", ("num_blocks",)),
        (rf"estimated maximum model length is {_NUMBER}", ("estimated_max_model_len",)),
        (rf"own estimate {_NUMBER}", ("estimated_max_model_len",)),
        (rf"{_GIB} (?:KV -> |\(){_NUMBER} tokens", ("kv_cache_tokens",)),
        (rf"{_NUMBER}x concurrency at {_NUMBER}", ("max_concurrency", "max_model_len")),
        (rf"--gpu-memory-utilization={_NUMBER} is equivalent to", ("gpu_memory_utilization",)),
        (rf"kv_cache_size=[\d.]+{_GIB},?\s+gpu_memory_utilization={_NUMBER}", ("gpu_memory_utilization",)),
        (rf"\bTP ?= ?{_NUMBER}\b", ("tensor_parallel_size",)),
        (rf"--gpu-memory-utilization {_NUMBER} fixes", ("gpu_memory_utilization",)),
        (rf"max seq len \({_NUMBER}\)", ("max_model_len",)),
        (rf"Setting attention block size to {_NUMBER} tokens", ("block_size",)),
        (rf"gpu_memory_utilization \({_NUMBER}\)", ("gpu_memory_utilization",)),
        (rf"Desired GPU memory utilization is \({_NUMBER},", ("gpu_memory_utilization",)),
        (rf"Requested memory: {_NUMBER} \(util\)", ("gpu_memory_utilization",)),
        (rf"max_num_batched_tokens={_NUMBER}", ("max_num_batched_tokens",)),
        (rf"with {_NUMBER} dummy requests", ("max_num_seqs",)),
        (rf'"max_concurrency": {_NUMBER}', ("max_concurrency",)),
        (rf'"kv_cache_tokens": {_NUMBER}', ("kv_cache_tokens",)),
    )
)
_OOM = re.compile(r"(?:CUDA|HIP|XPU) (?:out of memory|OOM)|OutOfMemoryError", re.IGNORECASE)
_REFUSED = re.compile(
    r"KV cache is needed|No available memory for the cache blocks"
    r"|less than desired GPU memory utilization|larger than the maximum number of tokens",
    re.IGNORECASE,
)
_BACKEND = re.compile(r"Using (\w+?)(?: attention)? backend\b")
_VERSION = re.compile(
    r"(?:vLLM(?: API server)? version:? |LLM engine \(|vllm[ =]+)v?(\d+\.\d+(?:\.\d+)?[\w.+]*)", re.IGNORECASE
)
MARKS = re.compile(
    r"\bvllm\b|KV cache size: [\d,]+ tokens|Available KV cache memory|# \w+ blocks: \d|Model loading took"
    r"|Memory profiling results:"
    r"|gpu_memory_utilization|KV cache is needed|weight_memory_gib|torch peak memory increase"
    r"|Loading model weights took|warming up sampler",
    re.IGNORECASE,
)


def read(lines: Sequence[Line]) -> Readings:
    """Read vLLM's lines; what is not there is left out."""
    amounts: list[Reading] = []
    quoted: list[Reading] = []
    counts: dict[str, float] = {}
    settings: dict[str, object] = {}
    version = refusal = ""
    out_of_memory = False
    for line in lines:
        for pattern, names in AMOUNTS:
            for found in pattern.finditer(line.text):
                amounts += [
                    amount(name, text, GIB, line.rank)
                    for name, text in zip(names, found.groups(), strict=True)
                ]
        for pattern, names in COUNTS:
            for found in pattern.finditer(line.text):
                for name, text in zip(names, found.groups(), strict=True):
                    counts[name] = float(text.replace(",", ""))
        amounts += _free_of_capacity(line)
        quoted += _quoted(line)
        version = _first(_VERSION, line.text) or version
        settings |= settings_in(line.text)
        backend = _first(_BACKEND, line.text)
        if backend:
            settings["attention_backend"] = backend
        out_of_memory = out_of_memory or bool(_OOM.search(line.text))
        if _REFUSED.search(line.text):
            refusal = line.text[-400:]
    given, named = options_in("vllm", lines)
    settings = given | settings
    model = str(settings.get("model") or named)
    printed = {reading.name for reading in amounts}
    amounts = [*(reading for reading in quoted if reading.name not in printed), *amounts]
    return Readings("vllm", version, model, last_of_each(amounts), counts, settings, out_of_memory, refusal)


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found.group(1) if found else ""


def _quoted(line: Line) -> list[Reading]:
    return [
        amount(name, found.group(1), GIB, line.rank)
        for pattern, name in QUOTED
        for found in pattern.finditer(line.text)
    ]


def _free_of_capacity(line: Line) -> list[Reading]:
    found = re.search(rf"of which {_NUMBER} (GiB|MiB) is free", line.text)
    if not found:
        return []
    return [amount("free_at_end", found.group(1), GIB if found.group(2) == "GiB" else MIB, line.rank)]
