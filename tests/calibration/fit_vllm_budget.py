"""Fit vLLM's overhead to start-up logs: ``python tests/calibration/fit_vllm_budget.py``.

Reads tests/oracles/vllm_logs.jsonl and writes kvplan/engines/_vllm_calibration.py, whose header says
from which rows, with which residuals; prints the residuals with every model left out in turn.
Activations follow from what the profile run allocates: nothing of them is fitted, what is printed is
how far logs lie from them. A graph pool has two fitted parameters, a base and its part a layer.
Everything else is a range that logs showed.
"""

import sys
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from vllm_logs import logs, model_named  # noqa: E402

from kvplan.engines.vllm.activations import activations, has_towers, terms_of  # noqa: E402
from kvplan.engines.vllm.kernels import kernels_of  # noqa: E402
from kvplan.engines.vllm.sampler import held_by_sampler  # noqa: E402
from kvplan.engines.vllm.settings import V0_DEFAULTS  # noqa: E402
from kvplan.hardware.parse import parse_gpus  # noqa: E402
from kvplan.model import num_layers  # noqa: E402
from kvplan.units import GIB  # noqa: E402
from kvplan.weights import format_name_of  # noqa: E402

TARGET = HERE.parent.parent / "kvplan" / "engines" / "_vllm_calibration.py"
SWEEP = {"0.16", "0.17", "0.18"}
ACCURACY_SETTINGS = {"max_num_seqs": 1024, "max_num_batched_tokens": 8192}


def settings(row):
    """Return (max_num_seqs, max_num_batched_tokens); the version sweep ran with the accuracy runs'."""
    if row.get("release") in SWEEP and "max_num_seqs" not in row:
        row = row | ACCURACY_SETTINGS
    return row.get("max_num_seqs"), row.get("max_num_batched_tokens")


def terms(row):
    """Return the sizes that a row's activation peak is made of."""
    model = model_named(row["spec"])
    seqs, tokens = settings(row)
    dtype = row.get("dtype", "bfloat16")
    return terms_of(model, format_of(row), seqs, tokens, row.get("tp", 1), dtype, 1)


def format_of(row):
    """Return the format of a row's weights."""
    asked = "fp32" if row.get("dtype") == "float32" else row.get("weights")
    return format_name_of(model_named(row["spec"]), asked)


def _release(row):
    """Return a log's version as (major, minor); (0, 0) where it names none."""
    return tuple(int(part) for part in row.get("release", "0.0").split("."))


def line(points):
    """Return the least-squares line through (x, y): slope and intercept."""
    count = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / count, sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    return slope, mean_y - slope * mean_x


def left_out(rows, point_of):
    """Return each row's residual under the line fitted without its model."""
    found = []
    for name in sorted({row["spec"] for row in rows}):
        slope, base = line([point_of(row) for row in rows if row["spec"] != name])
        for row in rows:
            if row["spec"] == name:
                x, y = point_of(row)
                found.append((y - slope * x - base, row["id"], name))
    return found


def sorting_settings(row):
    """Return the settings of the V0 engine where a log does not say them; the sweep has its own."""
    if _release(row) >= (0, 9):
        return {}
    tokens = max(V0_DEFAULTS[0], row.get("max_model_len") or 0)
    return {"max_num_seqs": V0_DEFAULTS[1], "max_num_batched_tokens": tokens}


def activation_rows(without=frozenset()):
    """Rows whose activation peak is logged, with settings known, of models of text alone.

    Under the V0 engine only the first rank samples, and logs do not say which rank they are of.
    """
    found = []
    for row in logs():
        if row["id"] in without or "activation_peak_gib" not in row or _release(row) == (0, 0):
            continue
        is_v0 = _release(row) < (0, 9)
        if is_v0 and (row.get("tp", 1) > 1 or not row.get("max_model_len")):
            continue
        asked = sorting_settings(row) | row
        if None not in settings(asked) and not has_towers(model_named(row["spec"])):
            found.append(asked)
    return found


def activation_residual(row):
    """Return how far a logged peak lies above what its profile run allocates, in GiB."""
    model, format_name = model_named(row["spec"]), format_of(row)
    kernels = kernels_of(parse_gpus([row["card"]])[0]) if row.get("card") else ""
    held = held_by_sampler(model, format_name, _release(row), kernels, settings(row)[0])
    peak = activations(terms(row), model, row.get("max_model_len") or 0, held, kernels, samples=True)
    return row["activation_peak_gib"] - peak.expected / GIB


def graph_rows(*, moe, without=frozenset()):
    """Rows of H100 since 0.17 with captured graphs logged."""
    found = []
    for row in logs():
        if row.get("card") != "h100-sxm" or row.get("cudagraph_gib") is None or row.get("release") != "0.19":
            continue
        if row["id"] in without:
            continue
        model = model_named(row["spec"])
        has_experts = any(t.role == "expert" for group in model.layers for t in group.layer.tensors)
        if has_experts == moe:
            found.append(row)
    return found


def graph_point(row):
    """Return (layers, GiB of graphs)."""
    return num_layers(model_named(row["spec"]).structure), row["cudagraph_gib"]


