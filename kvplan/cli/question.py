"""From options to values: which model, which workload, which devices, under which engine."""

from collections.abc import Callable, Sequence

from kvplan.cli.asked import Asked, multiplied
from kvplan.device import Device
from kvplan.engines import ENGINES, engine_named
from kvplan.engines.base import Engine
from kvplan.errors import InvalidValue, OptionClash, UnknownEngine, UnknownFormat, UnknownGpu, UnknownModel
from kvplan.frozen import dataclass, replace
from kvplan.judge import Rules
from kvplan.model import ModelSpec
from kvplan.plan import as_it_is, default_engine, spread
from kvplan.units import format_gib, parse_size, parse_tokens
from kvplan.weight_formats import weight_format
from kvplan.workload import Workload

MAX_SEQUENCES = 2**20
# What is wrong with the words themselves, whatever else is asked beside them.
MISSPELT = (UnknownModel, UnknownGpu, UnknownEngine, UnknownFormat)


@dataclass(frozen=True, slots=True)
class Question:
    """What was asked, as values."""

    asked: Asked
    model: ModelSpec
    workload: Workload
    devices: tuple[Device, ...]
    engine: Engine
    rules: Rules


def question(asked: Asked, model: ModelSpec | None = None) -> Question:
    """Read what was asked; ``model`` where it is open already.

    Raises KvplanError naming the option that cannot be.
    """
    from kvplan.sources import check_assumption, open_model

    workload = workload_of(asked)
    devices, gpu_is_many = devices_of(asked)
    engine = engine_asked(asked)
    if asked.weights is not None:
        weight_format(asked.weights)
    check_assumption(asked.assume)
    if model is None:
        model = open_model(asked.model, offline=asked.offline, assume=asked.assume)
    has_gpu = bool(devices) or not asked.gpus
    chosen = calibrated(engine or default_engine(model, asked.weights, has_gpu=has_gpu))
    workload = with_engine_flags(asked, workload, chosen)
    model, workload = _drafted(asked, model, workload, chosen)
    if asked.lora is not None:
        from kvplan.deploy.adapters import ranks_of, with_adapters

        workload = with_adapters(workload, chosen.name, ranks_of(asked.lora))
    devices = spread(devices, workload.tensor_parallel, workload.pipeline_parallel, multiplied=gpu_is_many)
    _check_reserve(asked, workload, devices)
    return Question(asked, model, workload, devices, chosen, rules_of(asked))


def _check_reserve(asked: Asked, workload: Workload, devices: Sequence[Device]) -> None:
    smallest = min(devices, key=lambda device: device.memory_bytes, default=None)
    if smallest is not None and workload.reserve_bytes > smallest.memory_bytes:
        raise InvalidValue(
            f"--reserve {asked.reserve} is more than {smallest.name} has",
            why=f"others hold at most its {format_gib(smallest.memory_bytes)}",
            hint="write it like --reserve 2GiB",
        )


def engine_asked(asked: Asked) -> Engine | None:
    """Return the engine that ``--engine`` names, None where it is left out."""
    if asked.engine is None:
        return None
    name = asked.engine.strip().removesuffix("@")
    engine = engine_named(name)
    if asked.engine.strip() != name:
        raise UnknownEngine(
            f"'{asked.engine}' names no version",
            why=f"one stands behind the @, {engine.version} the newest known",
            hint=f"write --engine {name}, or --engine {name}@{engine.version}",
        )
    return engine


def _drafted(
    asked: Asked, model: ModelSpec, workload: Workload, engine: Engine
) -> tuple[ModelSpec, Workload]:
    """Return the model with its draft, named by ``--draft`` or the engine's own flags."""
    if asked.draft is None and not workload.engine_options:
        return model, workload
    from kvplan.deploy.drafting import draft_named, draft_options

    if asked.draft is not None:
        from kvplan.sources.drafts import with_draft

        options = draft_options(engine.name, asked.draft, workload.engine_options)
        model = with_draft(model, asked.draft, offline=asked.offline)
        return model, replace(workload, engine_options=options)
    named = draft_named(workload.engine_options)
    if not named:
        return model, workload
    from kvplan.sources.drafts import with_known_draft

    return with_known_draft(model, named), workload


def calibrated(engine: Engine) -> Engine:
    """Return the engine with what was measured on this machine, itself where nothing was."""
    return calibrations()(engine)


def calibrations() -> Callable[[Engine], Engine]:
    """Return what gives an engine the measurements of this machine, read once.

    Those that cannot be read are a warning of every plan: no answer depends on them.
    """
    from kvplan.verify.calibration_file import is_there

    if not is_there():
        return as_it_is
    from kvplan.calibration import CalibratedEngine
    from kvplan.verify.calibration import saved_or_why

    measurements = saved_or_why()
    return (lambda engine: CalibratedEngine(engine, measurements)) if measurements else as_it_is


