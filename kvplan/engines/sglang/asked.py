"""What the asked sequences take of SGLang's pools: whole pages, and their share of the window pool."""

from math import ceil

from kvplan.engines.sglang.cells import Cells
from kvplan.engines.sglang.compressed import CompressedLayout, full_token_bytes, pages_bytes
from kvplan.engines.sglang.pools import EVICTION_INTERVAL, caps_by_requests, request_cap_tokens
from kvplan.engines.sglang.settings import Settings
from kvplan.frozen import dataclass
from kvplan.units import ceil_div, round_up


@dataclass(frozen=True, slots=True)
class AskedTokens:
    """Tokens the pools must hold: of the full pool, and of the window pool where there is one."""

    full: int
    window: int


def asked_tokens(
    settings: Settings, context_tokens: int, num_sequences: int, *, has_windows: bool
) -> AskedTokens:
    """Return the tokens of ``num_sequences`` at ``context_tokens``, in whole pages.

    A window pool is a fixed share of the full one, so a short context may need more full tokens
    than it has for the windows' sake.
    """
    page = settings.page_size
    full = round_up(context_tokens, page) * num_sequences
    if not has_windows:
        return AskedTokens(full, 0)
    if caps_by_requests(settings):
        running = settings.max_running_requests or num_sequences
        return AskedTokens(full, round_up(request_cap_tokens(settings, running), page))
    held = min(round_up(context_tokens, page), settings.sliding_window + EVICTION_INTERVAL + 2 * page)
    needed = max(held * num_sequences, settings.sliding_window + page + 1)
    ratio = settings.swa_full_tokens_ratio
    full = max(full, round_up(ceil(needed / ratio), page)) if ratio else full
    return AskedTokens(full, int(full * ratio) // page * page)


def asked_bytes(
    cells: Cells,
    compressed: CompressedLayout | None,
    settings: Settings,
    context_tokens: int,
    num_sequences: int,
) -> tuple[int, int]:
    """Return the bytes of the pools that hold the asked load: the model's, and a draft head's.

    Without the padding page, which SGLang's budget does not count either.
    """
    if compressed is not None:
        tokens = asked_tokens(settings, context_tokens, num_sequences, has_windows=True)
        return ceil(full_token_bytes(compressed, settings) * tokens.full), 0
    tokens = asked_tokens(settings, context_tokens, num_sequences, has_windows=bool(cells.window_bytes))
    if cells.window_bytes and not caps_by_requests(settings):
        ratio = settings.swa_full_tokens_ratio
        main = cells.full_bytes * tokens.full + ceil(ratio * cells.window_bytes * tokens.full)
        return main, cells.draft_full_bytes * tokens.full + ceil(
            ratio * cells.draft_window_bytes * tokens.full
        )
    return held_bytes(cells, compressed, settings, context_tokens, num_sequences)


def held_bytes(
    cells: Cells,
    compressed: CompressedLayout | None,
    settings: Settings,
    context_tokens: int,
    num_sequences: int,
) -> tuple[int, int]:
    """Return what the same pools hold: the model's, and a draft head's; padding pages left out.

    A window pool has whole pages, while the budget charges its exact share of the full tokens.
    """
    has_windows = compressed is not None or bool(cells.window_bytes)
    tokens = asked_tokens(settings, context_tokens, num_sequences, has_windows=has_windows)
    if compressed is not None:
        return pages_bytes(compressed, settings, tokens.full), 0
    main = cells.full_bytes * tokens.full + cells.window_bytes * tokens.window
    return main, cells.draft_full_bytes * tokens.full + cells.draft_window_bytes * tokens.window


def states_for(settings: Settings, num_sequences: int) -> int:
    """Return the state slots that ``num_sequences`` hold, the spare one included."""
    return num_sequences * settings.slots_per_request + 1


def each(num_sequences: int, settings: Settings) -> int:
    """Return the sequences of one attention group of one replica."""
    return ceil_div(num_sequences, settings.attention_dp * settings.data)
