"""TensorRT-LLM (PyTorch backend): a share of what is left after weights and a profile run.

TensorRT-LLM main of 2026, _torch/pyexecutor/_util.py (_cal_max_memory: (total - peak) x
free_gpu_memory_fraction) and resource_manager.py (get_cache_size_per_token: ceil(KV heads / ranks),
keys and values equally wide; blocks of 32 tokens). Read, not run: rows are its arithmetic, what lies
beside them is ``assumed``. Windows have a pool of their own or none by version, so the cache of such
models lies between the two.
"""

from collections.abc import Sequence

from kvplan.device import Device
from kvplan.engines.base import (
    CacheGroup,
    CacheUse,
    Component,
    Engine,
    Notice,
    Plan,
    capped_notice,
    context_or_limit,
    not_loaded,
)
from kvplan.engines.ranks import parallel_of
from kvplan.engines.releases import release_numbers
from kvplan.engines.tensorrt_llm.rank_plan import rank_plan
from kvplan.engines.tensorrt_llm.request import draft_request, per_sequence, times, with_beams
from kvplan.engines.tensorrt_llm.rows import NOT_ROWS, row_bytes, window_of
from kvplan.engines.tensorrt_llm.settings import Settings, settings_of, whole_or
from kvplan.engines.tensorrt_llm.speculation import draft_notices, draft_of
from kvplan.engines.tensorrt_llm.unplanned import not_planned
from kvplan.errors import InvalidValue
from kvplan.layers import RECURRENT_STATES, kind_name
from kvplan.model import ModelSpec, cache_kinds
from kvplan.quantity import exact
from kvplan.textbook import state_bytes
from kvplan.weight_formats import weight_format
from kvplan.weights import format_name_of, weight_bytes
from kvplan.workload import Workload

NEWEST = "1.2"
VERSIONS = (NEWEST,)
# Before, its servers ran engines that were built ahead of time.
OLDEST = (0, 19)
KV_NAMES = ("auto", "fp8", "nvfp4", "fp16", "bf16", "float16", "bfloat16")

TAKEN = "16-bit, fp8, int8, AWQ, GPTQ, MXFP4 and NVFP4"
WINDOW_DETAIL = "in full; its window alone by version"
PAGE_CACHE = Notice(
    "page-cache-counts",
    "memory is shared with the host: pages of the checkpoint that stay cached come off the KV cache",
)


