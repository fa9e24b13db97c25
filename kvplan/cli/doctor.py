"""``kvplan doctor``: versions, GPUs, where facts come from, what is missing."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from kvplan.cli import options as opt
from kvplan.cli.app import submit
from kvplan.cli.outcome import Outcome, Output

if TYPE_CHECKING:
    from kvplan.report.doctor_answer import Finding

REQUIRED = ("typer", "rich", "pydantic", "huggingface_hub", "pyyaml")
# Package -> (extra that brings it, what needs it).
OPTIONAL: dict[str, tuple[str, str]] = {
    "nvidia-ml-py": ("gpu", "--gpu local asks the driver through it; nvidia-smi serves as well"),
    "torch": ("verify", "kvplan verify allocates real caches with it"),
}
# Variables of other programs that decide something here.
OTHERS = ("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_ENDPOINT", "NO_COLOR", "FORCE_COLOR", "TERM")
# Whether they are set matters, what they are is nobody's business.
SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HTTPS_PROXY", "HTTP_PROXY")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor")(doctor)


def doctor(
    format_: opt.FormatOption = "auto",
    json_: opt.JsonOption = False,
    output: opt.OutputOption = None,
) -> None:
    """Show versions, this machine's GPUs, where specs, policy and calibration are, and what is missing."""

    def job(_: tuple[str, ...]) -> Outcome:
        from kvplan.report.doctor_answer import DoctorAnswer

        findings = (*_versions(), *_gpus(), *_sources(), *_terminal(), *_environment())
        return Outcome(0, DoctorAnswer(findings), Output("json" if json_ else format_, output))

    submit(job)


def _versions() -> "Iterator[Finding]":
    import platform
    from importlib.metadata import PackageNotFoundError, version
    from pathlib import Path

    import kvplan
    from kvplan import __version__
    from kvplan.report.doctor_answer import Finding

    yield Finding("version", "kvplan", __version__)
    yield Finding("version", "installed in", str(Path(kvplan.__file__).parent))
    yield Finding(
        "version", "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    )
    for package in (*REQUIRED, *OPTIONAL):
        try:
            yield Finding("version", package, version(package))
        except PackageNotFoundError:
            extra, why = OPTIONAL.get(package, ("", "kvplan does not work without it"))
            hint = f"{why}: pip install 'kvplan[{extra}]'" if extra else "reinstall kvplan"
            yield Finding("version", package, "not installed", ok=False, hint=hint)


def _gpus() -> "Iterator[Finding]":
    from kvplan.errors import KvplanError
    from kvplan.hardware.detect import local_devices
    from kvplan.report.doctor_answer import Finding
    from kvplan.units import format_gib

    try:
        devices = local_devices()
    except KvplanError as error:
        yield Finding("gpu", "this machine", error.message, ok=False, hint=error.hint)
        return
    for number, device in enumerate(devices):
        free = format_gib(device.memory_bytes - device.used_bytes)
        yield Finding(
            "gpu", f"GPU {number}", f"{device.name}, {format_gib(device.memory_bytes)}, {free} free"
        )


def _sources() -> "Iterator[Finding]":
    from pathlib import Path

    from kvplan.deploy.policy import load_policy
    from kvplan.deploy.policy_place import find_policy
    from kvplan.engines import ENGINES, engine_named
    from kvplan.errors import KvplanError
    from kvplan.report.doctor_answer import Finding
    from kvplan.sources import catalog

    try:
        folder = catalog.specs_folder()
        count = sum(1 for _ in catalog.entries())
        yield Finding("source", "model specs", f"{count} in {folder}")
    except KvplanError as error:
        yield Finding("source", "model specs", error.message, ok=False, hint=error.hint)
    try:
        own = catalog.user_specs()
        yield Finding("source", "own specs", f"{len(own)} (KVPLAN_SPECS)" if own else "none (KVPLAN_SPECS)")
    except KvplanError as error:
        yield Finding("source", "own specs", error.message, ok=False, hint=error.hint)
    found = find_policy(Path())
    if found is None:
        yield Finding("source", "policy", "none: no kvplan.yaml from here upwards")
    else:
        try:
            load_policy(found)
            yield Finding("source", "policy", str(found))
        except KvplanError as error:
            yield Finding("source", "policy", error.message, ok=False, hint=error.hint)
    yield from _measurements()
    for name in ENGINES:
        engine = engine_named(name)
        versions = ", ".join(engine.versions)
        newest = f"; {engine.version} where none is named" if len(engine.versions) > 1 else ""
        yield Finding("calibration", name, f"rules of {versions}{newest}")


def _measurements() -> "Iterator[Finding]":
    from kvplan.errors import KvplanError
    from kvplan.report.doctor_answer import Finding
    from kvplan.units import format_gib
    from kvplan.verify.calibration import saved
    from kvplan.verify.calibration_file import path

    try:
        kept = saved()
    except KvplanError as error:
        yield Finding("calibration", "this machine", error.message, ok=False, hint=error.hint)
        return
    for one in kept.overheads:
        scope = f"{one.engine} {one.version} on {one.device}" + (f", {one.model}" if one.model else "")
        text = f"{scope}: overhead {format_gib(one.overhead_bytes)}, planned {format_gib(one.planned_bytes)}"
        yield Finding("calibration", "this machine", f"{text}, {one.when}")
    for cache in kept.caches:
        driver = f" ({cache.driver})" if cache.driver else ""
        scope = f"{cache.engine} {cache.version} on {cache.device}{driver}, {cache.model}"
        text = f"{scope}: cache {format_gib(cache.measured_bytes)}, planned {format_gib(cache.planned_bytes)}"
        yield Finding("calibration", "this machine", f"{text}, {cache.when}")
    if not kept:
        yield Finding("calibration", "this machine", f"nothing measured: {path()}")


def _environment() -> "Iterator[Finding]":
    import os

    from kvplan.cli.settings import PREFIX, variables
    from kvplan.errors import did_you_mean
    from kvplan.report.doctor_answer import Finding

    known = variables()
    for name in (*known, *OTHERS):
        if name in os.environ:
            yield Finding("environment", name, os.environ[name])
    for name in SECRETS:
        if name in os.environ:
            yield Finding("environment", name, "set")
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in known:
            hint = did_you_mean(name, known) or "see kvplan's README for those there are"
            yield Finding("environment", name, "kvplan reads no such variable", ok=False, hint=hint)


def _terminal() -> "Iterator[Finding]":
    import sys

    from kvplan.cli.outcome import screen
    from kvplan.report.doctor_answer import Finding

    found = screen()
    parts = [
        f"{found.width} columns" if found.is_terminal else "not a terminal",
        str(getattr(sys.stdout, "encoding", None) or "no encoding"),
        "colour" if found.color else "no colour",
        "symbols" if found.unicode else "ASCII",
    ]
    yield Finding("environment", "stdout", ", ".join(parts))
