"""What ``kvplan capacity`` was told about its requests: sessions, lengths, prefix, evictions."""

from kvplan.capacity.allocation import DEFAULT_BLOCK_SIZE
from kvplan.capacity.estimate import Demand
from kvplan.capacity.eviction import parse_eviction
from kvplan.capacity.lengths import Lengths, constant, drawn
from kvplan.errors import OptionClash
from kvplan.frozen import dataclass
from kvplan.sources.traces import read_trace
from kvplan.units import parse_tokens


@dataclass(frozen=True, slots=True)
class Traffic:
    """What was typed about requests and prices."""

    sessions: int | None
    trace: str | None
    mean_in: float | None
    mean_out: float | None
    tokens: str | None
    seed: int
    block_size: int | None
    prefix: str | None
    prefix_fraction: float
    evict: tuple[str, ...]
    gpus_per_node: int
    instance: str | None
    prices: str | None


def demand_of(traffic: Traffic, limit_tokens: int) -> Demand:
    """Return the demand. Raises OptionClash where lengths are given twice or by half."""
    prefix = None
    if traffic.prefix is not None:
        prefix = parse_tokens(traffic.prefix, "prefix"), traffic.prefix_fraction
    return Demand(
        traffic.sessions,
        _lengths(traffic, limit_tokens),
        traffic.block_size or DEFAULT_BLOCK_SIZE,
        prefix,
        tuple(parse_eviction(text) for text in traffic.evict),
    )


def _lengths(traffic: Traffic, limit_tokens: int) -> Lengths | None:
    means = traffic.mean_in is not None or traffic.mean_out is not None
    if (traffic.trace is not None) + means + (traffic.tokens is not None) > 1:
        raise OptionClash(
            "request lengths are given twice",
            why="--trace, --mean-in with --mean-out, and --tokens each say how long requests are",
            hint="keep one of them",
        )
    if traffic.trace is not None:
        return read_trace(traffic.trace)
    if means:
        if traffic.mean_in is None or traffic.mean_out is None:
            raise OptionClash(
                "only one of --mean-in and --mean-out is given",
                why="a request has a prompt and an output",
                hint="write it like --mean-in 161.31 --mean-out 337.99",
            )
        return drawn(traffic.mean_in, traffic.mean_out, limit_tokens, traffic.seed)
    return constant(parse_tokens(traffic.tokens, "session")) if traffic.tokens is not None else None
