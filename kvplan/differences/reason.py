"""One cause of a difference between two plans, and the words that the sentences share."""

from kvplan.engines.base import ComponentName, Plan
from kvplan.frozen import dataclass
from kvplan.units import GIB, MIB

# Below this a difference is rounding, not a reason.
SMALLEST_BYTES = MIB
Names = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Reason:
    """One cause: the bytes it accounts for, to sort by, and the sentence."""

    num_bytes: int
    sentence: str


def size(num_bytes: int) -> str:
    """Return bytes as the sentences show them: GiB, MiB below a tenth of one, or none."""
    if num_bytes == 0:
        return "none"
    if abs(num_bytes) < GIB // 10:
        return f"{num_bytes / MIB:.1f} MiB"
    return f"{num_bytes / GIB:.2f} GiB"


def pair(what: str, names: Names, first: str, second: str) -> str:
    """Return the sentence that sets both engines' figures against each other."""
    return f"{what}: {first} under {names[0]}, {second} under {names[1]}"


def largest(plan: Plan, name: ComponentName) -> int:
    """Return what the fullest device holds of a component."""
    amounts = [
        sum(part.bytes.expected for part in device.components if part.name == name) for device in plan.devices
    ]
    return max(amounts, default=0)


def by_layout(what: str, a: Plan, b: Plan, names: Names, amounts: tuple[int, int]) -> Reason:
    """Return the reason that how the model is spread makes: both figures with their ranks."""
    first, second = (
        f"{size(amount)} ({_layout(plan)})" for amount, plan in zip(amounts, (a, b), strict=True)
    )
    return Reason(abs(amounts[0] - amounts[1]), pair(what, names, first, second))


def _layout(plan: Plan) -> str:
    parallel = plan.parallel
    parts = [f"tp {parallel.tensor}", f"pp {parallel.pipeline}", f"dp {parallel.data}"]
    shown = [part for part in parts if not part.endswith(" 1")]
    return ", ".join(shown) or "one rank"
