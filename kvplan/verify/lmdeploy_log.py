"""What LMDeploy prints while it starts: TurboMind's blocks or region, the PyTorch backend's config.

Source: LMDeploy 0.18 pytorch/engine/executor/base.py and config.py (CacheConfig's repr); TurboMind's
src/turbomind/models/llama/BlockManager.cc (its pair of lines, in public issues of 0.2 to 0.9) and
engine/engine.cc ("Object cache budget", quoted from 0.17 on). "MB" is MiB. TurboMind's lines need
``--log-level INFO``, the free memory of the PyTorch backend ``DEBUG``.
"""

import re
from collections.abc import Sequence

from kvplan.frozen import replace
from kvplan.verify.command_line import options_in
from kvplan.verify.log_text import Line
from kvplan.verify.printed import NUMBER, last_said, printed, table
from kvplan.verify.readings import MIB, Readings

ROWS = table(
    amounts=(
        (rf"\[BlockManager\] block_size = {NUMBER} MB", MIB, ("page",)),
        (
            rf"Object cache budget: {NUMBER} MB from (?:free|cacheable) {NUMBER} MB",
            MIB,
            ("kv_cache_available", "free_before_pool"),
        ),
        (rf"minimal free gpu memory: {NUMBER} mb", MIB, ("free_before_pool",)),
        (rf"estimated max runtime memory: {NUMBER} mb", MIB, ("activations",)),
    ),
    counts=(
        (rf"\[BlockManager\] max_block_count = {NUMBER}", ("num_blocks",)),
        (rf"MB and ratio {NUMBER}", ("cache_max_entry_count",)),
        (rf"CacheConfig\(.*?\bnum_gpu_blocks={NUMBER}", ("num_blocks",)),
        (rf"CacheConfig\(.*?\bblock_size={NUMBER}", ("cache_block_seq_len",)),
        (rf"CacheConfig\(.*?\bmax_batches={NUMBER}", ("max_batch_size",)),
        (rf"`session_len` \({NUMBER}\), `session_len` truncated to {NUMBER}", ("session_len", "max_tokens")),
        (rf"\bUpdate max_prefill_token_num={NUMBER}", ("max_prefill_token_num",)),
        *(
            (rf"EngineConfig\(.*?\b{name}={NUMBER}", (name,))
            for name in (
                "tp",
                "session_len",
                "max_batch_size",
                "cache_max_entry_count",
                "quant_policy",
                "max_prefill_token_num",
            )
        ),
        (rf"EngineConfig\(.*?\b(?:cache_block_seq_len|block_size)={NUMBER}", ("cache_block_seq_len",)),
    ),
    settings=(
        (r"\binput backend=(\w+)", ("backend",)),
        (r"EngineConfig\(.*?\bmodel_format='(\w+)'", ("model_format",)),
    ),
)
_WHOLE = (
    "tp",
    "session_len",
    "max_batch_size",
    "quant_policy",
    "max_prefill_token_num",
    "cache_block_seq_len",
)
_OOM = re.compile(r"out of memory|OutOfMemoryError", re.IGNORECASE)
_REFUSED = re.compile(
    r"No enough gpu memory for|No enough blocks\. Assertion|expects 0 < cache_max_block_count",
)
_VERSION = re.compile(r"lmdeploy(?:[ :=]+|[-_]v?)v?(\d+\.\d+\.\d+\w*)", re.IGNORECASE)
_MODEL = re.compile(r"model_path='([^']+)'")
MARKS = re.compile(r"\[TM\]\[|\blmdeploy\b|\[BlockManager\]|Object cache budget|TurbomindEngineConfig")


def read(lines: Sequence[Line]) -> Readings:
    """Read LMDeploy's lines; what is not there is left out. TurboMind's blocks are added up."""
    said = printed(lines, ROWS)
    given, called = options_in("lmdeploy", lines)
    counts = {name: float(int(value)) if name in _WHOLE else value for name, value in said.counts.items()}
    amounts = list(said.amounts)
    page = next((reading for reading in amounts if reading.name == "page"), None)
    if page is not None and "num_blocks" in counts:
        if page.rounding_bytes > MIB // 4:
            # Whole megabytes were cut off, not rounded, before 0.7.
            page = replace(page, rounding_bytes=MIB)
        amounts = [page, *(reading for reading in amounts if reading.name != "page")]
        amounts.append(page.times("kv_cache", int(counts["num_blocks"])))
    versions = [found.group(1) for line in lines if (found := _VERSION.search(line.text))]
    models = [found.group(1) for line in lines if (found := _MODEL.search(line.text))]
    return Readings(
        "lmdeploy",
        versions[0] if versions else "",
        called or (models[-1] if models else ""),
        tuple(amounts),
        counts,
        said.settings | given,
        any(_OOM.search(line.text) for line in lines),
        last_said(_REFUSED, lines),
    )
