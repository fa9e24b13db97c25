"""Compare plans with start-up logs of real vLLM servers: ``python tests/calibration/score_vllm_logs.py``.

Prints a Markdown table by version and card, failures included, and one of the logs planned with their
model left out of the fit; ``--rows`` one line a log before it,
``--readme`` writes the table into README.md between its markers.
"""

import sys
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cross_validate_vllm
from vllm_logs import available, failed, judged, logs, planned, tokens_of, weights_of

from kvplan.units import GIB

README = Path(__file__).resolve().parent.parent.parent / "README.md"
START = "<!-- vLLM start-up logs: python tests/calibration/score_vllm_logs.py --readme -->"
END = "<!-- end -->"
HEAD = (
    "| vLLM | card | logs | tokens equal | weights within 1 % | available KV: median error "
    "| inside the interval | failures judged |\n|---|---|--:|--:|--:|--:|--:|--:|"
)


def facts(row):
    """Return what of one log can be compared, as a dict; empty where the model or card is unknown."""
    found = {}
    has_tokens = row.get("available_kv_gib") and (row.get("kv_tokens") or row.get("gpu_blocks"))
    if has_tokens and row.get("max_model_len"):
        _, low, high, theirs = tokens_of(row)
        found["tokens"] = low <= theirs <= high
    if not row.get("card"):
        return found
    result = planned(row)
    if row.get("weights_gib") and not row.get("weights_unknown"):
        amount = weights_of(result)
        found["weights"] = amount.expected / GIB / row["weights_gib"] - 1
        found["weights_inside"] = amount.low / GIB - 0.006 <= row["weights_gib"] <= amount.high / GIB + 0.006
    if row.get("available_kv_gib") and row.get("gpu_memory_utilization") and not failed(row):
        low, expected, high = available(result)
        total = result.devices[0].device.usable_bytes
        logged = row["available_kv_gib"] * GIB
        found["available"] = (expected - logged) / total
        found["inside"] = low - GIB / 100 <= logged <= high + GIB / 100
    if failed(row):
        found["judged"] = judged(row, result)
    return found


def share(values):
    """Return "n of m"."""
    values = list(values)
    return f"{sum(map(bool, values))} of {len(values)}" if values else ""


def line(name, card, found):
    """Return one row of the table."""
    errors = [abs(each["available"]) for each in found if "available" in each]
    cells = (
        name,
        card,
        len(found),
        share(each["tokens"] for each in found if "tokens" in each),
        share(abs(each["weights"]) <= 0.01 for each in found if "weights" in each),
        f"{100 * median(errors):.2f} % of the card" if errors else "",
        share(each["inside"] for each in found if "inside" in each),
        share(each["judged"] != "fits" for each in found if "judged" in each),
    )
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def table(rows):
    """Return the Markdown table of all logs that can be compared."""
    groups = {}
    for row, found in rows:
        if found:
            key = (row.get("release", "not said"), row.get("card", "not said"))
            groups.setdefault(key, []).append(found)
    lines = [HEAD]
    lines += [line(*key, found) for key, found in sorted(groups.items(), key=_by_version)]
    lines.append(line("all", "", [found for _, found in rows if found]))
    return "\n".join(lines)


def _by_version(item):
    (release, card), _ = item
    numbers = [int(part) for part in release.split(".") if part.isdigit()]
    return (not numbers, numbers, card)


def main():
    """Print the table."""
    rows = [(row, facts(row)) for row in logs()]
    if "--rows" in sys.argv:
        for row, found in rows:
            text = " ".join(
                f"{key}={value:+.4f}" if isinstance(value, float) else f"{key}={value}"
                for key, value in found.items()
            )
            print(row["id"], row.get("release"), row["spec"], row.get("card"), text)
    shown = table(rows)
    held_out = cross_validate_vllm.table()
    print(shown, held_out, sep="\n\n")
    if "--readme" in sys.argv:
        before, rest = README.read_text(encoding="utf-8").split(START, 1)
        after = rest.split(END, 1)[1]
        README.write_text(f"{before}{START}\n{shown}\n\n{held_out}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
