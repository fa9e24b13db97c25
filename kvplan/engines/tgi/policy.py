"""text-generation-inference: a warm-up at full prefill, then a pool of what is still free.

Read in its repository (launcher and server at 2.0, 2.4 and 3.0, the 3.x server's copy for Gaudi), run
nowhere: rows, blocks and defaults are its arithmetic, the memory beside them is ``assumed``.
"""

from collections.abc import Sequence

from kvplan.device import Device
from kvplan.engines.base import CacheGroup, CacheUse, Engine, Notice, Plan, Refusal, capped_notice, not_loaded
from kvplan.engines.ranks import tensor_only
from kvplan.engines.releases import release_numbers
from kvplan.engines.tgi.beside import beside_notices
from kvplan.engines.tgi.rank_plan import Rank, rank_plan
from kvplan.engines.tgi.rows import OWN_CODE, load_bytes, row_bytes, token_bytes
from kvplan.engines.tgi.settings import INFERS_LENGTH, KV_DTYPE_SINCE, Settings, settings_of
from kvplan.errors import InvalidValue
from kvplan.layers import RECURRENT_STATES, SlidingWindow, kind_name
from kvplan.model import ModelSpec, cache_kinds
from kvplan.textbook import state_bytes
from kvplan.weight_formats import weight_format
from kvplan.weights import served_format_name, weight_bytes
from kvplan.workload import Workload

NEWEST = "3.3"
VERSIONS = ("2.0", "2.4", NEWEST)
KV_NAMES = ("auto", "fp8", "fp8_e4m3fn", "fp8_e5m2", "bf16", "fp16")
LOADED = ("plain", "fp8", "int8", "int4", "bnb", "exl")
TAKEN = "16-bit, fp8, AWQ, GPTQ, Marlin, EETQ, bitsandbytes, EXL2 and compressed-tensors"
# What ``--quantize`` makes of an unquantized checkpoint, by kvplan's names of the formats.
QUANTIZED_WHILE_LOADING: dict[str, str] = {
    "eetq": "int8",
    "bitsandbytes": "bnb-int8",
    "bitsandbytes-nf4": "nf4",
    "bitsandbytes-fp4": "nf4",
    "fp8": "fp8",
    "awq": "awq",
    "gptq": "gptq-int4",
    "marlin": "gptq-int4",
}
# What a kind of layer keeps, where that is not its own rows alone.
DETAILS: dict[str, str] = {
    "sliding_window": "kept in full",
    "chunked_attention": "kept in full",
    "latent_attention": "decompressed heads of keys and values",
}