class TensorRtLlmEngine(Engine):
    """TensorRT-LLM's PyTorch backend."""

    name = "tensorrt-llm"
    versions = VERSIONS
    kv_formats = KV_NAMES
    weight_families = ("plain", "fp8", "int8", "int4", "fp4")
    # A public start-up of gpt-oss-120b, of 131,072 positions, goes on with max_seq_len=86720, its pool's.
    takes_what_fits = True
    about = "a share of what weights and activations leave; read from its source, assumed beside the rows"

    def __init__(self, version: str) -> None:
        """Take a version; its rules are the newest's, which a notice says."""
        self.version = version

    def plan(self, model: ModelSpec, workload: Workload, devices: Sequence[Device]) -> Plan:
        """Price every rank. Raises UnknownFormat for formats TensorRT-LLM does not take."""
        format_name = format_name_of(model, workload.weights_format)
        if weight_format(format_name).family in ("mlx", "exl", "gguf", "bnb"):
            raise not_loaded("TensorRT-LLM", format_name, TAKEN)
        settings = settings_of(model, workload)
        expert = max(1, whole_or(workload.option("ep_size"), 1))
        parallel, refusals = parallel_of(
            model, workload, max(1, len(devices)), 1, expert, replicas_share=False
        )
        context_tokens, _ = context_or_limit(model, workload)
        num_sequences = min(workload.num_sequences, settings.max_batch_size)
        notices = _notices(model, workload, settings, num_sequences)
        if release_numbers(self.version, 2) != release_numbers(NEWEST, 2):
            text = f"TensorRT-LLM {self.version} is planned by {NEWEST}'s rules"
            notices = (*notices, Notice("version-assumed", text))
        if any(device.unified_memory for device in devices):
            notices = (*notices, PAGE_CACHE)
        stages = range(parallel.pipeline)
        made = {
            (device, stage): rank_plan(
                model, workload, settings, format_name, parallel, stage, device, context_tokens, num_sequences
            )
            for device in dict.fromkeys(devices)
            for stage in stages
        }
        ranks = tuple(
            made[device, min(index % (parallel.tensor * parallel.pipeline) // parallel.tensor, stages[-1])]
            for index, device in enumerate(devices)
        )
        held = [rank.tokens for rank in ranks if rank.tokens is not None]
        tokens = min(held) if ranks and len(held) == len(ranks) else None
        return Plan(
            model=model,
            workload=workload,
            engine_name=self.name,
            engine_version=self.version,
            engine_options=(
                ("free_gpu_memory_fraction", settings.free_gpu_memory_fraction),
                ("max_seq_len", context_tokens),
                ("max_batch_size", settings.max_batch_size),
                ("max_num_tokens", settings.max_num_tokens),
                ("tokens_per_block", settings.tokens_per_block),
                ("kv_cache_dtype", settings.kv_dtype),
                ("speculative_config", settings.speculation.kind or None),
                ("enable_attention_dp", settings.attention_dp),
                ("tp_size", parallel.tensor),
                ("pp_size", parallel.pipeline),
            ),
            parallel=parallel,
            weights_format=format_name,
            weights=weight_bytes(model, format_name),
            kv_dtype_k=settings.kv_dtype,
            kv_dtype_v=settings.kv_dtype,
            context_tokens=context_tokens,
            num_sequences=num_sequences,
            devices=tuple(rank.plan for rank in ranks),
            cache=_cache_use(model, settings, context_tokens, num_sequences),
            sequence_limit=settings.max_batch_size,
            sequence_limit_name="max_batch_size",
            kv_cache_tokens=tokens,
            max_concurrency=None if tokens is None else tokens / context_tokens,
            host=_host(workload, parallel.tensor * parallel.pipeline),
            refusals=refusals,
            warnings=notices,
            details=(
                ("pools", tuple(rank.pool for rank in ranks)),
                ("block_bytes", tuple(rank.block for rank in ranks)),
                ("runtimes", tuple(rank.runtime for rank in ranks)),
                ("left_free", tuple(rank.left_free_bytes for rank in ranks)),
            ),
        )


def engine(version: str | None) -> TensorRtLlmEngine:
    """Return the policy of a version. Raises InvalidValue for what is none, or one before 0.19."""
    text = (version or NEWEST).removeprefix("v")
    numbers = release_numbers(text, 2)
    if len(numbers) < 2 or numbers < OLDEST:
        raise InvalidValue(
            f"'tensorrt-llm@{version}' is not modelled",
            why="the rules begin with 0.19: before, engines were built ahead of time",
            hint="leave the version out",
        )
    return TensorRtLlmEngine(text)


def _host(workload: Workload, ranks: int) -> tuple[Component, ...]:
    """Return the blocks' second pool in system memory: ``host_cache_size`` of each rank's process."""
    amount = whole_or(workload.option("host_cache_size"), 0)
    if amount <= 0:
        return ()
    return (Component("kv_cache", exact(amount * ranks), "host_cache_size on every rank"),)


def _notices(
    model: ModelSpec, workload: Workload, settings: Settings, num_sequences: int
) -> tuple[Notice, ...]:
    notices = [*draft_notices(model, settings.speculation), *not_planned(workload)]
    if whole_or(workload.option("cp_size"), 1) > 1:
        notices.append(
            Notice(
                "layer-not-modelled",
                "cp_size: context parallelism is planned as if every rank kept all tokens",
            )
        )
    if num_sequences < workload.num_sequences:
        notices.append(capped_notice(workload.num_sequences, num_sequences, "max_batch_size"))
    unsure = {kind_name(cache) for cache, _ in cache_kinds(model) if window_of(cache)}
    unread = {kind_name(cache) for cache, _ in cache_kinds(model) if isinstance(cache, NOT_ROWS)}
    for kinds, between in ((unsure, "its window and in full"), (unread, "nothing and full attention")):
        if kinds:
            names = ", ".join(sorted(kinds)).replace("_", " ")
            text = f"{names} under TensorRT-LLM is assumed: between {between}"
            notices.append(Notice("layer-not-modelled", text))
    if any(isinstance(cache, RECURRENT_STATES) for cache, _ in cache_kinds(model)):
        text = (
            f"states are set aside for max_batch_size ({settings.max_batch_size:,}) sequences: "
            "-- --max_batch_size N sets fewer aside"
        )
        notices.append(Notice("states-for-full-batch", text))
    return tuple(notices)


def _cache_use(model: ModelSpec, settings: Settings, context_tokens: int, num_sequences: int) -> CacheUse:
    hidden = model.structure.hidden_size
    held = context_tokens + settings.speculation.extra_tokens
    groups: list[CacheGroup] = []
    one, states, per_token = exact(0), 0, 0
    for cache, count in cache_kinds(model):
        amount = times(per_sequence(cache, settings, 1, held, hidden), count)
        one += amount
        row = 0
        if isinstance(cache, RECURRENT_STATES):
            amount = exact(state_bytes(cache, "bfloat16") * count)
            states += amount.expected
            one += amount
        elif not isinstance(cache, NOT_ROWS):
            row = row_bytes(cache, settings.kv_dtype, 1) * count
        per_token += row
        detail = WINDOW_DETAIL if window_of(cache) and amount.basis != "exact" else ""
        groups.append(CacheGroup(kind_name(cache), count, row, amount.expected, detail))
    draft = draft_of(model, settings.speculation, model.weights_format, 1)
    if draft.note:
        drafted = draft_request(draft, settings, 1, held, hidden)
        block = draft_request(draft, settings, 1, settings.tokens_per_block, hidden)
        row = block.expected // settings.tokens_per_block
        one += drafted
        per_token += row
        groups.append(CacheGroup(
            "draft", sum(group.count for group in draft.layers), row,
            drafted.expected, draft.note,
        ))  # fmt: skip
    every = with_beams(times(one, num_sequences), settings)
    return CacheUse(
        bytes_per_token=per_token,
        bytes_per_sequence=one.expected,
        state_bytes_per_sequence=states,
        total=every,
        peak_bytes=every.expected,
        groups=tuple(groups),
        block_size=settings.tokens_per_block,
        page_size_bytes=per_token * settings.tokens_per_block,
    )
