"""``kvplan verify MODEL --against transformers``: the plan against transformers' own caches."""

from dataclasses import replace

from kvplan.cli.asked import Asked
from kvplan.cli.outcome import Outcome, Output
from kvplan.cli.question import question
from kvplan.cli.verify_allocation import progress_bar, subject
from kvplan.engines.base import Notice, Plan
from kvplan.errors import OptionClash
from kvplan.model import num_layers
from kvplan.plan import plan
from kvplan.quantity import exact
from kvplan.report.verify_answer import VerifyAnswer
from kvplan.units import parse_size
from kvplan.verify import device_memory
from kvplan.verify.allocation import prepare
from kvplan.verify.comparison import EXIT_CODES, Comparison, of_quantity, outcome
from kvplan.verify.reduced_config import layers_needed, reduced
from kvplan.verify.transformers_cache import Held, fill, forward, random_model, transformers_module

# A forward pass needs no more than this to show what a layer caches.
FORWARD_TOKENS = 128


def answer(asked: Asked, device: str, max_memory: str | None, output: Output, *, run_model: bool) -> Outcome:
    """Fill transformers' caches (or run a reduced model) and compare. Raises CannotTell where it cannot."""
    if asked.engine is not None and asked.engine.partition("@")[0] not in ("transformers", "hf"):
        raise OptionClash(
            f"--against transformers and --engine {asked.engine} are both given",
            why="transformers' caches are planned by --engine transformers",
            hint="leave out --engine",
        )
    torch = device_memory.torch_module()
    version = transformers_module().__version__
    asking = question(replace(asked, engine=asked.engine or "transformers"))
    result = plan(asking.model, asking.workload, asking.devices, asking.engine)
    used = device_memory.device_of(torch, device)
    notices: tuple[Notice, ...] = ()
    try:
        if run_model:
            kept = layers_needed(result.model)
            result, held = _forward(result, asking.engine.name, kept, used)
            notices = (
                Notice(
                    "reduced-model",
                    f"a random model with {kept} of {num_layers(asking.model.structure)} layers ran "
                    f"{result.context_tokens} tokens",
                ),
            )
        else:
            prepare(result, device, parse_size(max_memory).num_bytes if max_memory else None)
            total = result.cache.total.expected
            with progress_bar(total, f"filling on {used}", quiet=output.quiet) as advance:
                held = fill(result, used, advance)
    finally:
        device_memory.release(torch, used)
    rows = _rows(result, held)
    reached = outcome(rows)
    return Outcome(
        EXIT_CODES[reached],
        VerifyAnswer(
            mode="transformers",
            subject=subject(result, f"against transformers {version} on {used}"),
            outcome=reached,
            exit_code=EXIT_CODES[reached],
            rows=rows,
            plan=result,
            facts={"device": used, **{f"class {name}": count for name, count in held.classes.items()}},
            warnings=(*result.warnings, *notices),
        ),
        output,
    )


def _forward(result: Plan, engine_name: str, kept: int, device: str) -> tuple[Plan, Held]:
    from kvplan.engines import engine_named
    from kvplan.sources.config_model import model_from_config

    model = result.model
    config = reduced(model.config or {}, num_layers(model.structure), kept)
    # Random weights are fp32 unless the config says otherwise; the cache follows them.
    config["dtype"] = config["torch_dtype"] = "float32"
    small = model_from_config(config, name=model.name, source=model.source)
    tokens = min(result.context_tokens, FORWARD_TOKENS)
    workload = replace(result.workload, context_tokens=tokens, weights_format=None)
    planned = plan(small, workload, (), engine_named(engine_name))
    built = random_model(config, small.model_type, device)
    held = forward(built, tokens, result.num_sequences, device)
    return planned, held


def _rows(result: Plan, held: Held) -> tuple[Comparison, ...]:
    rows: list[Comparison] = []
    batch = result.num_sequences
    for group in result.cache.groups if held.by_kind else ():
        amounts = [other.bytes_per_sequence for other in result.cache.groups if other.kind == group.kind]
        planned = exact(sum(amounts) * batch)
        if any(row.name == group.kind for row in rows):
            continue
        exact_kind = planned if result.engine_options[0][1] != "quantized" else None
        rows.append(of_quantity(group.kind, exact_kind, held.by_kind.get(group.kind)))
    rows.append(of_quantity("whole_cache", result.cache.total, held.held_bytes))
    if result.cache.total.basis == "exact":
        # A window right after the prompt is a view: its storage keeps the whole prompt.
        rows.append(of_quantity("storage_at_peak", exact(result.cache.peak_bytes), held.storage_bytes))
    return tuple(rows)
