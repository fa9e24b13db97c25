"""What SGLang prints while it starts: weights, pools, graphs, limits. "GB" is GiB.

Source: the log lines of SGLang 0.5 model_executor/model_runner.py, mem_cache/memory_pool.py,
mem_cache/swa_memory_pool.py, managers/scheduler.py, and the older spellings of 0.1 to 0.4.
"""

import re
from collections.abc import Sequence

from kvplan.verify.command_line import options_in
from kvplan.verify.log_text import Line
from kvplan.verify.readings import GIB, Reading, Readings, amount, last_of_each

_N = r"(-?[\d,]*\.?\d+)"
_GB = r" ?Gi?B"

AMOUNTS: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), names)
    for pattern, names in (
        (rf"Load weight begin.*?avail mem={_N}{_GB}", ("free_before_weights",)),
        (rf"Load weight end.*?avail mem={_N}{_GB}", ("free_after_weights",)),
        # Not yet printed by 0.2 to 0.4.3.
        (rf"Load weight end.*?mem usage={_N}{_GB}", ("weights",)),
        (rf"K size: {_N}{_GB}, V size: {_N}{_GB}", ("kv_cache_k", "kv_cache_v")),
        (rf"#tokens: [\d,]+, KV size: {_N}{_GB}", ("kv_cache",)),
        (rf"KVPool mem usage: {_N}{_GB}", ("kv_cache",)),
        (rf"conv_state size: {_N}{_GB}, ssm_state size: {_N}{_GB}", ("state_conv", "state_ssm")),
        (rf"Memory pool end\. avail mem={_N}{_GB}", ("free_after_pool",)),
        (rf"graph end\..*?avail mem={_N}{_GB}", ("free_at_end",)),
        (rf"available_gpu_mem={_N}{_GB}", ("free_at_end",)),
        (rf"available_bytes={_N}{_GB}", ("kv_cache_available",)),
        (rf"max_total_num_tokens=\d+ avail mem={_N}{_GB}", ("free_after_pool",)),
        (rf"\bweights {_N}{_GB}", ("weights",)),
    )
)
COUNTS: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), names)
    for pattern, names in (
        (rf"#tokens: {_N}", ("kv_cache_tokens",)),
        (rf"max_mamba_cache_size: {_N}", ("state_slots",)),
        (rf"swa size: {_N}, full size: {_N}", ("swa_tokens", "full_tokens")),
        (rf"full_layer_tokens={_N}, swa_layer_tokens={_N}", ("full_tokens", "swa_tokens")),
        (rf"pool sizes: full={_N},? swa={_N}", ("full_tokens", "swa_tokens")),
        (rf"bytes_per_full_token={_N}", ("bytes_per_full_token",)),
        (rf"full_token={_N}", ("full_tokens",)),
        (rf"max_total_num_tokens?={_N}", ("max_total_num_tokens",)),
        (rf"chunked_prefill_size={_N}", ("chunked_prefill_size",)),
        (rf"max_prefill_tokens={_N}", ("max_prefill_tokens",)),
        (rf"max_running_requests={_N}", ("max_running_requests",)),
        (rf"context_len(?:gth)?={_N}", ("context_length",)),
        (rf"mem_fraction_static={_N}", ("mem_fraction_static",)),
        (rf"\btp_size={_N}", ("tp_size",)),
        (rf"\bdp_size={_N}", ("dp_size",)),
    )
)
# Each kind of graph (decode, prefill, a draft's) is captured and printed on its own.
_GRAPHS = re.compile(rf"Capture (.{{0,60}}?)graph end\..*?mem usage={_N}{_GB}", re.IGNORECASE)
_KV_DTYPE = re.compile(
    r"(?:KV cache dtype: |is allocated\. dtype: )(torch\.\w+|\w+)"
    r"|\bfor (fp8_\w+) KV Cache",
    re.IGNORECASE,
)
_TYPE = re.compile(r"\btype=(\w+)")
_STARTING = re.compile(r"Init torch distributed begin|server_args=ServerArgs")
DRAFT_HAS_OWN = frozenset({"weights", "kv_cache_k", "kv_cache_v", "kv_cache"})
# Classes that draft: DeepseekV3ForCausalLMNextN, LlamaForCausalLMEagle3, Qwen3NextForCausalLMMTP.
_DRAFT_TYPE = re.compile(r"\btype=\w*(?:NextN|Eagle\d*|MTP)\b")
_MODEL = re.compile(r"model_path='([^']+)'")
_VERSION = re.compile(r"sglang(?:[ :=]+|[-_]v?)v?(\d+\.\d+\.\d+[\w.+]*)", re.IGNORECASE)
_OOM = re.compile(
    r"Not enough memory\. Please try|CUDA out of memory|HIP out of memory|CUDA OOM|OutOfMemoryError"
    r"|profiled value -",
    re.IGNORECASE,
)
_REFUSED = re.compile(
    r"Not enough memory\. Please try|leave no GPU memory for the KV cache|Not enough GPU memory for hybrid"
    r"|state cache is too small|cannot hold even one request",
    re.IGNORECASE,
)
MARKS = re.compile(
    r"\bsglang\b|Load weight (?:begin|end)|KV Cache is allocated|mem[-_]fraction[-_]static"
    r"|max_total_num_tokens|Mamba Cache is allocated|KVPool mem usage|bytes_per_full_token|pool sizes: full="
    r"|Memory pool end",
    re.IGNORECASE,
)


