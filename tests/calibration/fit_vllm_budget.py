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
FEWEST_GRAPHS = 5
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
    return terms_of(model, format_of(row), seqs, tokens, row.get("tp", 1), dtype, 1, kernels_in(row))


def kernels_in(row):
    """Return the class of a row's card."""
    return kernels_of(parse_gpus([row["card"]])[0]) if row.get("card") else ""


def format_of(row):
    """Return the format of a row's weights."""
    asked = "fp32" if row.get("dtype") == "float32" else row.get("weights")
    return format_name_of(model_named(row["spec"]), asked)


def release_of(row):
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
    if release_of(row) >= (0, 9):
        return {}
    tokens = max(V0_DEFAULTS[0], row.get("max_model_len") or 0)
    return {"max_num_seqs": V0_DEFAULTS[1], "max_num_batched_tokens": tokens}


def activation_rows(without=frozenset()):
    """Rows whose activation peak is logged, with settings known, of models of text alone.

    Under the V0 engine only the first rank samples, and logs do not say which rank they are of.
    """
    found = []
    for row in logs():
        if row["id"] in without or "activation_peak_gib" not in row or release_of(row) == (0, 0):
            continue
        is_v0 = release_of(row) < (0, 9)
        if is_v0 and (row.get("tp", 1) > 1 or not row.get("max_model_len")):
            continue
        asked = sorting_settings(row) | row
        if None not in settings(asked) and not has_towers(model_named(row["spec"])):
            found.append(asked)
    return found


def activation_residual(row):
    """Return how far a logged peak lies above what its profile run allocates, in GiB."""
    model, format_name = model_named(row["spec"]), format_of(row)
    kernels = kernels_in(row)
    held = held_by_sampler(model, format_name, release_of(row), kernels, settings(row)[0])
    peak = activations(terms(row), model, row.get("max_model_len") or 0, held, kernels, samples=True)
    return row["activation_peak_gib"] - peak.expected / GIB


def graph_rows(*, moe, field="cudagraph_gib", without=frozenset()):
    """Rows of H100 since 0.18 that log ``field``: what graphs took, or what they were estimated at."""
    found = []
    for row in logs():
        if row.get("card") != "h100-sxm" or row.get(field) is None or release_of(row) < (0, 18):
            continue
        if row["id"] in without:
            continue
        model = model_named(row["spec"])
        has_experts = any(t.role == "expert" for group in model.layers for t in group.layer.tensors)
        if has_experts == moe:
            found.append(row)
    # Where nothing is left to fit, all are: the logs left out then had their graphs outside the pool.
    return found if len(found) >= FEWEST_GRAPHS or not without else graph_rows(moe=moe, field=field)


def graph_point(row, field="cudagraph_gib"):
    """Return (layers, GiB of graphs)."""
    return num_layers(model_named(row["spec"]).structure), row[field]


def graph_fit(field, without=frozenset()):
    """Return a pool's base, its part a layer, what experts add, and the ranges of both kinds of model."""
    dense = [graph_point(row, field) for row in graph_rows(moe=False, field=field, without=without)]
    moe = [graph_point(row, field) for row in graph_rows(moe=True, field=field, without=without)]
    per_layer, base = line(dense)
    experts = median(y - base - per_layer * x for x, y in moe)
    ranges = []
    for points, extra in ((dense, 0), (moe, experts)):
        ratios = [y / (base + per_layer * x + extra) for x, y in points]
        ranges.append((min(ratios) - 0.05, max(ratios) + 0.05))
    return base, per_layer, experts, *ranges