class TgiEngine(Engine):
    """text-generation-launcher at a version."""

    name = "tgi"
    versions = VERSIONS
    kv_formats = KV_NAMES
    weight_families = LOADED
    about = "text-generation-inference: a pool of what its warm-up leaves free; read from its source"

    def __init__(self, version: str) -> None:
        """Take a version's rules."""
        self.version = version
        self._numbers = release_numbers(version, 2)
        self.takes_what_fits = self._numbers >= INFERS_LENGTH

    def plan(self, model: ModelSpec, workload: Workload, devices: Sequence[Device]) -> Plan:
        """Price every rank. Raises UnknownFormat for formats that TGI does not take."""
        format_name = _format_of(model, workload)
        parallel, refusals = tensor_only(model, workload, max(1, len(devices)), "TGI", _splits)
        device = devices[0] if devices else None
        settings = settings_of(model, workload, device, parallel.tensor, self._numbers)
        context_tokens = (
            workload.context_tokens or settings.max_total_tokens or model.context_limit_tokens or 4096
        )
        num_sequences = min(workload.num_sequences, settings.sequence_limit)
        made = {
            each: rank_plan(
                model, workload, settings, format_name, parallel, each, num_sequences, context_tokens
            )
            for each in dict.fromkeys(devices)
        }
        ranks = tuple(made[each] for each in devices)
        tokens = min((rank.num_blocks for rank in ranks), default=0) * settings.block_size
        options = (
            ("cuda_memory_fraction", settings.cuda_memory_fraction),
            ("wiggle_room", settings.room),
            ("max_total_tokens", settings.max_total_tokens or context_tokens),
            ("max_batch_prefill_tokens", settings.max_batch_prefill_tokens),
            ("max_concurrent_requests", settings.max_concurrent_requests),
            ("attention", settings.attention),
            ("kv_cache_dtype", settings.kv_dtype),
            ("num_shard", parallel.tensor),
        )
        return Plan(
            model=model,
            workload=workload,
            engine_name=self.name,
            engine_version=self.version,
            engine_options=options,
            parallel=parallel,
            weights_format=format_name,
            weights=weight_bytes(model, format_name),
            kv_dtype_k=settings.kv_dtype,
            kv_dtype_v=settings.kv_dtype,
            context_tokens=context_tokens,
            num_sequences=num_sequences,
            devices=tuple(rank.plan for rank in ranks),
            cache=_cache_use(model, settings, num_sequences, context_tokens),
            sequence_limit=settings.sequence_limit,
            sequence_limit_name="max_batch_size" if settings.max_batch_size else "max_concurrent_requests",
            kv_cache_tokens=tokens or None,
            max_concurrency=tokens / context_tokens if tokens else None,
            refusals=(
                *refusals,
                *_not_served(model, format_name),
                *self._refusals(settings, format_name, parallel.tensor, context_tokens),
            ),
            warnings=_notices(model, workload, settings, num_sequences),
            startup_lines=_startup_lines(settings, ranks),
            details=(
                ("pools", tuple(rank.pool for rank in ranks)),
                ("block_bytes", tuple(rank.block for rank in ranks)),
                ("left_free", tuple(rank.left_free_bytes for rank in ranks)),
            ),
        )

    def _refusals(
        self, settings: Settings, format_name: str, shards: int, context_tokens: int
    ) -> tuple[Refusal, ...]:
        """Return what the launcher or a shard stops at, in its words."""
        found: list[Refusal] = []
        total, given = settings.max_total_tokens, settings.max_input_tokens
        if total and context_tokens > total:
            message = f"{context_tokens} tokens are above `max_total_tokens` ({total})"
            found.append(
                Refusal("context-exceeds-max-total-tokens", message, f"--max-total-tokens {context_tokens}")
            )
        if total and given >= total:
            message = f"`max_input_tokens`({given}) must be < `max_total_tokens`({total})"
            found.append(Refusal("lengths-clash", message, f"--max-input-tokens {total - 1}"))
        if total and 0 < settings.max_batch_total_tokens < total:
            message = (
                "`max_total_tokens` must be <= `max_batch_total_tokens`. "
                f"Given: {total} and {settings.max_batch_total_tokens}"
            )
            found.append(Refusal("lengths-clash", message, f"--max-batch-total-tokens {total}"))
        if settings.element_bytes == 1 and self._numbers < KV_DTYPE_SINCE:
            found.append(Refusal("kv-format-refused", "--kv-cache-dtype came with TGI 2.4", "--engine tgi"))
        elif settings.element_bytes == 1 and settings.attention == "flashdecoding":
            message = "FP8 KV cache is currently only supported for flashinfer on CUDA and paged attention"
            found.append(Refusal("kv-format-refused", message, "--kv auto"))
        if weight_format(format_name).family == "exl" and shards > 1:
            message = "Sharding is currently not supported with `exl2` quantization"
            found.append(Refusal("sharding-refused", message, "--tp 1"))
        return tuple(found)


def engine(version: str | None) -> TgiEngine:
    """Return the policy of a version. Raises InvalidValue for what is none, or one before 2.0."""
    text = (version or NEWEST).removeprefix("v")
    numbers = release_numbers(text, 2)
    if len(numbers) < 2 or numbers < release_numbers(VERSIONS[0], 2):
        raise InvalidValue(
            f"'tgi@{version}' is not modelled",
            why=f"the rules begin with {VERSIONS[0]}",
            hint=f"write it like --engine tgi@{NEWEST}",
        )
    return TgiEngine(text)


