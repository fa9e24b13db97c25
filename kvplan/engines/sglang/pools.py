"""SGLang's pools for a given free memory: tokens, windows, state slots, running requests, bytes.

SGLang 0.5.23 srt/mem_cache/kv_cache_configurator.py (what is left after the slack, state slots,
running requests) and srt/model_executor/pool_configurator.py (tokens by pool). Free memory is in GiB
floats there, and is kept so here: the last byte of the budget depends on it.
"""

from math import ceil

from kvplan.engines.sglang.cells import Cells
from kvplan.engines.sglang.settings import Settings
from kvplan.frozen import dataclass
from kvplan.units import GIB, round_up

# A window slot is freed in steps of this many tokens (SGLANG_SWA_EVICTION_INTERVAL).
EVICTION_INTERVAL = 128
MIN_ESTIMATE, MAX_ESTIMATE = 2048, 4096
# req_to_token keeps a few columns beyond the context (allocation_sizing.py).
EXTRA_COLUMNS = 4


@dataclass(frozen=True, slots=True)
class Refused:
    """The pools cannot be made: SGLang's own error text."""

    message: str


@dataclass(frozen=True, slots=True)
class Pools:
    """What one rank allocates.

    ``budget_bytes`` is what was left for tokens, after states. ``pool_bytes`` is what the token
    pools take, a padding page each included, which the budget does not count. ``state_bytes`` are
    the state slots with their spare one, ``intermediate_bytes`` the states kept per draft token,
    ``draft_bytes`` a draft head's pool. ``req_to_token_bytes`` comes later, out of the slack.
    """

    budget_bytes: int
    max_total_num_tokens: int
    full_tokens: int
    window_tokens: int
    mamba_slots: int
    max_running_requests: int
    pool_bytes: int
    state_bytes: int
    intermediate_bytes: int
    draft_bytes: int
    req_to_token_bytes: int


@dataclass(frozen=True, slots=True)
class StateSlots:
    """State slots on a rank, without the spare one; ``spec_bytes`` are kept per draft token."""

    num_slots: int
    per_request_bytes: int
    spec_bytes: int

    @property
    def num_bytes(self) -> int:
        """The slots' bytes, spare one included."""
        return (self.num_slots + 1) * self.per_request_bytes if self.per_request_bytes else 0


NO_STATES = StateSlots(0, 0, 0)


def rest_gib(settings: Settings, before_gib: float, after_gib: float) -> float:
    """Return the GiB left for pools: free after loading, less the slack and the image reserve."""
    slack = before_gib * (1 - settings.mem_fraction_static)
    return after_gib - slack - settings.multimodal_reserve_mib / 1024


def size_pools(
    cells: Cells, settings: Settings, before_gib: float, after_gib: float, per_request_bytes: int = 0
) -> Pools | Refused:
    """Size one rank's pools, DeepSeek-V4's excepted.

    ``before_gib`` is free memory before the weights load, ``after_gib`` after.
    ``per_request_bytes`` are one request's states, as the stage with most of them has them.
    """
    rest = rest_gib(settings, before_gib, after_gib)
    states = NO_STATES
    if per_request_bytes:
        slots = state_slots(settings, per_request_bytes, rest)
        if isinstance(slots, Refused):
            return slots
        states = slots
        rest = rest - states.spec_bytes / GIB - states.num_bytes / GIB
    if rest <= 0:
        return Refused(no_room_message(settings, before_gib, after_gib))
    budget = int(rest * GIB)
    tokens = pool_tokens(cells, settings, budget)
    if isinstance(tokens, Refused):
        return tokens
    full, window = tokens
    total = full or window
    running = running_requests(settings, total, states if per_request_bytes else None)
    if isinstance(running, Refused):
        return running
    return Pools(
        budget_bytes=budget,
        max_total_num_tokens=total,
        full_tokens=full,
        window_tokens=window,
        mamba_slots=states.num_slots,
        max_running_requests=running,
        pool_bytes=pool_bytes(cells, settings, full, window),
        state_bytes=states.num_bytes,
        intermediate_bytes=states.spec_bytes,
        draft_bytes=cells.draft_full_bytes * total + cells.draft_window_bytes * window,
        req_to_token_bytes=req_to_token_bytes(settings, running),
    )


