"""How near llama.cpp's compute buffers are planned: ``python tests/calibration/score_llama_cpp_compute.py``.

Prints errors by architecture and by placement, and with ``--readme`` writes the first table into
README.md between its markers.
"""

import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from llama_cpp_runs import compared, tables  # noqa: E402 - the path is set above

START = "<!-- llama.cpp compute buffers: python tests/calibration/score_llama_cpp_compute.py --readme -->"
END = "<!-- end -->"


def placement(row):
    """Name the kind of placement of a run."""
    if not row["num_cards"]:
        return "CPU alone"
    if row["num_cards"] > 1 and row["split_mode"] != "none":
        return "two cards"
    if row["n_gpu_layers"] < 999:
        return "layers in RAM"
    if row["cpu_moe"]:
        return "experts in RAM"
    return "one card" if row["kv_offload"] else "cache in RAM"


def table_of(groups):
    """Return a Markdown table of errors by group."""
    lines = [
        "| | buffers | equal in bytes | within 5 % | lowest | highest | inside the interval |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, buffers in groups.items():
        errors = [buffer.error for buffer in buffers]
        equal = sum(buffer.planned.expected == buffer.printed for buffer in buffers)
        near = sum(abs(error) <= 0.05 for error in errors)
        inside = sum(buffer.planned.low <= buffer.printed <= buffer.planned.high for buffer in buffers)
        lines.append(
            f"| {name} | {len(buffers)} | {equal} | {near} | {100 * min(errors):+.1f} % "
            f"| {100 * max(errors):+.1f} % | {inside} |"
        )
    return "\n".join(lines)


def main():
    """Score every run of the shipped table."""
    buffers = [buffer for table in tables() for buffer in compared(table)]
    by_arch, by_placement = defaultdict(list), defaultdict(list)
    for buffer in buffers:
        by_arch[f"`{buffer.arch}`"].append(buffer)
        by_placement[placement(buffer.row)].append(buffer)
    shown = table_of({**dict(sorted(by_arch.items())), "all": buffers})
    print(shown)
    print()
    print(table_of(by_placement))
    if "--readme" in sys.argv[1:]:
        readme = ROOT / "README.md"
        text = readme.read_text(encoding="utf-8")
        before, rest = text.split(START, 1)
        readme.write_text(f"{before}{START}\n{shown}\n{END}{rest.split(END, 1)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
