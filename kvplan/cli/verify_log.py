"""``kvplan verify --log``: what an engine printed against what the plan says."""

import sys
from dataclasses import replace
from pathlib import Path

from kvplan.calibration import CalibratedEngine
from kvplan.cli.asked import Asked
from kvplan.cli.outcome import Outcome, Output
from kvplan.cli.question import question
from kvplan.cli.verify_allocation import subject
from kvplan.engines.base import Plan
from kvplan.errors import CannotTell, InputError, KvplanError, reason_of
from kvplan.plan import plan, spread
from kvplan.report.verify_answer import VerifyAnswer
from kvplan.units import MIB
from kvplan.verify.comparison import EXIT_CODES, outcome
from kvplan.verify.log_comparison import Replan, compare, explain
from kvplan.verify.log_question import devices_of, weights_of, workload_of
from kvplan.verify.logs import read_log
from kvplan.verify.readings import Readings

# Start-up lines come first; a server's access log may go on for gigabytes.
MAX_LOG_BYTES = 64 * MIB
# Engines whose rules follow the release, and how many of its numbers name one.
RELEASE_NUMBERS = {"vllm": 2, "tensorrt-llm": 2, "tgi": 2, "lmdeploy": 3}


def answer(asked: Asked, path: str, output: Output, *, keep: bool = False) -> Outcome:
    """Read the log, plan what its server was asked, compare.

    Raises CannotTell for a log that no known engine wrote or that lacks what a plan needs.
    """
    engine_name = asked.engine.partition("@")[0] if asked.engine else ""
    readings = read_log(_read(path), engine_name)
    result, replan = planned_against(asked, readings, needs_gpu=True)
    rows = compare(result, readings, replan)
    reached = outcome(rows)
    facts: dict[str, object] = {
        "engine": readings.engine,
        "version": readings.version or None,
        "model": readings.model or None,
        "out_of_memory": readings.out_of_memory,
    }
    if keep:
        from kvplan.cli.verify_save import keep_log

        facts["saved_in"] = str(keep_log(asked, result, readings))
    facts |= {name: int(value) if value == int(value) else value for name, value in readings.counts.items()}
    return Outcome(
        EXIT_CODES[reached],
        VerifyAnswer(
            mode="log",
            subject=subject(result, f"against {'standard input' if path == '-' else path}"),
            outcome=reached,
            exit_code=EXIT_CODES[reached],
            rows=rows,
            plan=result,
            explanation=explain(rows, readings),
            facts=facts,
            warnings=result.warnings,
        ),
        output,
    )


def planned_against(asked: Asked, readings: Readings, *, needs_gpu: bool) -> tuple[Plan, Replan]:
    """Return the plan of what the readings' server was asked, and how to plan it with options changed.

    ``needs_gpu`` refuses to go on without a device whose size is known.
    """
    model = asked.model or readings.model
    if not model:
        raise InputError(
            f"this {readings.engine} server does not name its model",
            why="the plan needs the model's layers",
            hint="name it: kvplan verify MODEL --log FILE (or --url)",
        )
    engine = asked.engine or _engine_text(readings)
    weights = asked.weights or (weights_of(readings) if readings.engine in ("llama.cpp", "ollama") else None)
    named = asked.model == ""
    try:
        asking = question(replace(asked, model=model, engine=engine, weights=weights))
    except KvplanError as error:
        if not named:
            raise
        raise CannotTell(
            f"the server's model '{model}' cannot be planned: {error.message}",
            why=error.why,
            hint="name the model: kvplan verify MODEL --log FILE (or --url)",
        ) from None
    # The log is held against the rules that ship, not against what earlier logs of this machine said.
    policy = asking.engine.uncalibrated if isinstance(asking.engine, CalibratedEngine) else asking.engine
    workload = workload_of(readings, asking.workload)
    if readings.engine in ("llama.cpp", "ollama") and not workload.context_tokens:
        raise CannotTell(
            f"this {readings.engine} log does not say its context",
            why="neither n_ctx nor the cache's cells are in it, and everything follows from them",
            hint="say it: --ctx 8k, or give the whole start-up log",
        )
    ranks = max(1, workload.tensor_parallel) * max(1, workload.pipeline_parallel)
    devices = devices_of(readings, asking.devices, ranks) if needs_gpu else asking.devices
    if devices and readings.engine not in ("llama.cpp", "ollama"):
        devices = spread(
            devices, workload.tensor_parallel, workload.pipeline_parallel, multiplied=len(devices) > 1
        )

    def replan(changes: dict[str, object]) -> Plan:
        options = dict(workload.engine_options) | changes
        changed = replace(workload, engine_options=tuple(options.items()))
        return plan(asking.model, changed, devices, policy)

    return plan(asking.model, workload, devices, policy), replan


def _engine_text(readings: Readings) -> str:
    """Return the engine as ``--engine`` takes it, with the version where the log prints a release."""
    name = "llama.cpp" if readings.engine == "ollama" else readings.engine
    release = readings.version.split(".")
    numbers = RELEASE_NUMBERS.get(name, 0)
    if numbers and len(release) >= numbers and all(part.isdigit() for part in release[:numbers]):
        return f"{name}@{'.'.join(release[:numbers])}"
    return name


def _read(path: str) -> str:
    if path == "-":
        return sys.stdin.buffer.read(MAX_LOG_BYTES).decode("utf-8", "replace")
    try:
        with Path(path).open("rb") as file:
            return file.read(MAX_LOG_BYTES).decode("utf-8", "replace")
    except OSError as error:
        raise InputError(
            f"cannot read {path}",
            why=reason_of(error),
            hint="name the server's log, or write - for standard input",
        ) from None
