"""The overhead of vLLM out of sample: every log planned with constants that never saw its like.

``fit_vllm_budget.py`` prints ``report()`` and README.md shows ``table()``. For each model, then each
card, then each release in turn, the constants are fitted to the logs of all others. A range that was
entered from logs keeps what the remaining ones of its class show, and where none remains it is what all
other classes span; an unseen class keeps its own range, which was entered from none. The upper end of
Blackwell's range, which one log informs, is Hopper's, so that leaving H100 out is not wholly blind.
"""

from statistics import median

from fit_vllm_budget import generated, release_of
from vllm_logs import available, failed, logs, planned

from kvplan.engines import _vllm_calibration as fit
from kvplan.engines.vllm import ranks as ranks_module
from kvplan.engines.vllm import server
from kvplan.engines.vllm.budget import cuda_graphs, surroundings_of
from kvplan.hardware.parse import parse_gpus
from kvplan.units import GIB

PRINTED_ROUNDING_BYTES = GIB // 100
# What is left out in turn, and how the table calls it.
LEFT_OUT = (("spec", "model"), ("card", "card"), ("release", "version"))
ONE_RANK = ("NON_TORCH_ONE_RANK", "NON_TORCH_ONE_RANK_BEFORE_0_18")
# Half the rounding and spread that a range had around the logs that it was entered from.
MARGIN_GIB = 0.06


def range_of(row):
    """Return the range beside torch that a log informs, as (name, key); None where its card is unknown."""
    if not row.get("card") or release_of(row) == (0, 0):
        return None
    tensor, pipeline = row.get("tp") or 1, row.get("pp") or 1
    is_new = release_of(row) >= (0, 18)
    if tensor * pipeline == 1:
        return (ONE_RANK[not is_new], None)
    if not is_new:
        return ("NON_TORCH_BEFORE_0_18", None)
    device = parse_gpus([row["card"]])[0]
    return ("NON_TORCH", surroundings_of(device, tensor, pipeline, by_kernels=False).link)


def comparable():
    """Return the logs with a known card, share of it and memory left for the cache."""
    wanted = ("card", "available_kv_gib", "gpu_memory_utilization")
    return [row for row in logs() if all(row.get(name) for name in wanted) and not failed(row)]


def constants_without(left_out):
    """Return the calibration's values as the logs outside ``left_out`` give them."""
    values = {}
    exec(compile(generated(without=left_out), "calibration", "exec"), values)
    informed = {}
    for row in logs():
        place = range_of(row)
        if place and row.get("non_torch_gib") is not None:
            informed.setdefault(place, []).append(row)
    shrunk = {}
    for place, rows in informed.items():
        remaining = [row for row in rows if row["id"] not in left_out]
        if len(remaining) < len(rows):
            shrunk[place] = seen(values, place, remaining) if remaining else None
    for place, found in shrunk.items():
        enter(values, place, found or spanned(values, place, informed, shrunk))
    return {name: value for name, value in values.items() if name.isupper()}


def entered(values, place):
    """Return a range as it was entered."""
    name, key = place
    return values[name] if key is None else values[name][key]


def enter(values, place, found):
    """Put a range into the constants."""
    name, key = place
    if key is None:
        values[name] = found
    else:
        values[name][key] = found


def seen(values, place, rows):
    """Return a range shrunk to what the remaining logs of its class print."""
    low, _, high = entered(values, place)
    printed = [row["non_torch_gib"] for row in rows]
    return max(low, min(printed) - MARGIN_GIB), median(printed), min(high, max(printed) + MARGIN_GIB)


def spanned(values, place, informed, shrunk):
    """Return what the other classes that logs inform span: those of one rank for one, else of several."""
    is_one = place[0] in ONE_RANK
    others = [
        shrunk.get(other) or entered(values, other)
        for other in informed
        if other != place and (other[0] in ONE_RANK) == is_one and shrunk.get(other, True)
    ]
    others = others or [entered(values, other) for other in informed if other != place]
    lows, usuals, highs = zip(*others, strict=True)
    return min(lows), median(usuals), max(highs)


def planned_with(values, row):
    """Return the plan of a log's server under other constants."""
    before = {name: getattr(fit, name) for name in values if hasattr(fit, name)}
    try:
        for name in before:
            setattr(fit, name, values[name])
        _forget()
        return planned(row)
    finally:
        for name, value in before.items():
            setattr(fit, name, value)
        _forget()


def _forget():
    cuda_graphs.cache_clear()
    ranks_module._share.cache_clear()
    ranks_module.ranks_of.cache_clear()
    server._cached.cache_clear()


def held_out(by="spec"):
    """Yield (log, error as a share of the card, whether inside the interval, its width as a share).

    ``by`` names what is left out in turn: ``spec``, ``card`` or ``release``.
    """
    rows = comparable()
    for name in sorted({str(row.get(by)) for row in rows}):
        mine = [row for row in rows if str(row.get(by)) == name]
        values = constants_without({row["id"] for row in logs() if str(row.get(by)) == name})
        for row in mine:
            result = planned_with(values, row)
            low, expected, high = available(result)
            total = result.devices[0].device.usable_bytes
            logged = row["available_kv_gib"] * GIB
            inside = low - PRINTED_ROUNDING_BYTES <= logged <= high + PRINTED_ROUNDING_BYTES
            yield row, (expected - logged) / total, inside, (high - low) / total


def groups(found):
    """Return the held-out logs by kind: the version and card with most logs, and all others."""
    many = [each for each in found if (each[0].get("release"), each[0]["card"]) == ("0.19", "h100-sxm")]
    rest = [each for each in found if each not in many]
    return (("0.19 on H100", many), ("every other version or card", rest), ("all", found))


def report(show):
    """Show every held-out log and the table."""
    for by, name in LEFT_OUT:
        show(f"without its {name}:")
        for row, error, inside, width in sorted(held_out(by), key=lambda each: abs(each[1])):
            where = "" if inside else " OUTSIDE"
            log = f"{row['id']} {row.get('release')} {row['card']} {row['spec']}"
            show(f"  {100 * error:+.2f} % of the card, interval {100 * width:.1f} %: {log}{where}")
    show(table())


def table():
    """Return the summaries as a Markdown table."""
    lines = [
        "| left out of the fit | logs | median error | largest | inside the interval "
        "| median width of the interval |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for by, left in LEFT_OUT:
        for name, part in groups(list(held_out(by))):
            errors = [abs(error) for _, error, _, _ in part]
            inside = sum(is_inside for _, _, is_inside, _ in part)
            width = median(width for _, _, _, width in part)
            cells = (
                f"the log's {left}: {name}", len(part), f"{100 * median(errors):.2f} % of the card",
                f"{100 * max(errors):.2f} %", f"{inside} of {len(part)}", f"{100 * width:.1f} %",
            )  # fmt: skip
            lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines)