def read(lines: Sequence[Line]) -> Readings:
    """Read SGLang's lines; what is not there is left out. A draft model's are kept apart."""
    amounts: list[Reading] = []
    counts: dict[str, float] = {}
    settings: dict[str, object] = {}
    version = model = refusal = ""
    out_of_memory = False
    loaded: set[str] = set()
    graphs: dict[tuple[str, str], Reading] = {}
    for line in lines:
        if _STARTING.search(line.text):
            loaded.discard(line.rank)
        for part in line.text.split(" | "):
            draft = "[draft]" in part.casefold() or bool(_DRAFT_TYPE.search(part))
            for pattern, names in AMOUNTS:
                for found in pattern.finditer(part):
                    for name, text in zip(names, found.groups(), strict=True):
                        if name == "free_before_weights" and line.rank in loaded:
                            # A draft model loads after the target's weights.
                            continue
                        own = f"draft_{name}" if draft and name in DRAFT_HAS_OWN else name
                        amounts.append(amount(own, text, GIB, line.rank))
            for found in _GRAPHS.finditer(part):
                kind, text = found.groups()
                graphs[line.rank, kind] = amount("cuda_graphs", text, GIB, line.rank)
            for pattern, names in COUNTS:
                for found in pattern.finditer(part):
                    for name, text in zip(names, found.groups(), strict=True):
                        counts[name] = float(text.replace(",", ""))
            if "Load weight end" in part:
                loaded.add(line.rank)
            dtype = _KV_DTYPE.search(part)
            if dtype:
                settings["kv_cache_dtype"] = dtype.group(1) or dtype.group(2)
            kind = _TYPE.search(part)
            if kind and not draft:
                settings["architecture"] = kind.group(1)
        release = _VERSION.search(line.text)
        version = release.group(1) if release else version
        named = _MODEL.search(line.text)
        model = named.group(1) if named else model
        out_of_memory = out_of_memory or bool(_OOM.search(line.text))
        if _REFUSED.search(line.text):
            refusal = line.text[-400:]
    amounts += _sums(graphs)
    given, called = options_in("sglang", lines)
    for name, value in given.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            counts.setdefault(name, float(value))
    settings = given | settings
    model = model or called
    if "full_tokens" in counts:
        counts.setdefault("kv_cache_tokens", counts["full_tokens"])
    if "max_total_num_tokens" in counts:
        counts.setdefault("kv_cache_tokens", counts["max_total_num_tokens"])
    return Readings("sglang", version, model, last_of_each(amounts), counts, settings, out_of_memory, refusal)


def _sums(graphs: dict[tuple[str, str], Reading]) -> list[Reading]:
    """Add up the graphs that each rank captured."""
    found: dict[str, Reading] = {}
    for (rank, _), reading in graphs.items():
        so_far = found.get(rank)
        found[rank] = reading if so_far is None else so_far.plus(reading)
    return list(found.values())
