"""What a model is and what it caches, for people: the same lines as table and as plain text."""

from collections.abc import Iterator

from kvplan.layers import RECURRENT_STATES
from kvplan.model import ModelSpec, cache_kinds, num_parameters
from kvplan.report.answer import Screen, ShowAnswer
from kvplan.report.layout import formula_lines, layout_text, multi_head_ratio
from kvplan.report.wording import engine_text
from kvplan.units import format_gib, format_tokens

HALF = ("bf16", "fp16", "bfloat16", "float16", "f16")


def plain(answer: ShowAnswer, screen: Screen) -> str:
    """Write one fact a line."""
    text = "\n".join(f"{name}: {value}" for name, value in _facts(answer)) + "\n"
    return text if screen.unicode else text.replace("×", "x").encode("ascii", "replace").decode("ascii")


def table(answer: ShowAnswer, screen: Screen) -> str:
    """Write the facts in two columns, wrapped to the screen."""
    from textwrap import wrap

    facts = list(_facts(answer))
    margin = max(len(name) for name, _ in facts) + 2
    width = max(20, screen.width - margin)
    lines: list[str] = []
    for name, value in facts:
        for number, part in enumerate(wrap(value, width) or [""]):
            label = name if number == 0 else ""
            colored = f"\x1b[1m{label.ljust(margin)}\x1b[0m" if screen.color else label.ljust(margin)
            lines.append((colored + part).rstrip())
    text = "\n".join(lines) + "\n"
    return text if screen.unicode else text.replace("×", "x").encode("ascii", "replace").decode("ascii")


def _facts(answer: ShowAnswer) -> Iterator[tuple[str, str]]:
    model, plan = answer.model, answer.plan
    yield "model", f"{model.name} ({model.repo})" if model.repo and model.repo != model.name else model.name
    if answer.aliases:
        yield "also", ", ".join(answer.aliases)
    yield "architecture", f"{model.architecture or '?'} ({model.model_type})"
    yield "layers", layout_text(model)
    yield from _parameters(answer)
    yield "context limit", _limit(model)
    yield "weights", f"{format_gib(plan.weights.expected)} as {plan.weights_format} ({plan.weights.basis})"
    yield from _cache(answer)
    for number, line in enumerate(_remarks(answer), start=1):
        yield f"note {number}", line
    for name, value in model.provenance:
        yield f"from {name}", value
    yield "source", model.source + (f" @ {model.revision}" if model.revision else "")


def _limit(model: ModelSpec) -> str:
    if model.context_limit_tokens:
        return f"{format_tokens(model.context_limit_tokens)} tokens"
    if all(isinstance(cache, RECURRENT_STATES) for cache, _ in cache_kinds(model)):
        return "none: the state has a fixed size"
    return "none stated"


def _parameters(answer: ShowAnswer) -> Iterator[tuple[str, str]]:
    total = answer.num_parameters
    yield "parameters", f"{total:,}"
    if answer.num_active_parameters != total:
        yield "active", f"{answer.num_active_parameters:,} a token"
    yield "by role", ", ".join(f"{role.replace('_', ' ')} {count:,}" for role, count in answer.roles)
    published = answer.model.published_total
    if published is not None and published != num_parameters(answer.model.structure):
        reason = answer.model.published_relation or "the publisher does not say why"
        yield "published", f"{published:,}: {reason}"


def _cache(answer: ShowAnswer) -> Iterator[tuple[str, str]]:
    plan = answer.plan
    cache = plan.cache
    yield "engine", engine_text(plan)
    for line in formula_lines(answer.model):
        yield "caches", line
    keys = (
        plan.kv_dtype_k if plan.kv_dtype_k == plan.kv_dtype_v else f"{plan.kv_dtype_k} K, {plan.kv_dtype_v} V"
    )
    yield "KV a token", f"{cache.bytes_per_token:,} B ({keys}) at {format_tokens(plan.context_tokens)} tokens"
    yield "KV a sequence", f"{cache.bytes_per_sequence:,} B = {format_gib(cache.bytes_per_sequence)}"
    if cache.state_bytes_per_sequence:
        yield "state", f"{cache.state_bytes_per_sequence:,} B a sequence, whatever its length"
    if plan.num_sequences > 1:
        yield "KV in all", f"{format_gib(cache.total.expected)} for {plan.num_sequences:,} sequences"
    ratio = multi_head_ratio(answer.model)
    if ratio is not None and ratio[1]:
        query, kv = ratio
        yield (
            "grouped",
            (
                f"{kv} of {query} heads are stored: {query / kv:g}× less than 2 × layers × hidden size, "
                "the formula that circulates"
            ),
        )


def _remarks(answer: ShowAnswer) -> Iterator[str]:
    plan, model = answer.plan, answer.model
    if model.model_type == "llama" and plan.cache.bytes_per_token == 2**19 and plan.kv_dtype_k in HALF:
        yield "1 MB a token, as quoted for 7B models, is the same cache in fp32"
    yield from model.notes
    yield from model.structure.notes
    yield from plan.assumptions
    yield from (warning.message for warning in plan.warnings)
