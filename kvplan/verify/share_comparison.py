"""TensorRT-LLM's, LMDeploy's and TGI's own figures against the plan's.

Their pool is a share of what is free once the model is loaded, so its size is planned as an interval;
bytes of a token or a block are exact, and so are the tokens for the memory that a log prints.
"""

from kvplan.engines.base import Component, Plan
from kvplan.frozen import replace
from kvplan.quantity import Quantity, total
from kvplan.units import round_up
from kvplan.verify.comparison import Comparison, as_loaded, of_quantity
from kvplan.verify.readings import Reading, Readings

ENGINES = ("tensorrt-llm", "lmdeploy", "tgi")
PRINTED_TOKENS = "bytes of the printed tokens"
PRINTED_MEMORY = "for the memory that the log says was available"


def shares(plan: Plan, readings: Readings) -> tuple[Comparison, ...]:
    """Return every figure that both sides have: the first rank's, for all are planned alike."""
    if not plan.devices:
        return ()
    facts = dict(plan.details)
    pool, block = _first(facts.get("pools")), _first(facts.get("block_bytes"))
    length = plan.cache.block_size or 1
    rows = [*_loaded(plan, readings, _first(facts.get("runtimes")))]
    available, tokens = readings.smallest("kv_cache_available"), readings.counts.get("kv_cache_tokens")
    blocks = readings.counts.get("num_blocks")
    if tokens is None and blocks is not None:
        tokens = blocks * length
    if available is not None and pool is not None:
        rows.append(_amount("kv_cache_available", pool, available))
    if block is not None and block.expected:
        rows += _of_blocks(readings, block, length, tokens)
        if available is not None and tokens and block.basis == "exact" and plan.engine_name == "tensorrt-llm":
            rows.append(_for_memory(plan, available, block, length, tokens))
        elif available is None and tokens and pool is not None:
            rows.append(_planned_tokens(plan, pool, block, length, tokens))
    return tuple(rows)


def _first(amounts: object) -> Quantity | None:
    """Return the first rank's amount of a plan's detail."""
    first = next(iter(amounts), None) if isinstance(amounts, tuple) else None
    return first if isinstance(first, Quantity) else None


def _loaded(plan: Plan, readings: Readings, runtime: Quantity | None) -> list[Comparison]:
    """Compare what lies beside the pool."""
    parts = plan.devices[0].components
    weights = _sum(parts, ("weights", "draft_model"))
    rows = [
        ("weights", as_loaded(weights), readings.largest("weights")),
        ("activations", _sum(parts, ("activations",)), readings.largest("activations")),
        ("runtime", runtime, readings.largest("non_torch")),
        ("adapters", _sum(parts, ("adapters",)), readings.largest("adapters")),
    ]
    return [
        _amount(name, planned, reading)
        for name, planned, reading in rows
        if reading is not None and planned is not None
    ]


def _sum(parts: tuple[Component, ...], names: tuple[str, ...]) -> Quantity:
    return total(part.bytes for part in parts if part.name in names)


def _amount(name: str, planned: Quantity, reading: Reading, why: str = "") -> Comparison:
    row = of_quantity(name, planned, reading.num_bytes, rounding=reading.rounding_bytes, where=reading.device)
    return replace(row, why=why)


def _of_blocks(readings: Readings, block: Quantity, length: int, tokens: float | None) -> list[Comparison]:
    """Compare a token's row, a block, and the pool that so many of them make."""
    rows: list[Comparison] = []
    said = readings.counts.get("bytes_per_token")
    if said is not None:
        row = Quantity(block.low // length, block.expected // length, block.high // length, block.basis)
        rows.append(of_quantity("bytes_per_token", row, int(said)))
    page, pool = readings.largest("page"), readings.largest("kv_cache")
    if page is not None:
        rows.append(_amount("page", block, page))
    elif pool is not None and tokens:
        many = int(tokens) // length
        whole = Quantity(block.low * many, block.expected * many, block.high * many, block.basis)
        rows.append(_amount("kv_cache", whole, pool, PRINTED_TOKENS))
    return rows


def _for_memory(plan: Plan, available: Reading, block: Quantity, length: int, tokens: float) -> Comparison:
    """Compare TensorRT-LLM's tokens for its own available memory: blocks rounded up."""
    most = dict(plan.workload.engine_options).get("max_tokens")

    def held(num_bytes: int) -> int:
        fit = max(0, num_bytes) * length // block.expected
        return round_up(min(fit, most) if isinstance(most, int) and most > 0 else fit, length)

    return Comparison(
        "kv_cache_tokens",
        unit="tokens",
        low=held(available.num_bytes - available.rounding_bytes),
        expected=held(available.num_bytes),
        high=held(available.num_bytes + available.rounding_bytes),
        basis="exact",
        measured=tokens,
        why=PRINTED_MEMORY,
    )


def _planned_tokens(plan: Plan, pool: Quantity, block: Quantity, length: int, tokens: float) -> Comparison:
    """Compare the tokens with those of the planned pool: bounds of its memory, and of a token's."""
    expected = plan.kv_cache_tokens or pool.expected // block.expected * length
    low, high = pool.low // block.high * length, pool.high // max(1, block.low) * length
    return Comparison(
        "kv_cache_tokens",
        unit="tokens",
        low=min(low, expected),
        expected=expected,
        high=max(high, expected),
        basis="assumed",
        measured=tokens,
        why="from the planned pool",
    )
