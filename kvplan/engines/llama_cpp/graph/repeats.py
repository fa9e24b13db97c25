"""Layers that repeat: which of them have to be built."""

from collections.abc import Callable, Sequence

from kvplan.frozen import dataclass

# Patterns of up to this many layers are looked for.
MAX_PERIOD = 8


@dataclass(frozen=True, slots=True)
class Run:
    """Layers from ``start`` on: ``period`` layers, ``repeats`` times, of which some are built."""

    start: int
    period: int
    repeats: int
    num_built: int

    @property
    def layers_built(self) -> tuple[int, ...]:
        """The layers to build: the first ones and the last time."""
        end = self.start + self.period * self.repeats
        first = range(self.start, self.start + self.period * (self.num_built - 1))
        return (*first, *range(end - self.period, end))


def runs_of(keys: Sequence[object], most: Callable[[int], int], turn: int = 1) -> tuple[Run, ...]:
    """Return the runs that layers with these keys form.

    Of a pattern so many periods are built as ``most`` says for its length, where it has more. A multiple
    of ``turn`` is left out: buffers that change places come out as they would.
    """
    runs: list[Run] = []
    index = 0
    while index < len(keys):
        period, repeats = max(
            ((period, _repeats(keys, index, period)) for period in range(1, MAX_PERIOD + 1)),
            key=lambda found: found[0] * (found[1] - most(found[0])),
        )
        built = most(period)
        built += (repeats - built) % turn
        run = Run(index, period, repeats, built) if repeats > built else Run(index, 1, 1, 1)
        runs.append(run)
        index += run.period * run.repeats
    return tuple(runs)


def _repeats(keys: Sequence[object], start: int, period: int) -> int:
    pattern = keys[start : start + period]
    end = start + period
    while keys[end : end + period] == pattern:
        end += period
    return (end - start) // period
