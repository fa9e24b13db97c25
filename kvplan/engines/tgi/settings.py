"""TGI's settings: its launcher's options, their defaults by version, and what a warm-up runs.

text-generation-inference launcher/src/main.rs at 2.0, 2.4 and 3.0, backends/v3/src/client/
grpc_client.rs (warmup), server/text_generation_server/models/flash_causal_lm.py.
"""

from kvplan.device import Device
from kvplan.engines.tgi.kernels import BLOCK_SIZES, attention_of
from kvplan.engines.tgi.prefill import ALIGNMENT_EDGE, default_prefill_tokens
from kvplan.errors import InvalidValue, UnknownFormat, did_you_mean
from kvplan.frozen import dataclass
from kvplan.model import ModelSpec
from kvplan.units import ceil_div
from kvplan.workload import Workload

# Since 3.0 lengths are inferred from the pool; before, 4,096 at most unless a flag says more.
INFERS_LENGTH = (3, 0)
OLD_MAX_TOKENS = 4096
# What is kept free: a share of what is left before 3.0, of the whole card since.
OF_TOTAL_SINCE = (3, 0)
# TGI_WIGGLE_ROOM came with 2.3; its default was read at 3.x alone, the smaller of the two known.
ROOM_SINCE, ROOM, OLD_ROOM = (2, 3), 0.90, 0.95
KV_DTYPE_SINCE = (2, 4)
MAX_CONCURRENT_REQUESTS = 128

KV_DTYPES: dict[str, str] = {
    "auto": "", "bf16": "", "bfloat16": "", "fp16": "", "float16": "",
    "fp8": "fp8_e4m3fn", "fp8_e4m3": "fp8_e4m3fn", "fp8_e4m3fn": "fp8_e4m3fn", "fp8_e5m2": "fp8_e5m2",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Settings:
    """What one server runs with.

    ``max_total_tokens`` is 0 where the engine infers it, ``max_input_tokens`` 0 where none is given.
    ``room`` is the share of memory that it uses, ``room_of_total`` whether the rest is the card's.
    """

    max_total_tokens: int
    max_input_tokens: int
    max_batch_prefill_tokens: int
    max_batch_total_tokens: int
    max_batch_size: int
    max_concurrent_requests: int
    cuda_memory_fraction: float
    room: float
    room_of_total: bool
    attention: str
    kv_dtype: str
    speculate: int
    prefill_logprobs: bool

    @property
    def block_size(self) -> int:
        """Tokens of a block."""
        return BLOCK_SIZES[self.attention]

    @property
    def element_bytes(self) -> int:
        """Bytes of one value in the cache."""
        return 1 if self.kv_dtype.startswith("fp8") else 2

    @property
    def sequence_limit(self) -> int:
        """Requests at once: the router's limit, the batch's where one is set."""
        most = self.max_concurrent_requests
        return min(most, self.max_batch_size) if self.max_batch_size else most

    def request_blocks(self, tokens: int) -> int:
        """Return the blocks of a request of ``tokens``: its last token is never stored."""
        return ceil_div(max(1, tokens - 1 + self.speculate), self.block_size)

    def warmup_blocks(self) -> int:
        """Return the blocks of the warm-up's batch, which any pool holds at least."""
        requests = 1
        if self.max_input_tokens:
            requests = max(1, ceil_div(self.max_batch_prefill_tokens, self.max_input_tokens))
        if self.max_batch_size:
            requests = min(requests, self.max_batch_size)
        if not self.max_total_tokens:
            return ceil_div(self.max_batch_prefill_tokens, self.block_size)
        return requests * self.request_blocks(self.max_total_tokens)


def settings_of(
    model: ModelSpec, workload: Workload, device: Device | None, shards: int, version: tuple[int, ...]
) -> Settings:
    """Resolve the settings. Raises InvalidValue for a share outside 0 to 1, UnknownFormat for a dtype."""
    fraction = _share(workload, "cuda_memory_fraction", 1.0, at_most_one=True)
    room = _share(workload, "wiggle_room", ROOM if version >= ROOM_SINCE else OLD_ROOM, at_most_one=False)
    total = _whole(workload, "max_total_tokens")
    given = _whole(workload, "max_input_tokens") or _whole(workload, "max_input_length")
    batch = _whole(workload, "max_batch_size")
    prefill = _whole(workload, "max_batch_prefill_tokens")
    if version < INFERS_LENGTH:
        positions = min(OLD_MAX_TOKENS, model.context_limit_tokens or OLD_MAX_TOKENS)
        # A length that is only asked about comes with an input limit that suits it.
        longest = positions if total else min(positions, workload.context_tokens or positions)
        given = given or longest - 1
        total = total or workload.context_tokens or positions
        prefill = prefill or (batch * given if batch else given + ALIGNMENT_EDGE)
    return Settings(
        max_total_tokens=total,
        max_input_tokens=given,
        max_batch_prefill_tokens=prefill or default_prefill_tokens(model, device, shards, version),
        max_batch_total_tokens=_whole(workload, "max_batch_total_tokens"),
        max_batch_size=batch,
        max_concurrent_requests=_whole(workload, "max_concurrent_requests") or MAX_CONCURRENT_REQUESTS,
        cuda_memory_fraction=fraction,
        room=room,
        room_of_total=version >= OF_TOTAL_SINCE,
        attention=attention_of(model, str(workload.option("attention", "")), device, version),
        kv_dtype=_kv_dtype(model, workload),
        speculate=_whole(workload, "speculate"),
        prefill_logprobs=version < INFERS_LENGTH or bool(workload.option("enable_prefill_logprobs")),
    )


def _kv_dtype(model: ModelSpec, workload: Workload) -> str:
    """Return the cache's dtype: the asked one, else the model's 16-bit type."""
    if workload.kv_cache_dtype_k != workload.kv_cache_dtype_v:
        raise UnknownFormat(
            "TGI keeps keys and values in one format",
            why="--kv-cache-dtype sets both",
            hint="use --kv with one format",
        )
    asked = workload.kv_cache_dtype_k
    if asked not in KV_DTYPES:
        raise UnknownFormat(
            f"TGI has no KV cache format '{asked}'",
            why=did_you_mean(asked, KV_DTYPES) or "it takes the model's own, fp8_e4m3fn and fp8_e5m2",
            hint="name one of them, or the engine that has it: kvplan list engines",
        )
    own = model.dtype if model.dtype in ("float16", "bfloat16") else "float16"
    return KV_DTYPES[asked] or own


def _share(workload: Workload, name: str, default: float, *, at_most_one: bool) -> float:
    asked = workload.option(name, default)
    share = float(asked) if isinstance(asked, int | float) else default
    if not 0 < share <= 1 or (share == 1 and not at_most_one):
        raise InvalidValue(
            f"{name} {share:g} is not a share",
            why=f"TGI takes more than 0 and {'at most' if at_most_one else 'less than'} 1",
            hint=f"leave it out for {default:g}",
        )
    return share


def _whole(workload: Workload, name: str) -> int:
    value = workload.option(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
