"""What starting up costs: ``python tests/benchmarks/startup.py [--pairs 12]``.

Runs ``kvplan fit … --json`` and a hello-world Typer app in turn, as whole processes, and prints the
CPU time of each (median), their ratio pair by pair, and kvplan's peak memory. The design allows
1.25 times the app's CPU time and 40 MB with the current Typer.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HELLO = """
import typer
app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
@app.command()
def hello(name: str, times: int = 1):
    typer.echo(name * times)
app()
"""
KVPLAN = ["-m", "kvplan", "fit", "llama-3-70b", "--gpu", "48GB", "--ctx", "32k", "--json"]


def cpu_seconds(words):
    """Return the CPU seconds and peak memory (bytes) of one process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL)
    _, _, usage = os.wait4(process.pid, 0)
    del before
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def main():
    """Print the comparison."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=12)
    pairs = parser.parse_args().pairs
    with tempfile.TemporaryDirectory() as folder:
        hello = Path(folder) / "hello.py"
        hello.write_text(HELLO)
        for words in (KVPLAN, [str(hello), "x"]):
            cpu_seconds(words)
        rows = [(cpu_seconds(KVPLAN), cpu_seconds([str(hello), "x"])) for _ in range(pairs)]
    ours = statistics.median(mine[0] for mine, _ in rows)
    floor = statistics.median(app[0] for _, app in rows)
    ratio = statistics.median(mine[0] / app[0] for mine, app in rows)
    peak = max(mine[1] for mine, _ in rows)
    print(f"kvplan fit --json   {ours * 1000:7.0f} ms CPU (median of {pairs})")
    print(f"hello-world Typer   {floor * 1000:7.0f} ms CPU")
    print(f"ratio               {ratio:7.2f} (pair by pair, median)")
    print(f"peak memory         {peak / 1e6:7.1f} MB")


if __name__ == "__main__":
    main()