def no_room_message(settings: Settings, before_gib: float, after_gib: float) -> str:
    """Return SGLang's error when the weights leave nothing for the pools."""
    minimum = 1 - after_gib / before_gib if before_gib else 1.0
    return (
        f"Loaded weights leave no GPU memory for the KV cache under "
        f"--mem-fraction-static={settings.mem_fraction_static}. Raise --mem-fraction-static above "
        f"{ceil(minimum * 1000) / 1000:.3f} (minimum viable = 1 - available/pre = {minimum:.4f}). "
        f"If using speculative decoding, draft weights are now counted."
    )


def no_tokens_message(settings: Settings) -> str:
    """Return SGLang's error when not one token fits."""
    return (
        "Not enough memory. Please try to increase --mem-fraction-static. "
        f"Current value: mem_fraction_static={settings.mem_fraction_static}"
    )


def state_slots(settings: Settings, per_request_bytes: int, rest: float) -> StateSlots | Refused:
    """Return the state slots (_handle_max_mamba_cache): as asked, one a request, or a share of the rest."""
    dp = settings.attention_dp
    # A server that only prefills verifies no draft (_pd_prefill_skips_mamba_spec_state).
    verifies = settings.speculative_algorithm and settings.disaggregation != "prefill"
    spec = settings.draft_tokens if verifies else 0
    running = max(1, (settings.max_running_requests or 0) // dp)
    if settings.max_mamba_cache_size is not None:
        slots = settings.max_mamba_cache_size // dp
        kept = min(running, slots // settings.slots_per_request)
    elif not settings.radix_cache and settings.max_running_requests is not None:
        slots = kept = running
    else:
        ratio = settings.mamba_full_memory_ratio
        share = rest * ratio / (1 + ratio) * GIB
        per_slot = per_request_bytes * (1 + spec / settings.slots_per_request)
        spare = per_request_bytes * (1 + spec)
        slots = int((share - spare) // (per_slot if spec else per_request_bytes))
        kept = min(running, slots // settings.slots_per_request)
    if slots <= 0:
        return Refused(
            "Not enough GPU memory for hybrid (mamba/linear-attention) state cache. "
            f"Computed max_mamba_cache_size={slots} (total_rest_memory={rest:.2f} GB, "
            f"mamba_cache_per_req={per_request_bytes / 2**20:.2f} MB). "
            "Try: (1) reduce --max-running-requests, (2) increase --mem-fraction-static, "
            "(3) reduce --speculative-num-draft-tokens, or (4) use GPUs with more memory."
        )
    return StateSlots(slots, per_request_bytes, per_request_bytes * (kept + 1) * spec if spec else 0)


def pool_tokens(cells: Cells, settings: Settings, budget: int) -> tuple[int, int] | Refused:
    """Return tokens of the pool all (or all full) layers use, and of the window pool."""
    page = settings.page_size
    full_bytes = cells.full_bytes + cells.draft_full_bytes
    window_bytes = cells.window_bytes + cells.draft_window_bytes
    if not window_bytes:
        most = budget // full_bytes if full_bytes else settings.max_total_tokens or settings.context_length
        tokens = _limited(most // page * page, settings)
        return (tokens, 0) if tokens > 0 else Refused(no_tokens_message(settings))
    if not full_bytes:
        tokens = _limited(budget // window_bytes // page * page, settings)
        return (0, tokens) if tokens > 0 else Refused(no_tokens_message(settings))
    if caps_by_requests(settings):
        return _request_capped(full_bytes, window_bytes, settings, budget)
    full = _limited(int(budget // (full_bytes + settings.swa_full_tokens_ratio * window_bytes)), settings)
    full = full // page * page
    window = int(full * settings.swa_full_tokens_ratio) // page * page
    if settings.sliding_window + page >= window:
        return Refused(
            f"SWA pool ({window} tokens) cannot hold even one request: the prefill admission floor is "
            f"sliding_window_size ({settings.sliding_window}) + page_size ({page}). "
            "Increase --swa-full-tokens-ratio or the total KV budget."
        )
    return full, window


def caps_by_requests(settings: Settings) -> bool:
    """Tell whether windows are sized by running requests (SWARequestCapPoolConfigurator)."""
    chunks = settings.chunked_prefill_size > 0 or settings.disaggregation == "decode"
    return settings.max_running_requests is not None and not settings.radix_cache and chunks


def request_cap_tokens(settings: Settings, max_running_requests: int) -> int:
    """Return the window slots that ``max_running_requests`` hold at worst (compute_swa_request_cap)."""
    page, window = settings.page_size, settings.sliding_window
    trailing = window + EVICTION_INTERVAL * max(1, settings.draft_tokens) + page
    ahead = page
    if settings.speculative_algorithm:
        each = round_up(settings.draft_tokens + page - 1, page) if page > 1 else settings.draft_tokens
        ahead = each if not settings.overlap_schedule else 2 * each
    requests = max(1, max_running_requests // settings.attention_dp)
    held = (trailing + ahead) * requests
    if settings.disaggregation == "decode":
        extra = 2 * requests if requests <= 32 else 0
        return held + (window + page) * extra
    return held + (2 if settings.overlap_schedule else 1) * settings.chunked_prefill_size + page


def _request_capped(
    full_bytes: int, window_bytes: int, settings: Settings, budget: int
) -> tuple[int, int] | Refused:
    page = settings.page_size
    window = round_up(request_cap_tokens(settings, settings.max_running_requests or 1), page)
    full = (budget - window * window_bytes) // full_bytes // page * page
    if full <= 0:
        return Refused(
            f"SWA pool cap ({window} tokens, {window * window_bytes / GIB:.2f} GiB) leaves no room for "
            f"the full KV pool within the available {budget / GIB:.2f} GiB. "
            "Reduce --max-running-requests, lower SGLANG_SWA_EVICTION_INTERVAL, or increase "
            "--mem-fraction-static."
        )
    limited = _limited(full, settings)
    return limited // page * page, min(window, limited)


def _limited(tokens: int, settings: Settings) -> int:
    """Apply --max-total-tokens, which only lowers."""
    if settings.max_total_tokens is None or settings.max_total_tokens >= tokens:
        return tokens
    return settings.max_total_tokens // settings.page_size * settings.page_size


def running_requests(settings: Settings, tokens: int, states: StateSlots | None) -> int | Refused:
    """Return max_running_requests of one attention group (resolve_max_num_reqs)."""
    estimate = max(min(int(tokens / settings.context_length * 512), MAX_ESTIMATE), MIN_ESTIMATE)
    asked = settings.max_running_requests
    running = estimate if asked is None else max(1, asked // settings.attention_dp)
    running = min(running, tokens // 2)
    if states is not None:
        running = min(running, states.num_slots // settings.slots_per_request)
        if running <= 0:
            return Refused(
                "Hybrid (mamba/linear-attention) state cache is too small to serve any requests. "
                f"max_mamba_cache_size={states.num_slots}, mamba_ratio={settings.slots_per_request}, "
                f"resulting max_num_reqs={running}."
            )
    return running


def pool_bytes(cells: Cells, settings: Settings, full: int, window: int) -> int:
    """Return what the token pools take: each has one page beyond its tokens for padded batches."""
    page = settings.page_size
    amount = cells.full_bytes * (full + page) if full else 0
    if cells.window_bytes:
        amount += cells.window_bytes * (window + page)
    if settings.kv_dtype == "nvfp4":
        # One fp32 scale for keys and one for values a layer.
        amount += 8 * cells.num_full_layers
    return amount


def req_to_token_bytes(settings: Settings, max_running_requests: int) -> int:
    """Return the table of token positions by request: int32, one spare row (memory_pool.py)."""
    columns = settings.context_length + EXTRA_COLUMNS + settings.draft_tokens
    return (max_running_requests + 1) * columns * 4
