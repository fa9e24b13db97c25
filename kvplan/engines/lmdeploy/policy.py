"""LMDeploy, TurboMind and PyTorch backends: blocks of 64 tokens in a share of the free memory.

LMDeploy 0.18's Python is in its wheel (messages.py, pytorch/engine), TurboMind's C++ in its repository
(src/turbomind, 2026). The blocks, states and the PyTorch backend's reserve are its arithmetic; what is
free when it measures is ``assumed``, for it was run on no GPU.
"""

from collections.abc import Sequence

from kvplan.device import Device
from kvplan.engines.base import (
    CacheGroup,
    CacheUse,
    Engine,
    Notice,
    Plan,
    Refusal,
    capped_notice,
    context_or_limit,
    not_loaded,
)
from kvplan.engines.lmdeploy.backends import backend_of, not_served
from kvplan.engines.lmdeploy.blocks import has_rows, slot_bytes
from kvplan.engines.lmdeploy.demand import WINDOW_OFF, blocks_of, rank_demand
from kvplan.engines.lmdeploy.rank_plan import Rank, rank_plan
from kvplan.engines.lmdeploy.settings import (
    LAST_WITH_TOTAL_SHARE,
    Settings,
    kv_dtype_name,
    settings_of,
)
from kvplan.engines.lmdeploy.speculation import beside_notices, draft_of
from kvplan.engines.lmdeploy.unplanned import not_planned
from kvplan.engines.ranks import tensor_only
from kvplan.engines.releases import release_numbers
from kvplan.errors import InvalidValue
from kvplan.layers import RECURRENT_STATES, ChunkedAttention, SlidingWindow, kind_name
from kvplan.model import ModelSpec, cache_kinds
from kvplan.quantity import exact
from kvplan.units import MIB, ceil_div
from kvplan.weight_formats import weight_format
from kvplan.weights import format_name_of, served_format_name, weight_bytes
from kvplan.workload import Workload

NEWEST = "0.18"
# Until 0.2.1 the share was of the whole card; before 0.2.0 it was a count of another kind.
VERSIONS = ("0.2.1", NEWEST)
OLDEST = (0, 2, 0)
OBJECT_CACHE = (0, 17)
KV_NAMES = ("auto", "int4", "int8", "fp8", "fp8_e4m3", "fp8_e5m2", "turbo_quant", "bf16", "fp16")
FP8_POLICIES, TURBO_QUANT = (16, 17), 42
LOADED = ("plain", "fp8", "int8", "int4", "fp4")
TAKEN = "16-bit, fp8, AWQ, GPTQ, compressed-tensors 4-bit, MXFP4 and SmoothQuant"
STATES_DETAIL = "16 bits, matrices too"


