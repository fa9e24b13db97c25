"""How long requests are: constant, drawn to given means, or as a trace has them."""

from collections.abc import Sequence
from random import Random

from kvplan.errors import InvalidValue
from kvplan.frozen import dataclass

NUM_DRAWN = 4000
PERCENTILES = (50, 95, 99)


@dataclass(frozen=True, slots=True)
class Lengths:
    """Prompt and output tokens of requests in order of arrival; ``source`` says where they are from.

    ``num_dropped`` requests were longer than the limit and are not among them. ``shared_fraction``
    is the part of prompt tokens that an endless prefix cache would have seen before, None where
    the source does not tell.
    """

    prompts: tuple[int, ...]
    outputs: tuple[int, ...]
    source: str
    num_dropped: int = 0
    shared_fraction: float | None = None

    @property
    def totals(self) -> tuple[int, ...]:
        """The tokens of each request at its end."""
        return tuple(map(int.__add__, self.prompts, self.outputs))


def constant(tokens: int) -> Lengths:
    """Return a load in which every session holds ``tokens``."""
    return Lengths((tokens - 1,), (1,), f"constant, {tokens:,} tokens a session")


def drawn(mean_in: float, mean_out: float, limit_tokens: int, seed: int) -> Lengths:
    """Return 4,000 requests with exponential lengths of these means, both at least one token.

    The exponential supposes no more than the means. What exceeds the limit is drawn again, so the
    means of what is kept are a little lower.
    """
    if mean_in < 1 or mean_out < 1:
        raise InvalidValue(
            f"means of {mean_in:g} and {mean_out:g} tokens are no lengths",
            why="a request has at least one token in and one out",
            hint="write it like --mean-in 161.31 --mean-out 337.99",
        )
    if mean_in + mean_out > limit_tokens:
        raise InvalidValue(
            f"requests of {mean_in + mean_out:,.0f} tokens on average exceed the limit of {limit_tokens:,}",
            why="at least the average request must fit its context",
            hint="raise --ctx, or lower --mean-in and --mean-out",
        )
    random = Random(seed)
    prompts: list[int] = []
    outputs: list[int] = []
    while len(prompts) < NUM_DRAWN:
        prompt = 1 + int(random.expovariate(1 / (mean_in - 0.5)))
        output = 1 + int(random.expovariate(1 / (mean_out - 0.5)))
        if prompt + output <= limit_tokens:
            prompts.append(prompt)
            outputs.append(output)
    source = f"{NUM_DRAWN:,} drawn, exponential, means {mean_in:g} in and {mean_out:g} out, seed {seed}"
    return Lengths(tuple(prompts), tuple(outputs), source)


def within(lengths: Lengths, limit_tokens: int) -> Lengths:
    """Return the requests that fit the limit and decode at least one token.

    Raises InvalidValue when none does.
    """
    kept = [
        (prompt, output)
        for prompt, output in zip(lengths.prompts, lengths.outputs, strict=True)
        if prompt + output <= limit_tokens and output > 0
    ]
    if not kept:
        raise InvalidValue(
            f"no request fits {limit_tokens:,} tokens",
            why=f"{lengths.source}: every one is longer, or has no output",
            hint="raise --ctx",
        )
    dropped = len(lengths.prompts) - len(kept)
    prompts, outputs = zip(*kept, strict=True)
    return Lengths(prompts, outputs, lengths.source, lengths.num_dropped + dropped, lengths.shared_fraction)


def mean_live_tokens(lengths: Lengths) -> float:
    """Return the tokens a running request holds on average, every decode step counted once.

    A request of p prompt and o output tokens holds p + 1, p + 2 ... p + o.
    """
    steps = sum(lengths.outputs)
    return sum(map(live_sum, lengths.prompts, lengths.outputs)) / max(1, steps)


def live_variance(lengths: Lengths) -> float:
    """Return the variance of what a running request holds, every decode step counted once."""
    steps = sum(lengths.outputs)
    squares = sum(
        _squares(prompt + output) - _squares(prompt)
        for prompt, output in zip(lengths.prompts, lengths.outputs, strict=True)
    )
    return float(max(0.0, squares / max(1, steps) - mean_live_tokens(lengths) ** 2))


def live_sum(prompt: int, output: int) -> int:
    """Return the tokens held, added up over a request's decode steps."""
    return output * prompt + output * (output + 1) // 2


def _squares(count: int) -> int:
    return count * (count + 1) * (2 * count + 1) // 6


def percentile(values: Sequence[int], percent: int) -> int:
    """Return the smallest value that ``percent`` percent of them do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]