def _format_of(model: ModelSpec, workload: Workload) -> str:
    """Return the weights' format: the asked one, what ``--quantize`` makes, else the published one."""
    asked = workload.weights_format
    if asked is None and model.quantization is None:
        asked = QUANTIZED_WHILE_LOADING.get(str(workload.option("quantize")))
    # flash_causal_lm.py: a model runs in fp16 unless it names a 16-bit type of its own.
    name = served_format_name(model, asked, "float16")
    if workload.weights_format is not None and not _loads(name):
        raise not_loaded("TGI", name, TAKEN)
    return name


def _loads(format_name: str) -> bool:
    return weight_format(format_name).family in LOADED


def _splits(num_key_value_heads: int, ranks: int) -> bool:
    """Tell whether KV heads divide over shards; a single one is copied (flash_causal_lm.py)."""
    return num_key_value_heads == 1 or num_key_value_heads % ranks == 0


def _not_served(model: ModelSpec, format_name: str) -> tuple[Refusal, ...]:
    """Return what no flag helps: encoders, and checkpoints published in a format that TGI lacks."""
    found: list[Refusal] = []
    if model.structure.kind == "encoder":
        message = "TGI generates text; encoders are text-embeddings-inference's"
        found.append(Refusal("architecture-not-served", message, "--engine transformers"))
    if not _loads(format_name):
        message = f"TGI does not load {format_name} weights: it takes {TAKEN}"
        found.append(Refusal("weights-not-loaded", message, "--weights bf16"))
    return tuple(found)


def _notices(
    model: ModelSpec, workload: Workload, settings: Settings, num_sequences: int
) -> tuple[Notice, ...]:
    notices: list[Notice] = list(beside_notices(settings))
    if num_sequences < workload.num_sequences:
        notices.append(capped_notice(workload.num_sequences, num_sequences))
    if settings.max_batch_total_tokens:
        text = "`--max-batch-total-tokens` is deprecated for Flash Attention models: TGI infers it"
        notices.append(Notice("flag-without-effect", text))
    if model.model_type not in OWN_CODE:
        text = f"TGI has no code of its own for {model.model_type}: on transformers' it was not read"
        notices.append(Notice("layer-not-modelled", text))
    elif any(isinstance(cache, SlidingWindow) for cache, _ in cache_kinds(model)):
        text = "sliding windows under TGI are assumed: between their length and in full"
        notices.append(Notice("layer-not-modelled", text))
    return tuple(notices)


def _cache_use(model: ModelSpec, settings: Settings, num_sequences: int, context_tokens: int) -> CacheUse:
    """Return what the load takes of the whole model, heads counted once."""
    held = settings.request_blocks(context_tokens) * settings.block_size
    groups = []
    for cache, count in cache_kinds(model):
        row = row_bytes(cache, settings, 1) * count
        kept, detail = row * held, DETAILS.get(kind_name(cache), "")
        if isinstance(cache, RECURRENT_STATES):
            kept = state_bytes(cache, "bfloat16") * count
        groups.append(CacheGroup(kind_name(cache), count, row, kept, detail))
    every = load_bytes(model, settings, 1, num_sequences, context_tokens)
    row = token_bytes(model, settings, 1)
    states = sum(state_bytes(cache, "bfloat16") * count for cache, count in cache_kinds(model))
    return CacheUse(
        bytes_per_token=row,
        bytes_per_sequence=row * held + states,
        state_bytes_per_sequence=states,
        total=every,
        peak_bytes=every.expected,
        groups=tuple(groups),
        block_size=settings.block_size,
        page_size_bytes=row * settings.block_size,
    )


def _startup_lines(settings: Settings, ranks: Sequence[Rank]) -> tuple[str, ...]:
    """Return what the shards and the router log of the pool (flash_causal_lm.py, backends/v3/src/lib.rs)."""
    if not ranks:
        return ()
    num_blocks = min(rank.num_blocks for rank in ranks)
    return (
        f"KV-cache blocks: {num_blocks}, size: {settings.block_size}",
        f"Setting max batch total tokens to {num_blocks * settings.block_size}",
    )
