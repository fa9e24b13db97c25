"""The overhead of vLLM out of sample: every log planned with constants that never saw its model.

``fit_vllm_budget.py`` prints ``report()`` and README.md shows ``table()``. For each model in turn the
constants are fitted to the other models' logs; a range entered by hand from logs of that model alone
is replaced by what all other classes span.
"""

from statistics import median

from fit_vllm_budget import generated
from vllm_logs import available, failed, logs, planned

from kvplan.engines import _vllm_calibration as fit
from kvplan.engines.vllm import server
from kvplan.engines.vllm.budget import cuda_graphs
from kvplan.units import GIB

PRINTED_ROUNDING_BYTES = GIB // 100
# Range -> its key (None: no key) and the logs that it was entered from.
ENTERED_FROM = (
    ("NON_TORCH_ONE_RANK_BEFORE_0_18", None, {"log-048", "log-049", "log-059", "log-076", "log-077"}),
    ("NON_TORCH_BEFORE_0_18", None, {"log-058", "log-066"}),
    ("NON_TORCH", "blackwell", {"log-097"}),
    ("NON_TORCH", "ampere", {"log-053", "log-054"}),
    ("NON_TORCH", "pcie", {"log-066", "log-096"}),
    ("SNAPSHOT", "blackwell", {"log-097"}),
    ("SNAPSHOT", "pcie", {"log-066"}),
)


def comparable():
    """Return the logs with a known card, share of it and memory left for the cache."""
    wanted = ("card", "available_kv_gib", "gpu_memory_utilization")
    return [row for row in logs() if all(row.get(name) for name in wanted) and not failed(row)]


def constants_without(left_out):
    """Return the calibration's values as the logs outside ``left_out`` give them."""
    values = {}
    exec(compile(generated(without=left_out), "calibration", "exec"), values)
    for name, key, sources in ENTERED_FROM:
        if sources <= left_out:
            ranges = [values["NON_TORCH_ONE_RANK"], *values["NON_TORCH"].values()]
            if name.startswith("SNAPSHOT"):
                ranges = list(values["SNAPSHOT"].values())
            others = [each for each in ranges if key is None or each != values[name][key]]
            span = (
                min(low for low, _, _ in others),
                median(usual for _, usual, _ in others),
                max(high for _, _, high in others),
            )
            if key is None:
                values[name] = span
            else:
                values[name][key] = span
    return {name: value for name, value in values.items() if name.isupper()}


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
    server._cached.cache_clear()


def held_out():
    """Yield (log, error as a share of the card, whether inside the interval, its width as a share)."""
    rows = comparable()
    for name in sorted({row["spec"] for row in rows}):
        mine = [row for row in rows if row["spec"] == name]
        values = constants_without({row["id"] for row in logs() if row["spec"] == name})
        for row in mine:
            result = planned_with(values, row)
            low, expected, high = available(result)
            total = result.devices[0].device.usable_bytes
            logged = row["available_kv_gib"] * GIB
            inside = low - PRINTED_ROUNDING_BYTES <= logged <= high + PRINTED_ROUNDING_BYTES
            yield row, (expected - logged) / total, inside, (high - low) / total


def summary(found):
    """Return one line about held-out logs: how many, median error, coverage, median width."""
    errors = [abs(error) for _, error, _, _ in found]
    inside = sum(is_inside for _, _, is_inside, _ in found)
    widths = [width for _, _, _, width in found]
    return (
        f"{len(found)} logs, {100 * median(errors):.2f} % of the card at the median, "
        f"{100 * max(errors):.2f} % at most, {inside} inside an interval {100 * median(widths):.1f} % wide"
    )


def groups(found):
    """Return the held-out logs by kind: the version and card with most logs, and all others."""
    many = [each for each in found if (each[0].get("release"), each[0]["card"]) == ("0.19", "h100-sxm")]
    rest = [each for each in found if each not in many]
    return (("0.19 on H100", many), ("every other version or card", rest), ("all", found))


def report(show):
    """Show every held-out log and the summaries."""
    found = list(held_out())
    for row, error, inside, width in sorted(found, key=lambda each: abs(each[1])):
        where = "" if inside else " OUTSIDE"
        name = f"{row['id']} {row.get('release')} {row['card']} {row['spec']}"
        show(f"  {100 * error:+.2f} % of the card, interval {100 * width:.1f} %: {name}{where}")
    for name, part in groups(found):
        show(f"its model left out, {name}: {summary(part)}")


def table():
    """Return the summaries as a Markdown table."""
    lines = [
        "| each log's model left out of the fit | logs | median error | largest | inside the interval "
        "| median width of the interval |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, part in groups(list(held_out())):
        errors = [abs(error) for _, error, _, _ in part]
        inside = sum(is_inside for _, _, is_inside, _ in part)
        width = median(width for _, _, _, width in part)
        cells = (
            name, len(part), f"{100 * median(errors):.2f} % of the card", f"{100 * max(errors):.2f} %",
            f"{inside} of {len(part)}", f"{100 * width:.1f} %",
        )  # fmt: skip
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines)
