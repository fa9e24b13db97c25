"""The fit answer as stable, greppable lines: ``name: value``, no drawing, no colour."""

from kvplan.report.answer import FitAnswer, Screen
from kvplan.report.wording import (
    COMPONENTS,
    VERDICTS,
    component_note,
    headroom,
    limits_text,
    offload_text,
    quality_lines,
    rate_text,
    rent_lines,
    speed_text,
    spilled_text,
    subject,
)
from kvplan.units import format_gib


def fit(answer: FitAnswer, screen: Screen) -> str:
    """Write one fact a line, the verdict first."""
    plan = answer.plan
    lines = [f"{VERDICTS[answer.verdict.status]}: {subject(answer)}", f"headroom: {headroom(answer)}"]
    for number, device in enumerate(plan.devices):
        prefix = "" if len(plan.devices) == 1 else f"gpu {number} "
        for component in device.components:
            amount = component.bytes
            detail = ", ".join(part for part in (amount.basis, component_note(component, plan)) if part)
            lines.append(f"{prefix}{COMPONENTS[component.name]}: {format_gib(amount.expected)} ({detail})")
        lines.append(
            f"{prefix}budget: {format_gib(device.budget_bytes)} of {format_gib(device.device.memory_bytes)}"
        )
        lines += [f"{prefix}device: {note}" for note in device.device.notes]
        if number == 0 and len(plan.devices) > 1 and all(other == device for other in plan.devices[1:]):
            lines.append(f"gpu 1 to {len(plan.devices) - 1}: the same")
            break
    for component in plan.host:
        lines.append(f"host {COMPONENTS[component.name]}: {format_gib(component.bytes.expected)}")
    if spilled_text(answer):
        lines.append(f"spilled: {spilled_text(answer)}")
    lines.append(f"limits: {limits_text(answer)}")
    lines += _speed(answer)
    if answer.offload is not None:
        lines.append(f"offload: {offload_text(answer)}")
        lines += [f"offload run: {line}" for line in answer.offload.plan.command_lines]
    lines += [f"{plan.engine_name} says: {line}" for line in plan.startup_lines]
    lines += [f"run: {line}" for line in plan.command_lines]
    lines += [f"assumption: {text}" for text in plan.assumptions]
    lines += [f"warning: {warning.message} [{warning.code}]" for warning in plan.warnings]
    lines += [
        f"to make it fit: {proposal.command} # {proposal.status}, {format_gib(proposal.headroom_bytes)} free"
        for proposal in answer.proposals
    ]
    lines += [
        f"the free memory could buy: {proposal.command} # {format_gib(proposal.headroom_bytes)} free"
        for proposal in answer.upgrades
    ]
    lines += rent_lines(answer)
    lines += [f"quality: {line}" for line in quality_lines((*answer.proposals, *answer.upgrades))]
    text = "\n".join(lines) + "\n"
    return (
        text
        if screen.unicode
        else text.replace("×", "x").replace("→", "->").encode("ascii", "replace").decode("ascii")
    )


def _speed(answer: FitAnswer) -> list[str]:
    lines = []
    rate, prompt = answer.speed.decode, answer.speed.prefill
    if rate is not None:
        lines.append(f"decode: {speed_text(answer)}; {rate.why}")
    if prompt is not None:
        bounds = f"{rate_text(prompt.low)} to {rate_text(prompt.high)}, {prompt.basis}"
        lines.append(f"prefill: {rate_text(prompt.expected)} tokens/s ({bounds})")
    return lines
