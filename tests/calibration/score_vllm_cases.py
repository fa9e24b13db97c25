"""Compare plans with runs of vLLM's own planner: ``python tests/calibration/score_vllm_cases.py``.

By default the table in tests/oracles, whose rows carry their configs; ``TABLE CONFIGS`` name another
table and a folder of config.json files that its ``config_file`` column refers to. Every case starts
from its config and goes through the engine's ``plan`` with the flags that the run had. Prints one
line a difference and the score.
"""

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from oracle_tables import oracle  # noqa: E402
from vllm_cases import differences  # noqa: E402

PUBLISHED = json.loads((HERE / "vllm_published_configs.json").read_text(encoding="utf-8"))


def cases(arguments):
    """Return (case, config) pairs."""
    if not arguments:
        return [(row, row["config"]) for row in oracle("vllm_planner.jsonl")]
    table, folder = (Path(argument) for argument in arguments)
    rows = [json.loads(line) for line in table.read_text(encoding="utf-8").splitlines()]
    found = []
    for row in rows:
        if row.get("config_file"):
            config = json.loads((folder / row["config_file"]).read_text(encoding="utf-8"))
        else:
            config = PUBLISHED[row["model"]]["config"]
        found.append((row, config))
    return found


def main():
    """Print the differences and how many cases equal."""
    equal = 0
    pairs = cases(sys.argv[1:])
    for row, config in pairs:
        try:
            found = differences(row, config)
        except Exception as error:
            found = [f"{type(error).__name__}: {error}"]
        equal += not found
        for text in found:
            print(row["id"], row["model"], text)
    print(f"{equal} of {len(pairs)} equal")
    return 0 if equal == len(pairs) else 1


if __name__ == "__main__":
    sys.exit(main())
