"""The words reports share: verdicts, components, amounts."""

from collections.abc import Sequence

from kvplan.engines.base import Component, Plan
from kvplan.quantity import Quantity
from kvplan.report.answer import FitAnswer, Proposal, Rent, Speed
from kvplan.units import format_gib, format_tokens

VERDICTS: dict[str, str] = {
    "fits": "FITS",
    "tight": "TIGHT",
    "offload": "FITS BUT SLOW",
    "does_not_fit": "DOES NOT FIT",
    "refused": "REFUSED",
    "unknown": "CANNOT TELL",
}
COMPONENTS: dict[str, str] = {
    "weights": "weights",
    "kv_cache": "KV cache",
    "recurrent_state": "state",
    "activations": "activations",
    "cuda_graphs": "CUDA graphs",
    "runtime": "runtime",
    "communication": "communication",
    "draft_model": "draft model",
    "adapters": "adapters",
    "multimodal": "multimodal",
    "other_processes": "other processes",
}
NOUNS: dict[str, str] = {"kv": "KV cache", "weights": "weights"}
ENGINES: dict[str, str] = {
    "vllm": "vLLM",
    "sglang": "SGLang",
    "llama.cpp": "llama.cpp",
    "ollama": "Ollama",
    "transformers": "transformers",
    "tensorrt-llm": "TensorRT-LLM",
    "lmdeploy": "LMDeploy",
    "tgi": "TGI",
    "ideal": "textbook",
}


def engine_text(plan: Plan) -> str:
    """Return the engine and its version as people write it."""
    name = ENGINES.get(plan.engine_name, plan.engine_name)
    return name if plan.engine_name == "ideal" else f"{name} {plan.engine_version}"


def subject(answer: FitAnswer) -> str:
    """Return what is asked in one line: model, devices, context, engine."""
    plan = answer.plan
    sequences = "" if plan.num_sequences == 1 else f" × {plan.num_sequences:,}"
    return (
        f"{plan.model.name} {plan.weights_format} on {answer.gpu_text}, "
        f"{format_tokens(plan.context_tokens)} tokens{sequences}, {engine_text(plan)}"
    )


def headroom(answer: FitAnswer) -> str:
    """Return the room left, or missing, with what was needed."""
    plan = answer.plan
    if plan.refusals:
        return plan.refusals[0].message
    if not plan.devices:
        on_host = sum(part.bytes.expected for part in plan.host)
        if not plan.host:
            return answer.verdict.why
        if plan.workload.cpu_memory_bytes is None:
            return f"needs {format_gib(on_host)} of system memory: give --cpu-memory to compare"
        return f"needs {format_gib(on_host)} of {format_gib(plan.workload.cpu_memory_bytes)} of system memory"
    index = max(0, answer.verdict.device_index)
    device = plan.devices[index]
    each = f" on each of {len(plan.devices)} GPUs" if len(plan.devices) > 1 else ""
    if len({item.device.name for item in plan.devices}) > 1:
        each = f" on {device.device.name}"
    need = f"needs {format_gib(device.required.expected)} of {format_gib(device.budget_bytes)}{each}"
    room = device.headroom_bytes
    if room < 0:
        return f"{need}: short {format_gib(-room)}"
    if answer.verdict.status == "does_not_fit":
        return f"{need}, but fails the test '{answer.verdict.check}'"
    if answer.verdict.status == "tight":
        return f"{need}: {format_gib(room)} free, within the uncertainty"
    return f"{need}: {format_gib(room)} free"


def speed_text(answer: FitAnswer) -> str:
    """Return how fast it decodes, and without spilling; empty where a bandwidth is not known."""
    return _decode_text(answer.speed)


def offload_text(answer: FitAnswer) -> str:
    """Return what running with a part in system memory would take; empty where it is no way out."""
    if answer.offload is None:
        return ""
    plan = answer.offload.plan
    text = f"with {format_gib(_on_host(plan))} in system memory"
    known = plan.workload.cpu_memory_bytes
    if known is not None:
        return f"{text} it would run, but --cpu-memory has {format_gib(known)}"
    speed = _decode_text(answer.offload.speed)
    return f"{text} it runs{': ' + speed if speed else ''}; say --cpu-memory to count on it"


def _on_host(plan: Plan) -> int:
    return sum(part.bytes.expected for part in plan.host)


def _decode_text(speed: Speed) -> str:
    rate, without = speed.decode, speed.decode_on_devices
    if rate is None:
        return ""
    bounds = f"{rate_text(rate.low)} to {rate_text(rate.high)}, {rate.basis}"
    text = f"{rate_text(rate.expected)} tokens/s ({bounds})"
    if without is not None:
        text = f"{rate_text(without.expected)} tokens/s on the card → {text}"
    return text


def rate_text(tokens_per_second: float) -> str:
    """Return a rate with two figures that mean something: 0.42, 4.2, 42, 4,200."""
    if tokens_per_second >= 10:
        return f"{tokens_per_second:,.0f}"
    return f"{tokens_per_second:.1f}" if tokens_per_second >= 1 else f"{tokens_per_second:.2f}"


