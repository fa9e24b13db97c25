"""How to check: GPUs, what names stand for, budgets. From flags, kvplan.yaml, or both."""

from collections.abc import Mapping
from dataclasses import field

from kvplan.calibration import Measurements
from kvplan.errors import InvalidValue
from kvplan.frozen import dataclass
from kvplan.judge import DEFAULT_RULES, Rules


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """What a model's name in a file stands for: a reference kvplan opens, and its weights' format."""

    ref: str
    weights: str | None = None


@dataclass(frozen=True, slots=True)
class Budget:
    """What a deployment must keep to, None where nothing is asked."""

    min_headroom_bytes: int | None = None
    max_kv_bytes: int | None = None
    min_concurrency: float | None = None
    min_context_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """What a launch is checked with.

    ``gpus`` are the machine's, as ``--gpu`` takes them, in place of what the file says;
    ``default_gpus`` hold where the file names none. ``gpu_names``
    and ``models`` say what names in files stand for; ``engine`` replaces the engine's version;
    ``measurements`` are what servers of this machine showed.
    """

    gpus: tuple[str, ...] = ()
    default_gpus: tuple[str, ...] = ()
    gpu_names: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, ModelChoice] = field(default_factory=dict)
    engine: str | None = None
    offline: bool = False
    rules: Rules = DEFAULT_RULES
    budget: Budget = Budget()
    reserve_bytes: int = 0
    cpu_memory_bytes: int | None = None
    num_sequences: int | None = None
    measurements: Measurements = Measurements()


def parse_model_choice(text: str) -> tuple[str, ModelChoice]:
    """Read ``NAME=ID`` or ``NAME=ID,weights=FORMAT``. Raises InvalidValue."""
    name, equals, rest = text.partition("=")
    ref, _, more = rest.partition(",")
    weights: str | None = None
    if more:
        key, _, value = more.partition("=")
        if key.strip() != "weights" or not value.strip():
            raise InvalidValue(
                f"--model {text} cannot be read",
                why=f"'{more}' is not weights=FORMAT",
                hint="write it like --model /model=qwen3-32b,weights=fp8",
            )
        weights = value.strip()
    if not equals or not name.strip() or not ref.strip():
        raise InvalidValue(
            f"--model {text} cannot be read",
            why="it says what a model's name in a file stands for: NAME=ID",
            hint="write it like --model /model=qwen3-32b",
        )
    return name.strip(), ModelChoice(ref.strip(), weights)
