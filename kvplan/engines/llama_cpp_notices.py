"""What a plan under llama.cpp has to say beside its numbers."""

from collections.abc import Sequence

from kvplan.engines.base import DevicePlan, Notice
from kvplan.engines.llama_cpp_fit import DEFAULT_TARGET_BYTES
from kvplan.engines.llama_cpp_placement import Placed
from kvplan.engines.llama_cpp_settings import Settings
from kvplan.gguf_mix import imatrix_difference
from kvplan.model import ModelSpec
from kvplan.units import format_gib
from kvplan.workload import Workload

# Split modes that give each card a part of every layer.
BY_PARTS = ("row", "tensor")


def notices_of(
    model: ModelSpec,
    asked: str,
    format_name: str,
    workload: Workload,
    settings: Settings,
    placed: Placed,
    plans: Sequence[DevicePlan],
) -> tuple[Notice, ...]:
    """Return what was converted, guessed or is near an edge."""
    made = []
    if format_name != asked and workload.weights_format is None:
        text = f"the checkpoint's {asked} weights are planned as {format_name}: llama.cpp needs a GGUF"
        made.append(Notice("weights-converted", text))
    if difference := imatrix_difference(model, format_name):
        word = "larger" if difference > 0 else "smaller"
        text = f"an importance matrix makes a {format_name} file {format_gib(abs(difference))} {word}"
        made.append(Notice("importance-matrix", text))
    if placed.unmodelled:
        text = (
            "some of this model's caches are not modelled under llama.cpp yet: "
            "between the textbook figure and full attention"
        )
        made.append(Notice("layer-not-modelled", text))
    if settings.split_mode in BY_PARTS and len(plans) > 1:
        text = f"--split-mode {settings.split_mode} is planned by each device's share, as layers are"
        made.append(Notice("split-mode-assumed", text))
    room = min((plan.headroom_bytes for plan in plans), default=DEFAULT_TARGET_BYTES)
    if 0 <= room < DEFAULT_TARGET_BYTES and not placed.spilled:
        text = (
            f"{format_gib(room)} free: without the -ngl below --fit, which keeps 1 GiB, moves layers to RAM"
        )
        made.append(Notice("within-fit-margin", text))
    if room < 0 and not placed.spilled and plans[0].device.vendor == "nvidia":
        text = "on Windows the driver spills this to system memory without a word, about ten times slower"
        made.append(Notice("windows-spills", text))
    return tuple(made)