def generated(show=lambda text: None, without=frozenset()):
    """Return the text of the calibration module, fitted to all logs but those ``without``.

    ``show`` is given the residuals as they are found.
    """
    rows = activation_rows(without) or activation_rows()
    residuals = {row["id"]: activation_residual(row) for row in rows}
    releases = (min(map(release_of, rows)), max(map(release_of, rows)))
    graphs = graph_rows(moe=False, without=without)
    graph_residuals = left_out(graphs, graph_point)
    fits = {field: graph_fit(field, without) for field in ("cudagraph_gib", "cudagraph_estimated_gib")}
    for row in sorted(rows, key=lambda row: residuals[row["id"]]):
        show(f"  activations {residuals[row['id']]:+.3f} GiB {row['id']} {row['release']} {row['spec']}")
    for field, (base, per_layer, experts, dense, moe) in fits.items():
        show(f"{field}: {base:.3f} GiB + {per_layer * 1024:.1f} MiB a layer, {experts:+.3f} GiB for experts")
        show(f"  between {dense[0]:.2f} and {dense[1]:.2f} of it, with experts {moe[0]:.2f} and {moe[1]:.2f}")
    for value, number, name in sorted(graph_residuals):
        show(f"  {value:+.3f} GiB {number} {name} (its model left out)")
    return TEMPLATE.format(
        logs=len(rows),
        versions=" to ".join(f"{major}.{minor}" for major, minor in releases),
        usual=median(map(abs, residuals.values())) * 1024,
        worst=max(map(abs, residuals.values())) * 1024,
        graph_logs=len(graphs),
        graph_worst=max(abs(value) for value, _, _ in graph_residuals) * 1024,
        graphs="\n".join(
            graph_constants(prefix, fits[field])
            for prefix, field in (
                ("GRAPHS", "cudagraph_gib"),
                ("ESTIMATED_GRAPHS", "cudagraph_estimated_gib"),
            )
        ),
    )


def graph_constants(prefix, found):
    """Return the lines of one fit of graphs."""
    base, per_layer, experts, dense, moe = found
    return "\n".join(
        (
            f"{prefix}_BASE_GIB = {base:.4f}",
            f"{prefix}_PER_LAYER_GIB = {per_layer:.5f}",
            f"{prefix}_EXPERTS_GIB = {experts:.3f}",
            f"{prefix}_DENSE_RANGE = ({dense[0]:.2f}, {dense[1]:.2f})",
            f"{prefix}_MOE_RANGE = ({moe[0]:.2f}, {moe[1]:.2f})",
        )
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

# What graphs took, and what vLLM estimated for them beforehand, which is what comes off the pool since
# 0.20: GiB, and the shares of the fitted amount that logs of H100 since 0.18 lie between; elsewhere and
# before wider ones.
{graphs}
GRAPHS_ARCHITECTURE = "hopper"
GRAPHS_DENSE_ELSEWHERE_RANGE = (0.30, 1.75)
GRAPHS_MOE_ELSEWHERE_RANGE = (0.50, 2.60)
GRAPHS_FLOOR_GIB = 0.15
GRAPHS_WHY = "fitted to graph captures logged by vLLM 0.19 on H100"

# GiB beside torch after the profile run: least, usual, most. By links between ranks: SXM boards of Hopper
# and Blackwell, Hopper cards on bridges, AMD, A100, everything else; pipeline stages alone. No log shows
# bridges, AMD and stages: theirs span what the others do.
NON_TORCH_ONE_RANK = (0.20, 0.25, 0.46)
NON_TORCH_ONE_RANK_ELSEWHERE = (0.01, 0.25, 0.60)
NON_TORCH_ONE_RANK_BEFORE_0_18 = (0.01, 0.13, 0.30)
NON_TORCH: dict[str, tuple[float, float, float]] = {{
    "hopper": (1.90, 2.09, 2.30),
    "blackwell": (0.80, 0.95, 2.30),
    "bridge": (0.20, 0.60, 2.30),
    "amd": (0.20, 1.20, 4.00),
    "ampere": (0.20, 0.60, 1.40),
    "pcie": (0.18, 0.28, 0.95),
    "stages": (0.20, 0.50, 2.30),
}}
NON_TORCH_UNSEEN = ("bridge", "amd", "stages")
# On SXM boards of Hopper: 2.07 to 2.11 on two ranks, 2.13 to 2.21 on four.
NON_TORCH_PER_DOUBLING = (0.03, 0.08, 0.15)
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
    "bridge": (0.60, 1.40, 2.10),
    "amd": (0.40, 1.20, 4.00),
    "ampere": (0.60, 1.20, 2.10),
    "pcie": (0.40, 0.80, 1.60),
    "stages": (0.40, 1.20, 2.60),
}}
SNAPSHOT_WHY = "memory in use at vLLM's first snapshot: 0.51 GiB on one H100, 1.5 to 2.1 with NCCL"
'''


if __name__ == "__main__":
    main()
