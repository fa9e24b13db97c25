"""What decisions cost: ``python tests/benchmarks/decisions.py``.

The design asks for the whole catalogue against every GPU (the best on each; every pair is shown
beside it) within 2 s, a sweep of 10,000 points within
2 s, 12,000 requests simulated within 3 s, and pictures of a large sweep within 200 MB. CPU seconds
of one core, so that other work on the machine does not count.
"""

import resource
import tempfile
from pathlib import Path
from time import process_time

from kvplan.capacity.lengths import Lengths, drawn
from kvplan.capacity.simulation import simulate_all
from kvplan.choices import best_first, choices
from kvplan.cli import main as kvplan
from kvplan.find import Search
from kvplan.hardware.catalog import catalogue
from kvplan.sources.catalog import entries, model_from_spec
from kvplan.workload import Workload


def find_everywhere():
    """Plan every bundled model as published on every card of the catalogue."""
    models = [model_from_spec(spec) for spec in entries()]
    workload = Workload(context_tokens=8192, context_source="flag")
    start = process_time()
    search = Search(choices(models, published_only=True), workload)
    found = sum(1 for device in catalogue() for _ in search.fitting((device,)))
    return process_time() - start, f"{len(models)} models, {found:,} pairs fit"


def best_everywhere():
    """Find the best model as published on every card of the catalogue, as ``find --gpu all`` does."""
    models = [model_from_spec(spec) for spec in entries()]
    workload = Workload(context_tokens=8192, context_source="flag")
    start = process_time()
    search = Search(best_first(choices(models, published_only=True)), workload)
    found = sum(search.best((device,)) is not None for device in catalogue())
    return process_time() - start, f"{len(models)} models, the best on {found} cards"


def sweep():
    """Plan 100 contexts at 100 loads, written as CSV."""
    with tempfile.TemporaryDirectory() as folder:
        start = process_time()
        words = "sweep llama-3.1-8b --gpu h100 --ctx 1024..102400+1024 --batch 1..100+1 --format csv"
        kvplan([*words.split(), "-o", str(Path(folder) / "sweep.csv")])
        return process_time() - start, "10,000 points"


def simulation():
    """Run 12,000 requests through a pool under every policy."""
    parts = [drawn(1150, 210, 8192, seed) for seed in range(3)]
    prompts, outputs = (sum((getattr(part, name) for part in parts), ()) for name in ("prompts", "outputs"))
    lengths = Lengths(prompts, outputs, "drawn")
    start = process_time()
    simulate_all(lengths, 200_000, 8192, 256)
    return process_time() - start, "12,000 requests"


def pictures():
    """Draw a large sweep as a page and as SVG."""
    with tempfile.TemporaryDirectory() as folder:
        words = "sweep llama-3.1-8b --gpu h100,l40s --ctx 1024..102400+1024 --batch 1..90+1 --format csv"
        exports = ["--export", f"html={folder}/a.html", "--export", f"svg={folder}/a.svg"]
        start = process_time()
        kvplan([*words.split(), *exports, "-o", f"{folder}/a.csv"])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return process_time() - start, f"18,000 points, peak {peak:,.0f} MB"


def main():
    """Print a table."""
    for name, measure in (
        ("simulate", simulation),
        ("sweep", sweep),
        ("draw", pictures),
        ("find --gpu all", best_everywhere),
        ("find, every pair", find_everywhere),
    ):
        seconds, what = measure()
        print(f"{name:16} {seconds:6.2f} s  {what}")


if __name__ == "__main__":
    main()
