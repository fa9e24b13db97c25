"""Fit vLLM's overhead to start-up logs: ``python tests/calibration/fit_vllm_budget.py``.

Reads tests/oracles/vllm_logs.jsonl and writes kvplan/engines/_vllm_calibration.py, whose header says
from which rows, with which residuals; prints the residuals with every model left out in turn.
The forms are physical and have two parameters each: the sampler's live copies of its logits and a
base; a graph pool's base and its part a layer. Everything else is a range that logs showed.
"""

import sys
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from vllm_logs import logs, model_named  # noqa: E402

from kvplan.engines import _vllm_calibration as fit  # noqa: E402
from kvplan.engines.vllm.activations import has_towers, terms_of  # noqa: E402
from kvplan.engines.vllm.settings import V0_DEFAULTS  # noqa: E402
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
    name = format_name_of(model, "fp32" if dtype == "float32" else row.get("weights"))
    return terms_of(model, name, seqs, tokens, row.get("tp", 1), dtype, 1)


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


def sampler_rows(without=frozenset()):
    """Rows since 0.17 whose peak is the sampler's: activation logged, sequences known, text only."""
    found = []
    for row in logs():
        release = _release(row)
        if row["id"] in without:
            continue
        if release < (0, 17) or "activation_peak_gib" not in row or None in settings(row):
            continue
        parts = terms(row)
        if has_towers(model_named(row["spec"])) or parts.prefill or parts.forward > 3 * parts.logits:
            continue
        found.append(row)
    return found


def sampler_point(row):
    """Return (fp32 logits, what remains of the peak), both in GiB."""
    parts = terms(row)
    rest = row["activation_peak_gib"] * GIB - parts.own_logits - parts.hidden - parts.experts
    return parts.logits / GIB, rest / GIB


def sorting_rows(without=frozenset()):
    """Rows of versions that sort the vocabulary to sample, where that is the peak: see SAMPLER_COPIES."""
    found = []
    for row in logs():
        sorts = (0, 0) < _release(row) < (0, 9) or (0, 12) <= _release(row) < (0, 17)
        if row["id"] in without or not sorts or "activation_peak_gib" not in row:
            continue
        parts = terms(row | sorting_settings(row))
        if not has_towers(model_named(row["spec"])) and parts.forward < 3 * parts.logits:
            found.append(row)
    return found


def sorting_settings(row):
    """Return the settings of the V0 engine where a log does not say them; the sweep has its own."""
    if _release(row) >= (0, 9):
        return {}
    tokens = max(V0_DEFAULTS[0], row.get("max_model_len") or 0)
    return {"max_num_seqs": V0_DEFAULTS[1], "max_num_batched_tokens": tokens} | row


def sorted_copies(row, base):
    """Return the copies of fp32 logits alive while a sampler sorts; before 0.11 no others are kept."""
    parts = terms(row | sorting_settings(row))
    own = parts.own_logits if _release(row) >= fit.LOGITS_KEPT_SINCE else 0
    rest = row["activation_peak_gib"] * GIB - own - parts.hidden - parts.experts - base * GIB
    return rest / parts.logits


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
    rows = sampler_rows(without)
    copies, base = line([sampler_point(row) for row in rows])
    residuals = left_out(rows, sampler_point)
    sorting = {row["id"]: sorted_copies(row, base) for row in sorting_rows(without)}
    v0 = [sorting[row["id"]] for row in sorting_rows(without) if _release(row) < (0, 9)]
    v1 = [sorting[row["id"]] for row in sorting_rows(without) if _release(row) >= (0, 9)]
    graphs = graph_rows(moe=False, without=without)
    per_layer, graph_base = line([graph_point(row) for row in graphs])
    graph_residuals = left_out(graphs, graph_point)
    moe_graphs = graph_rows(moe=True, without=without)
    experts = [y - graph_base - per_layer * x for x, y in map(graph_point, moe_graphs)]
    expert_part = median(experts)

    def ratios(found, extra):
        return [y / (graph_base + per_layer * x + extra) for x, y in map(graph_point, found)]

    dense, moe = ratios(graphs, 0), ratios(moe_graphs, expert_part)
    show(f"sampler: {copies:.3f} copies of fp32 logits + {base * 1024:.0f} MiB, {len(rows)} logs")
    for value, number, name in sorted(residuals):
        show(f"  {value:+.3f} GiB {number} {name} (its model left out)")
    for number, value in sorting.items():
        show(f"sorting sampler: {value:.2f} copies {number}")
    show(f"graphs: {graph_base:.3f} GiB + {per_layer * 1024:.1f} MiB a layer, {len(graphs)} dense logs")
    for value, number, name in sorted(graph_residuals):
        show(f"  {value:+.3f} GiB {number} {name} (its model left out)")
    show(f"experts: {expert_part:+.3f} GiB, from {min(experts):+.2f} to {max(experts):+.2f}")
    return TEMPLATE.format(
        logs=len(rows),
        worst=max(abs(value) for value, _, _ in residuals) * 1024,
        copies=round(copies * 1000),
        sort_low=round(min(sorting.values()) * 1000),
        sort_v1=round(median(v1 or v0) * 1000),
        sort_v0=round(median(v0 or v1) * 1000),
        sort_high=round(max(sorting.values()) * 1000),
        base=round(base * GIB),
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
Activations: {logs} logs since 0.17 whose peak is the sampler's; largest residual with the log's own
model left out {worst:.0f} MiB. Graphs: {graph_logs} logs of dense models on H100 under 0.19; largest
residual left out {graph_worst:.0f} MiB. Ranges hold what logs of the class showed.
"""

from kvplan.units import GIB, MIB

# Thousandths of fp32 logits alive at the sampler's peak, newest first: since, least, expected, most, and
# whether logs of these versions were fitted. v1/sample/ops/topk_topp_sampler.py: FlashInfer by default
# in 0.33, a Triton kernel since 0.17, before that a sort of the whole vocabulary, which 0.9 to 0.11 left
# to FlashInfer where it is installed (the images have it).
SAMPLER_COPIES: tuple[tuple[tuple[int, int], int, int, int, bool], ...] = (
    ((0, 20), 2000, {copies}, {copies}, False),
    ((0, 17), {copies}, {copies}, {copies}, True),
    ((0, 12), {sort_low}, {sort_v1}, {sort_high}, True),
    ((0, 9), 2000, 2000, {sort_high}, True),
    ((0, 0), {sort_low}, {sort_v0}, {sort_high}, True),
)
# Before, the sampler worked on one fp32 copy alone.
LOGITS_KEPT_SINCE = (0, 11)
BASE_BYTES = {base}
LOW_BYTES, LOW_PER_MILLE = 96 * MIB, 40
HIGH_BYTES, HIGH_PER_MILLE = 160 * MIB, 60
# Qwen2.5-VL's profile run, 65,536 patches: 6.9 GiB in all on one card.
DYNAMIC_TOWER_HIGH_BYTES = 6 * GIB
# DeepSeek-V4 on two GH200: 12 GiB beside the weights.
COMPRESSED_HIGH_BYTES = 10 * GIB
ACTIVATION_WHY = "fitted to {logs} start-up logs of vLLM 0.17 to 0.19"

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