def spilled_text(answer: FitAnswer) -> str:
    """Return what a spilled plan leaves in system memory, and whether that suffices."""
    plan = answer.plan
    if not plan.offloaded:
        return ""
    text = f"{format_gib(_on_host(plan))} in system memory"
    if plan.workload.cpu_memory_bytes is None:
        return f"{text}: give --cpu-memory to compare"
    return f"{text} of {format_gib(plan.workload.cpu_memory_bytes)}"


def unequal_cards(plan: Plan) -> str:
    """Return what each card holds of its budget where they differ; empty where they do not."""
    if len({item.device.name for item in plan.devices}) < 2:
        return ""
    return "; ".join(
        f"{item.device.name} {item.required.expected / 2**30:,.2f} of {format_gib(item.budget_bytes)}"
        for item in plan.devices
    )


def interval(amount: Quantity) -> str:
    """Return the bounds of an amount, empty when it is exact."""
    if amount.low == amount.high:
        return ""
    return f"{amount.low / 2**30:,.2f} to {amount.high / 2**30:,.2f}"


def component_note(component: Component, plan: Plan) -> str:
    """Return what a component's figure is made of."""
    if component.name == "weights":
        count = f"{num_parameters_text(plan)}, {plan.weights_format}"
        if plan.weights.expected > component.bytes.expected * 1001 // 1000:
            count += f", {format_gib(plan.weights.expected)} in all"
        return f"{count}, {interval(component.bytes)}" if interval(component.bytes) else count
    if component.name == "kv_cache" and plan.cache.bytes_per_token:
        keys = (
            plan.kv_dtype_k if plan.kv_dtype_k == plan.kv_dtype_v else f"{plan.kv_dtype_k}/{plan.kv_dtype_v}"
        )
        share = interval(component.bytes)
        return f"{plan.cache.bytes_per_token:,} B a token, {keys}" + (f", {share}" if share else "")
    return interval(component.bytes) or component.note


def num_parameters_text(plan: Plan) -> str:
    """Return the model's parameter count in billions."""
    from kvplan.model import num_parameters

    return f"{num_parameters(plan.model.structure) / 1e9:,.2f} B parameters"


PERPLEXITY = " perplexity"


def rent_lines(answer: FitAnswer) -> list[str]:
    """Return what the asked devices and the cheapest machine cost; that nobody says where it is so."""
    if answer.rents is None:
        return []
    asked, least = answer.rents.asked, answer.rents.cheapest
    lines = [f"price: {_rent(asked)}" if asked else f"price: none known for {answer.gpu_text}"]
    lines.append(f"cheapest: {_rent(least)}" if least else "cheapest: no priced instance holds it")
    return lines


def _rent(rent: Rent) -> str:
    text = f"{rent.name}, ${rent.usd_per_hour:,.2f} an hour"
    if rent.usd_per_million_tokens is not None:
        text += f", about ${rent.usd_per_million_tokens:,.2f} a million tokens"
    return f"{text} ({rent.source})"


def quality_lines(proposals: Sequence[Proposal]) -> list[str]:
    """Return what each proposed format costs, with its source; that none was found where it is so."""
    prices = dict.fromkeys(price for proposal in proposals for price in proposal.prices)
    return [
        f"{price.value} {NOUNS[price.key]}: {price.text} ({price.source})"
        if price.text
        else f"{price.value} {NOUNS[price.key]}: no published figure is known"
        for price in prices
    ]


def quality_text(proposals: Sequence[Proposal]) -> str:
    """Return the same in one line, without sources; empty where nothing is known."""
    prices = dict.fromkeys(price for proposal in proposals for price in proposal.prices)
    known = [price for price in prices if price.text]
    if known and all(price.text.endswith(PERPLEXITY) for price in known):
        figures = (f"{price.value} {price.text.removesuffix(PERPLEXITY)}" for price in known)
        return f"costs in perplexity: {', '.join(figures)}"
    figures = (f"{price.value} {NOUNS[price.key]} {price.text}" for price in known)
    return f"costs: {'; '.join(figures)}" if known else ""


def limits_text(answer: FitAnswer) -> str:
    """Return how far the plan stretches, in one line."""
    limits, plan = answer.limits, answer.plan
    if limits.binding == "memory":
        return "how far it stretches depends on the memory: give --cpu-memory or --gpu"
    if limits.max_context_tokens == 0 and limits.max_sequences == 0:
        if plan.on_devices is not None:
            return "without spilling no context fits: the weights and overhead alone are too much"
        return "no context fits: " + (
            "refused" if plan.refusals else "the weights and overhead alone are too much"
        )
    sequences = "1 sequence" if plan.num_sequences == 1 else f"{plan.num_sequences:,} sequences"
    spilled = " without spilling" if plan.on_devices is not None else ""
    return (
        f"longest context {format_tokens(limits.max_context_tokens)} for {sequences}{spilled}; "
        f"most sequences {limits.max_sequences:,} at {format_tokens(plan.context_tokens)}"
    )


def engine_says(plan: Plan) -> str:
    """Return the last line the engine will print of its memory, or the error it stops with."""
    if not plan.startup_lines:
        return ""
    return f"{ENGINES.get(plan.engine_name, plan.engine_name)} says: {plan.startup_lines[-1]}"
