"""What starting up costs: ``python tests/benchmarks/startup.py [--pairs 12]``.

Runs ``kvplan fit … --json`` (one that fits, and the README's, which does not and looks for changes) and
two hello-world Typer apps in turn, as whole processes of the kvplan that is installed. Prints the CPU
time of each (median), kvplan's ratio to either app pair by pair, and kvplan's peak memory. The design
allows 1.25 times the app's CPU time and 40 MB with the current Typer. ``lean`` is an app with every
switch off that costs time, ``documented`` the first one of Typer's manual.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

APPS = {
    "lean": """
import typer
app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
@app.command()
def hello(name: str, times: int = 1):
    typer.echo(name * times)
app()
""",
    "documented": """
import typer
def main(name: str):
    print(f"Hello {name}")
if __name__ == "__main__":
    typer.run(main)
""",
}
FIT = {
    "fit that fits": ["llama-3-8b", "--gpu", "48GB", "--ctx", "8k"],
    "fit of the README": ["llama-3-70b", "--gpu", "48GB", "--ctx", "32k"],
}


def process_cost(words, folder):
    """Return the CPU seconds, user's and system's, and the peak memory (bytes) of one process."""
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL, cwd=folder)
    _, _, usage = os.wait4(process.pid, 0)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def main():
    """Print the comparison."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=12)
    pairs = parser.parse_args().pairs
    words = {name: ["-m", "kvplan", "fit", *query, "--json"] for name, query in FIT.items()}
    with tempfile.TemporaryDirectory() as folder:
        for name, text in APPS.items():
            Path(folder, f"{name}.py").write_text(text)
            words[name] = [f"{name}.py", "x"]
        # The first round writes what is compiled.
        rounds = [
            {name: process_cost(line, folder) for name, line in words.items()} for _ in range(pairs + 1)
        ]
    del rounds[0]
    for name in words:
        times = statistics.median(one[name][0] for one in rounds)
        print(f"{name:18} {times * 1000:6.0f} ms CPU (median of {pairs})", end="")
        if name in FIT:
            for app in APPS:
                ratio = statistics.median(one[name][0] / one[app][0] for one in rounds)
                print(f"  {ratio:.2f} × {app}", end="")
            print(f"  {max(one[name][1] for one in rounds) / 1e6:.1f} MB", end="")
        print()


if __name__ == "__main__":
    main()