class LmdeployEngine(Engine):
    """LMDeploy's api_server at a version."""

    name = "lmdeploy"
    versions = VERSIONS
    kv_formats = KV_NAMES
    weight_families = LOADED
    takes_what_fits = True
    about = "a share of what is free after the weights; TurboMind, else PyTorch; blocks as its own code"

    def __init__(self, version: str) -> None:
        """Take a version's rules; 0.18's for any later than 0.2.1."""
        self.version = version
        self._numbers = release_numbers(version, 3)

    def plan(self, model: ModelSpec, workload: Workload, devices: Sequence[Device]) -> Plan:
        """Price every rank. Raises UnknownFormat for formats that LMDeploy does not take."""
        asked = str(workload.option("backend", "turbomind"))
        format_name = _format_of(model, workload, asked)
        backend = backend_of(model, asked, format_name)
        settings = settings_of(workload, backend, devices[0] if devices else None, self._numbers)
        parallel, refusals = tensor_only(model, workload, max(1, len(devices)), "LMDeploy", _splits)
        context_tokens, _ = context_or_limit(model, workload)
        num_sequences = min(workload.num_sequences, settings.max_batch_size)
        demand = rank_demand(model, settings, parallel.tensor, context_tokens, num_sequences)
        made = {
            device: rank_plan(model, workload, settings, format_name, parallel, device, demand)
            for device in dict.fromkeys(devices)
        }
        ranks = tuple(made[device] for device in devices)
        tokens = _least(ranks)
        options = (
            ("backend", backend),
            ("cache_max_entry_count", settings.cache_max_entry_count),
            ("session_len", context_tokens),
            ("max_batch_size", settings.max_batch_size),
            ("max_prefill_token_num", settings.max_prefill_token_num),
            ("cache_block_seq_len", demand.block_length),
            ("quant_policy", settings.quant_policy),
            ("tp", parallel.tensor),
        )
        kv_dtype = kv_dtype_name(model, settings.quant_policy)
        return Plan(
            model=model,
            workload=workload,
            engine_name=self.name,
            engine_version=self.version,
            engine_options=options,
            parallel=parallel,
            weights_format=format_name,
            weights=weight_bytes(model, format_name),
            kv_dtype_k=kv_dtype,
            kv_dtype_v=kv_dtype,
            context_tokens=context_tokens,
            num_sequences=num_sequences,
            devices=tuple(rank.plan for rank in ranks),
            cache=_cache_use(model, settings, context_tokens, num_sequences),
            sequence_limit=settings.max_batch_size,
            sequence_limit_name="max_batch_size",
            kv_cache_tokens=tokens,
            max_concurrency=None if tokens is None else tokens / context_tokens,
            refusals=(*refusals, *self._refusals(model, settings, format_name)),
            warnings=self._notices(model, workload, settings, asked, num_sequences),
            startup_lines=_startup_lines(settings, ranks, demand.block_bytes, self._numbers),
            details=(
                ("pools", tuple(rank.pool for rank in ranks)),
                ("block_bytes", tuple(exact(demand.block_bytes) for _ in ranks)),
                ("left_free", tuple(rank.left_free_bytes for rank in ranks)),
            ),
        )

    def _refusals(self, model: ModelSpec, settings: Settings, format_name: str) -> tuple[Refusal, ...]:
        found: list[Refusal] = []
        if not _loads(format_name):
            message = f"LMDeploy does not load {format_name} weights: it takes {TAKEN}"
            found.append(Refusal("weights-not-loaded", message, "--weights bf16"))
        stopped = not_served(model, settings.backend, self._numbers)
        if stopped:
            found.append(Refusal("architecture-not-served", stopped, "--engine vllm"))
        if settings.backend == "turbomind":
            if settings.quant_policy in FP8_POLICIES:
                message = "invalid quant_policy for TurboMind, FP8 quantization is not supported"
                found.append(Refusal("kv-format-refused", message, "--kv int8, or -- --backend pytorch"))
            if settings.quant_policy == TURBO_QUANT:
                message = "TurboMind keeps 4 and 8 bits; turbo_quant is the PyTorch backend's"
                found.append(Refusal("kv-format-refused", message, "-- --backend pytorch"))
            if settings.cache_max_entry_count >= 1 and self._numbers >= OBJECT_CACHE:
                message = "object-cache path expects 0 < cache_max_block_count < 1"
                found.append(Refusal("block-count-refused", message, "-- --cache-max-entry-count 0.8"))
        return tuple(found)

    def _notices(
        self, model: ModelSpec, workload: Workload, settings: Settings, asked: str, num_sequences: int
    ) -> tuple[Notice, ...]:
        notices = [*beside_notices(model, workload, settings), *not_planned(workload)]
        if num_sequences < workload.num_sequences:
            notices.append(capped_notice(workload.num_sequences, num_sequences, "max_batch_size"))
        if settings.backend != asked and not not_served(model, settings.backend, self._numbers):
            text = f"{model.architecture} is not TurboMind's: LMDeploy falls back to its PyTorch backend"
            notices.append(Notice("backend-fallback", text))
        if self._numbers > LAST_WITH_TOTAL_SHARE and self._numbers[:2] != release_numbers(NEWEST, 2):
            text = f"LMDeploy {self.version} is planned by {NEWEST}'s rules"
            notices.append(Notice("version-assumed", text))
        unsure = _unsure(model, settings)
        if unsure:
            text = f"{unsure} under LMDeploy is assumed: it was read, not run"
            notices.append(Notice("layer-not-modelled", text))
        return tuple(notices)


def engine(version: str | None) -> LmdeployEngine:
    """Return the policy of a version. Raises InvalidValue for what is none, or one before 0.2.0."""
    text = (version or NEWEST).removeprefix("v")
    numbers = release_numbers(text, 3)
    if len(numbers) < 2 or numbers < OLDEST:
        raise InvalidValue(
            f"'lmdeploy@{version}' is not modelled",
            why="the rules begin with 0.2.0",
            hint=f"write it like --engine lmdeploy@{NEWEST}",
        )
    return LmdeployEngine(text)


