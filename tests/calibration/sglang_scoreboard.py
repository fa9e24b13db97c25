"""Compare kvplan with runs of SGLang's own sizing code: one line a difference, then the score.

    python tests/calibration/sglang_scoreboard.py CASES.jsonl [--configs FOLDER]
    python tests/calibration/sglang_scoreboard.py CASES.jsonl --configs FOLDER --write TABLE.jsonl

CASES has one run a line: ``server_args``, ``gpu`` (MiB and compute capability), ``result``, and for
runs that sized pools ``pre_model_load_gb`` and ``avail_after_load_gb``. The model is the row's own
``config``, else the file ``config_file`` of FOLDER with ``config_patch`` applied, else the bundled
model of that name. ``--write`` makes the table that tests/engines/sglang compare with.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sglang_cases import differences, result_fields, spec_of

ORIGIN = (
    "SGLang 0.5.23's own sizing code (ServerArgs, ModelConfig, KVCacheConfigurator, pools on torch's meta "
    "device) run with CUDA queries and free memory stubbed; configs from public repositories"
)


def config_of(row, folder):
    """Return the config a row names, patched; None where the bundled model serves."""
    if row.get("config"):
        return row["config"]
    if not (folder and row.get("config_file")):
        return None
    config = json.loads((folder / row["config_file"]).read_text(encoding="utf-8"))
    for key, value in (row.get("config_patch") or {}).items():
        if value == "__delete__":
            config.pop(key, None)
        else:
            config[key] = value
    return config


def trimmed(row, config):
    """Return the row as the oracle table keeps it: the config only where no bundled model is the same."""
    kept = {
        key: row[key] for key in ("id", "model", "gpu", "server_args", "pp_rank") if row.get(key) is not None
    }
    if row.get("config_file"):
        kept["model"] = row["config_file"].removesuffix(".json").replace("__", "/")
    for key in ("pre_model_load_gb", "avail_after_load_gb"):
        if row.get(key) is not None:
            kept[key] = row[key]
    kept["result"] = result_fields(row["result"])
    if spec_of(kept) is None or differences(kept):
        kept["config"] = config
    return kept


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", type=Path)
    parser.add_argument("--configs", type=Path)
    parser.add_argument("--write", type=Path)
    asked = parser.parse_args()
    rows = [json.loads(line) for line in asked.cases.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if "origin" not in row]
    equal, lines = 0, [json.dumps({"origin": ORIGIN})]
    for row in rows:
        config = config_of(row, asked.configs)
        given = {**row, "config": config} if config else row
        try:
            found = differences(given)
        except Exception as error:
            found = {"error": (type(error).__name__, str(error)[:120])}
        equal += not found
        if found:
            print(f"{row['id']} {row['model']} {row['server_args']}: {found}")
        elif asked.write:
            lines.append(json.dumps(trimmed(row, config)))
    if asked.write:
        asked.write.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{equal} of {len(rows)} rows equal")
    return 0 if equal == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