def rules_of(asked: Asked) -> Rules:
    """Return what counts as success."""
    return Rules(
        strict=asked.strict,
        allow_offload=asked.allow_offload,
        allow_unknown=asked.allow_unknown,
        min_headroom_bytes=parse_size(asked.min_headroom).num_bytes if asked.min_headroom else 0,
    )


def devices_of(asked: Asked) -> tuple[tuple[Device, ...], bool]:
    """Return the devices that ``--gpu`` names, and whether it names several."""
    if not asked.gpus:
        return (), False
    from kvplan.hardware.parse import parse_gpus

    devices = parse_gpus(asked.gpus)
    many = len(asked.gpus) > 1 or asked.gpus[0] != multiplied(asked.gpus[0], 0).removeprefix("0x")
    return devices, many or len(devices) > 1


def workload_of(asked: Asked) -> Workload:
    """Return what is asked of any model. Raises KvplanError for a value that cannot be read."""
    if asked.kv and (asked.kv_k or asked.kv_v):
        raise OptionClash(
            "--kv and --kv-k/--kv-v are both given",
            why="--kv sets keys and values alike",
            hint="use either --kv, or --kv-k and --kv-v",
        )
    return Workload(
        context_tokens=parse_tokens(asked.ctx) if asked.ctx is not None else 0,
        context_source="flag" if asked.ctx is not None else "model",
        num_sequences=number_of_sequences(asked.batch) if asked.batch is not None else 1,
        weights_format=asked.weights,
        kv_cache_dtype_k=(asked.kv or asked.kv_k or "auto").casefold(),
        kv_cache_dtype_v=(asked.kv or asked.kv_v or "auto").casefold(),
        tensor_parallel=asked.tp or 0,
        pipeline_parallel=asked.pp or 0,
        reserve_bytes=parse_size(asked.reserve).num_bytes if asked.reserve else 0,
        overhead_bytes=parse_size(asked.overhead).num_bytes if asked.overhead else None,
        cpu_memory_bytes=parse_size(asked.cpu_memory).num_bytes if asked.cpu_memory else None,
        encoder_tokens=parse_tokens(asked.encoder_ctx, "encoder") if asked.encoder_ctx else 0,
    )


def check_kv_formats(names: Sequence[str]) -> None:
    """Raise UnknownFormat for one of several cache formats that no engine takes, by any of its names.

    One that some engine takes is that engine's to refuse or not, as is a single one.
    """
    from kvplan.kv_formats import kv_format, kv_format_names

    general = ("auto", *kv_format_names())
    for name in names if len(names) > 1 else ():
        folded = name.casefold()
        if folded not in general and not any(folded in engine_named(one).kv_formats for one in ENGINES):
            kv_format(name)


def number_of_sequences(text: str) -> int:
    """Read ``--batch``. Raises InvalidValue for anything but 1 to 2**20."""
    try:
        count = int(text.replace(",", ""))
    except ValueError:
        count = 0
    if not 1 <= count <= MAX_SEQUENCES:
        raise InvalidValue(
            f"'{text}' is not a number of sequences",
            why=f"--batch takes a whole number from 1 to {MAX_SEQUENCES:,}",
            hint="write it like --batch 8",
        )
    return count


def with_engine_flags(asked: Asked, workload: Workload, engine: Engine) -> Workload:
    """Return the workload with the engine's own flags read into it.

    Raises OptionClash where a flag says again what an option of kvplan says.
    """
    if not asked.engine_words:
        return workload
    from kvplan.deploy.flags import read_flags
    from kvplan.deploy.lifting import LIFTED, lift

    words = asked.engine_words
    if any(word.startswith(("--config", "--extra")) for word in words):
        from kvplan.cli.settings_file import names_a_file, with_file

        words = with_file(engine.name, words) if names_a_file(engine.name, words) else words
    flags = read_flags(engine.name, words)
    given = {
        "--ctx": asked.ctx is not None,
        "--batch": asked.batch is not None,
        "--tp": asked.tp is not None,
        "--pp": asked.pp is not None,
        "--kv": bool(asked.kv or asked.kv_k or asked.kv_v),
        "--kv-k": bool(asked.kv or asked.kv_k),
        "--kv-v": bool(asked.kv or asked.kv_v),
    }
    for name, value in flags.options:
        if name not in LIFTED:
            continue
        flag = LIFTED[name][0]
        if given[flag]:
            raise OptionClash(
                f"{flag} and the engine's own {name} are both given",
                why="they say the same thing twice",
                hint=f"leave out {flag}, or {name} behind --",
            )
        workload = lift(workload, name, value)
    options = flags.options
    from kvplan.sources.side_files import SIZED, sizes_of

    if any(name in SIZED for name, _ in options):
        options += sizes_of(options)
    return replace(workload, engine_options=options, unread_flags=flags.unknown)