def _format_of(model: ModelSpec, workload: Workload, asked: str) -> str:
    """Return the weights' format: the asked one, else the published one.

    The PyTorch backend quantizes a 16-bit checkpoint while it loads (pytorch/config.py,
    _patch_quantization_config: fp8 in blocks of 128 x 128).
    """
    # messages.py: ``dtype`` auto takes fp16 for fp32 checkpoints.
    name = served_format_name(model, workload.weights_format, "float16")
    on_load = workload.weights_format is None and model.quantization is None
    if on_load and workload.option("model_format") == "fp8" and backend_of(model, asked, name) == "pytorch":
        name = format_name_of(model, "fp8-block")
    if workload.weights_format is not None and not _loads(name):
        raise not_loaded("LMDeploy", name, TAKEN)
    return name


def _loads(format_name: str) -> bool:
    return weight_format(format_name).family in LOADED and format_name != "nvfp4"


def _splits(num_key_value_heads: int, ranks: int) -> bool:
    """Tell whether KV heads divide, or repeat, over ranks (pytorch/config.py, from_hf_config)."""
    if num_key_value_heads >= ranks:
        return num_key_value_heads % ranks == 0
    return ranks % num_key_value_heads == 0


def _least(ranks: Sequence[Rank]) -> int | None:
    tokens = [rank.pool_tokens for rank in ranks if rank.pool_tokens is not None]
    return min(tokens) if tokens and len(tokens) == len(ranks) else None


def _unsure(model: ModelSpec, settings: Settings) -> str:
    """Return the kinds of layers whose bytes are an interval, for people."""
    kinds = [
        kind_name(cache)
        for cache, _ in cache_kinds(model)
        if not (has_rows(cache) or isinstance(cache, RECURRENT_STATES))
        or (isinstance(cache, RECURRENT_STATES) and settings.backend == "turbomind")
        or (
            isinstance(cache, SlidingWindow)
            and settings.backend == "pytorch"
            and model.model_type not in WINDOW_OFF
        )
    ]
    return ", ".join(dict.fromkeys(kinds)).replace("_", " ")


def _cache_use(model: ModelSpec, settings: Settings, context_tokens: int, num_sequences: int) -> CacheUse:
    """Return what the load takes of the whole model, heads counted once."""
    one = rank_demand(model, settings, 1, context_tokens, 1)
    length = one.block_length
    num_blocks = ceil_div(context_tokens + settings.num_draft_tokens, length)
    groups = []
    sized = blocks_of(model, settings, 1)
    for (cache, count), block in zip(cache_kinds(model), sized.kinds, strict=True):
        kept, detail = num_blocks * block, ""
        if isinstance(cache, RECURRENT_STATES):
            kept, detail = slot_bytes([(cache, count)], 1, settings.num_draft_tokens), STATES_DETAIL
        elif isinstance(cache, SlidingWindow | ChunkedAttention):
            detail = "kept in full"
        groups.append(CacheGroup(kind_name(cache), count, block // length, kept, detail))
    drafted = sized.drafted.expected
    if drafted:
        layers = sum(group.count for group in draft_of(model, settings, model.weights_format, 1).layers)
        groups.append(CacheGroup("draft", layers, drafted // length, num_blocks * drafted))
    each = num_blocks * one.block_bytes
    every = rank_demand(model, settings, 1, context_tokens, num_sequences).kv
    if every.basis == "exact":
        every = exact(num_sequences * (each + one.slot_bytes))
    return CacheUse(
        bytes_per_token=one.block_bytes // length,
        bytes_per_sequence=each + one.slot_bytes,
        state_bytes_per_sequence=one.slot_bytes,
        total=every,
        peak_bytes=every.expected,
        groups=tuple(groups),
        block_size=length,
        page_size_bytes=one.block_bytes,
    )


def _startup_lines(
    settings: Settings, ranks: Sequence[Rank], block: int, version: tuple[int, ...]
) -> tuple[str, ...]:
    """Return what TurboMind logs of its cache at INFO: engine.cc since 0.17, BlockManager.cc before."""
    if not ranks or settings.backend != "turbomind" or settings.fixed_blocks or settings.share_of_total:
        return ()
    plan = ranks[0].plan
    held = sum(part.bytes.expected for part in plan.components if part.name != "kv_cache")
    free = plan.budget_bytes - held
    share = settings.cache_max_entry_count
    if free <= 0:
        return ()
    if version < OBJECT_CACHE:
        size = f"{block / MIB:.3f} MB"
        return (
            f"[BlockManager] block_size = {size}",
            f"[BlockManager] max_block_count = {free // max(1, block)}",
        )
    budget, all_free = f"{free / MIB:.2f} MB", f"{free / share / MIB:.2f} MB"
    return (f"Object cache budget: {budget} from free {all_free} and ratio {share:.3f}",)
