"""What TensorRT-LLM prints while it starts: weights, the profile run, the paged cache. "GB" is GiB.

Source: _torch/pyexecutor/_util.py (configure_kv_cache_capacity, _cal_max_memory) and model_loader.py of
0.19 to 1.4, cpp/tensorrt_llm/batch_manager/kvCacheManager.cpp and peftCacheManager.cpp; the lines of
compiled engines (``--backend tensorrt``) from cpp/tensorrt_llm/runtime and public issues of 0.7 to 0.18.

The cache is allocated twice, first small for the profile run: the later line stands.
"""

import re
from collections.abc import Sequence

from kvplan.verify.command_line import options_in
from kvplan.verify.log_text import Line
from kvplan.verify.printed import NUMBER, last_said, printed, table
from kvplan.verify.readings import GIB, MIB, Readings

_PROFILED = r"in memory usage profiling: "
ROWS = table(
    amounts=(
        (rf"Uses? {NUMBER} GB for model weights", GIB, ("weights",)),
        (rf"loading model weights \(inside torch\) {_PROFILED}{NUMBER} GiB", GIB, ("weights",)),
        (
            rf"loading model weights \(outside torch\) {_PROFILED}{NUMBER} GiB",
            GIB,
            ("outside_torch_loaded",),
        ),
        (
            rf"allocated during inference \(inside torch\) {_PROFILED}{NUMBER} GiB",
            GIB,
            ("activations",),
        ),
        (rf"used outside torch .*?{_PROFILED}{NUMBER} GiB", GIB, ("non_torch",)),
        (rf"Peak memory during .*?non-torch\): {NUMBER} GiB", GIB, ("non_kv",)),
        (rf"when calculating max tokens: {NUMBER} GiB", GIB, ("kv_cache_available",)),
        (rf"Estimated max memory in KV cache ?: {NUMBER} GiB", GIB, ("kv_cache_available",)),
        (rf"device total memory {NUMBER} GiB", GIB, ("device_total",)),
        (
            rf"(?:tmp kv_mem|temporary kv cache memory during profiling) {NUMBER} GiB",
            GIB,
            ("kv_cache_profiled",),
        ),
        (rf"Allocated {NUMBER} GiB for max tokens in paged KV cache", GIB, ("kv_cache",)),
        (rf"Using {NUMBER} bytes for LoRA device cache", 1, ("adapters",)),
        # compiled engines
        (rf"Loaded engine size: {NUMBER} MiB", MIB, ("weights",)),
        (rf"Allocated {NUMBER} MiB for execution context memory", MIB, ("activations",)),
        (
            rf"calculating max tokens in paged kv cache: total: {NUMBER} GiB, available: {NUMBER} GiB",
            GIB,
            ("device_total", "free_before_pool"),
        ),
        (rf"Allocate {NUMBER} bytes for k/v cache", 1, ("kv_cache",)),
    ),
    counts=(
        (rf"for max tokens in paged KV cache \({NUMBER}\)", ("kv_cache_tokens",)),
        (rf"Using {NUMBER} (?:total )?tokens in paged KV cache", ("kv_cache_tokens",)),
        (rf"primary blocks={NUMBER}", ("num_blocks",)),
        (rf"blocks in KV cache primary pool: {NUMBER}", ("num_blocks",)),
        (rf"tokens per block(?:=|: ){NUMBER}", ("tokens_per_block",)),
        (rf"fraction is set {NUMBER}", ("free_gpu_memory_fraction",)),
        (rf"\bkv size (?:per token )?is {NUMBER}", ("bytes_per_token",)),
        (
            rf"max_seq_len={NUMBER}, max_num_requests=\d+, max_num_tokens={NUMBER}",
            ("max_seq_len", "max_num_tokens"),
        ),
        (rf"max_num_tokens=\d+, max_batch_size={NUMBER}", ("max_batch_size",)),
    ),
    settings=((r"\bkv_cache_dtype=[\"']?(\w+)", ("kv_cache_dtype",)),),
)
_RANK = re.compile(r"\[RANK (\d+)\]")
_VERSION = re.compile(r"TensorRT-LLM version: (\S+)")
# An engine that was built ahead of time says its size and its execution context's.
_COMPILED = re.compile(r"Loaded engine size: |for execution context memory")
_OOM = re.compile(r"CUDA out of memory|OutOfMemoryError|cudaMalloc\w*\(.*?out of memory", re.IGNORECASE)
_REFUSED = re.compile(
    r"must be large enough to process at least 1 sequence|insufficient after the combined fixed cost"
    r"|Not enough space allocated to device LoRA cache",
    re.IGNORECASE,
)
MARKS = re.compile(r"TensorRT-LLM|\[TRT-LLM\]|trtllm-serve|paged KV cache|memory usage profiling")


def read(lines: Sequence[Line]) -> Readings:
    """Read TensorRT-LLM's lines; what is not there is left out."""
    marked = [_ranked(line) for line in lines]
    said = printed(marked, ROWS)
    given, called = options_in("tensorrt-llm", lines)
    versions = [found.group(1) for line in lines if (found := _VERSION.search(line.text))]
    counts = dict(said.counts)
    if "free_gpu_memory_fraction" in counts:
        # Kept as a 32-bit float: 0.9 is printed 0.8999999761581421.
        counts["free_gpu_memory_fraction"] = round(counts["free_gpu_memory_fraction"], 6)
    if any(_COMPILED.search(line.text) for line in lines):
        given.setdefault("backend", "tensorrt")
    return Readings(
        "tensorrt-llm",
        versions[-1] if versions else "",
        called,
        said.amounts,
        counts,
        said.settings | given,
        any(_OOM.search(line.text) for line in lines),
        last_said(_REFUSED, lines),
    )


def _ranked(line: Line) -> Line:
    found = _RANK.search(line.text[:200])
    return Line(line.text, f"rank {found.group(1)}") if found and not line.rank else line