def generated(show=lambda text: None, without=frozenset()):
    """Return the text of the calibration module, fitted to all logs but those ``without``.

    ``show`` is given the residuals as they are found.
    """
    rows = activation_rows(without)
    residuals = {row["id"]: activation_residual(row) for row in rows}
    releases = (min(map(_release, rows)), max(map(_release, rows)))
    graphs = graph_rows(moe=False, without=without)
    per_layer, graph_base = line([graph_point(row) for row in graphs])
    graph_residuals = left_out(graphs, graph_point)
    moe_graphs = graph_rows(moe=True, without=without)
    experts = [y - graph_base - per_layer * x for x, y in map(graph_point, moe_graphs)]
    expert_part = median(experts)

    def ratios(found, extra):
        return [y / (graph_base + per_layer * x + extra) for x, y in map(graph_point, found)]

    dense, moe = ratios(graphs, 0), ratios(moe_graphs, expert_part)
    for row in sorted(rows, key=lambda row: residuals[row["id"]]):
        show(f"  activations {residuals[row['id']]:+.3f} GiB {row['id']} {row['release']} {row['spec']}")
    show(f"graphs: {graph_base:.3f} GiB + {per_layer * 1024:.1f} MiB a layer, {len(graphs)} dense logs")
    for value, number, name in sorted(graph_residuals):
        show(f"  {value:+.3f} GiB {number} {name} (its model left out)")
    show(f"experts: {expert_part:+.3f} GiB, from {min(experts):+.2f} to {max(experts):+.2f}")
    return TEMPLATE.format(
        logs=len(rows),
        versions=" to ".join(f"{major}.{minor}" for major, minor in releases),
        usual=median(map(abs, residuals.values())) * 1024,
        worst=max(map(abs, residuals.values())) * 1024,
        graph_logs=len(graphs),
        graph_worst=max(abs(value) for value, _, _ in graph_residuals) * 1024,
        graph_base=graph_base,
        per_layer=per_layer,
        experts=expert_part,
        dense_low=min(dense) - 0.05,
        dense_high=max(dense) + 0.05,
        moe_low=min(moe) - 0.05,
        moe_high=max(moe) + 0.05,
    )


def main():
    """Fit, print residuals, write the module; then plan every log without its model."""
    TARGET.write_text(generated(print), encoding="utf-8")
    from cross_validate_vllm import report

    report(print)


TEMPLATE = '''"""Constants of vLLM's overhead, fitted to start-up logs of real servers.

Generated by tests/calibration/fit_vllm_budget.py from tests/oracles/vllm_logs.jsonl; do not edit.
Activations: nothing is fitted; {logs} logs of {versions} lie within {usual:.0f} MiB at the median and
{worst:.0f} MiB at most. Graphs: {graph_logs} logs of dense models on H100 under 0.19; largest
residual left out {graph_worst:.0f} MiB. Ranges hold what logs of the class showed.
"""

from kvplan.units import GIB, MIB

LOW_BYTES, LOW_PER_MILLE = 96 * MIB, 40
HIGH_BYTES, HIGH_PER_MILLE = 160 * MIB, 60
# Qwen2.5-VL's profile run, 65,536 patches: 6.9 GiB in all on one card.
DYNAMIC_TOWER_HIGH_BYTES = 6 * GIB
# DeepSeek-V4 on two GH200: 12 GiB beside the weights.
COMPRESSED_HIGH_BYTES = 10 * GIB
ACTIVATION_WHY = "what the profile run allocates, held to {logs} start-up logs of vLLM {versions}"

GRAPHS_BASE_GIB = {graph_base:.4f}
GRAPHS_PER_LAYER_GIB = {per_layer:.5f}
GRAPHS_EXPERTS_GIB = {experts:.3f}
GRAPHS_ARCHITECTURE = "hopper"
# Shares of the fitted amount that logs lie between, on H100 and elsewhere or before 0.17.
GRAPHS_DENSE_RANGE = ({dense_low:.2f}, {dense_high:.2f})
GRAPHS_MOE_RANGE = ({moe_low:.2f}, {moe_high:.2f})
GRAPHS_DENSE_ELSEWHERE_RANGE = (0.30, 1.75)
GRAPHS_MOE_ELSEWHERE_RANGE = (0.50, 2.60)
GRAPHS_FLOOR_GIB = 0.15
GRAPHS_WHY = "fitted to graph captures logged by vLLM 0.19 on H100"

# GiB beside torch after the profile run: least, usual, most.
NON_TORCH_ONE_RANK = (0.20, 0.25, 0.46)
NON_TORCH_ONE_RANK_BEFORE_0_18 = (0.01, 0.13, 0.30)
NON_TORCH: dict[str, tuple[float, float, float]] = {{
    "hopper": (1.90, 2.09, 2.30),
    "blackwell": (0.80, 0.95, 2.30),
    "ampere": (0.20, 0.60, 1.40),
    "pcie": (0.18, 0.28, 0.95),
}}
NON_TORCH_BEFORE_0_18 = (0.18, 0.40, 1.40)
NON_TORCH_WHY = "logged by vLLM 0.10 to 0.26: 0.25 GiB on one rank, 2.1 with NVLink on H100, 0.3 on PCIe"
DATACENTER_BYTES, AMPERE_DATACENTER_BYTES = 100 * GIB, 36 * GIB
PAGE_CACHE_PERCENT = 33
OTHERS_PERCENT = 2
UNIFIED_WHY = "unified memory: the page cache of loading and the rest of the machine count as used"

# GiB taken before vLLM looks at free memory.
SNAPSHOT_ONE_RANK = (0.30, 0.51, 0.80)
SNAPSHOT: dict[str, tuple[float, float, float]] = {{
    "hopper": (1.40, 1.60, 2.10),
    "blackwell": (1.40, 2.00, 2.60),
    "ampere": (0.60, 1.20, 2.10),
    "pcie": (0.40, 0.80, 1.60),
}}
SNAPSHOT_WHY = "memory in use at vLLM's first snapshot: 0.51 GiB on one H100, 1.5 to 2.1 with NCCL"
'''


if __name__ == "__main__":
    main()
