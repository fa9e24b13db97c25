"""How right weights and caches are under llama.cpp: ``python tests/calibration/score_llama_cpp.py``.

Prints, by architecture, how many of llama.cpp's own breakdowns are equal in bytes and how far GGUF sizes
lie from its quantizer's; with ``--readme`` the table goes into README.md between its markers.
``--breakdowns FILE --sizes FILE`` score other tables of the same form (one JSON object a line with
``hparams``, ``model_buffer_bytes``, ``context_bytes_by_backend`` …; one object of sizes by model and mix).
"""

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from oracle_tables import oracle  # noqa: E402 - the path is set above

from kvplan.engines.llama_cpp.placement import place  # noqa: E402
from kvplan.engines.llama_cpp.settings import settings_of  # noqa: E402
from kvplan.gguf.mix import mix_bytes  # noqa: E402
from kvplan.sources.config_model import model_from_config  # noqa: E402
from kvplan.sources.gguf import Header  # noqa: E402
from kvplan.sources.gguf_config import config_of_keys  # noqa: E402
from kvplan.sources.gguf_keys import Keys  # noqa: E402
from kvplan.workload import Workload  # noqa: E402

START = "<!-- llama.cpp weights and caches: python tests/calibration/score_llama_cpp.py --readme -->"
END = "<!-- end -->"
PLAIN = {"f16": "gguf-f16", "bf16": "gguf-bf16", "f32": "gguf-f32"}


class Score:
    """What was compared for one architecture."""

    def __init__(self):
        self.models, self.runs, self.weights, self.caches = set(), 0, 0, 0
        self.mixes, self.equal, self.worst = 0, 0, 0.0


def model_of(name, arch, hparams, *, is_tied, rope_freqs):
    """Build a model from the keys of a GGUF header."""
    metadata = {
        f"{arch}.{key}": tuple(value) if isinstance(value, list) else value for key, value in hparams.items()
    }
    config = config_of_keys(Keys(Header(metadata, {}, (), 0), arch, name), is_tied=is_tied)
    if rope_freqs:
        config["rope_scaling"] = {"rope_type": "llama3"}
    return model_from_config({**config, "torch_dtype": "float16"}, name=name, source="keys")


def shipped():
    """Return (keys by model, runs, sizes by model) of the repository's own tables."""
    keys = {row["model"]: row for row in oracle("gguf_keys.jsonl")}
    runs = [
        (table["model"], dict(zip(table["columns"], values, strict=True)))
        for table in oracle("llama_cpp_placement.jsonl")
        for values in table["rows"]
    ]
    return keys, runs, {row["model"]: row["bytes"] for row in oracle("gguf_mixes.jsonl")}


def given(breakdowns, sizes):
    """Return the same of tables as llama.cpp's breakdown tool writes them."""
    data = json.loads(Path(sizes).read_text(encoding="utf-8"))
    keys, runs = {}, []
    for line in Path(breakdowns).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        name, quants = row["model"], data[row["model"]]["quants"]
        # Rope frequencies show only as the odd bytes of the plain file.
        keys.setdefault(
            name,
            {
                "arch": row["arch"],
                "hparams": row["hparams"],
                "tied": not quants["F16"]["output"]["bytes"],
                "num_elements": data[name]["n_params"],
            },
        )
        count = 0 if row["device_sim"].startswith("cpu") else int(row["device_sim"][0])
        cards = [f"CUDA{index}" for index in range(count)]

        def by_place(amounts, cards=cards):
            host = sum(size for name, size in amounts.items() if name not in cards)
            return [*(amounts.get(card, 0) for card in cards), host]

        runs.append((name, {
            "mix": row["quant"].casefold(), "num_gpus": count, "n_ctx": row["n_ctx"],
            "n_parallel": row["n_parallel"], "n_ubatch": row["n_ubatch"], "type_k": row["type_k"],
            "type_v": row["type_v"], "flash_attn": row["fa"], "kv_unified": row["kv_unified"],
            "swa_full": row["swa_full"], "n_gpu_layers": row["ngl"], "cpu_moe": row["cmoe"],
            "kv_offload": row["kv_offload"], "tensor_split": row["tensor_split"],
            "split_mode": row["split_mode"], "weights": by_place(row["model_buffer_bytes"]),
            "cache": by_place(row["context_bytes_by_backend"]),
        }))  # fmt: skip
    named = {
        name: {
            PLAIN.get(mix.casefold(), mix.casefold()): entry["bytes"]
            for mix, entry in data[name]["quants"].items()
        }
        for name in keys
    }
    return keys, runs, named


def settings(row):
    """Return the settings of one run."""
    options = {
        "parallel": row["n_parallel"], "n_ubatch": row["n_ubatch"], "flash_attn": row["flash_attn"],
        "kv_unified": bool(row["kv_unified"]), "swa_full": bool(row["swa_full"]),
        "n_gpu_layers": str(row["n_gpu_layers"]), "cpu_moe": bool(row["cpu_moe"]),
        "no_kv_offload": not row["kv_offload"], "split_mode": row["split_mode"], "ctx_size": row["n_ctx"],
    }  # fmt: skip
    return settings_of(
        Workload(engine_options=tuple(options.items())), row["n_ctx"], row["type_k"], row["type_v"]
    )


def shares(row):
    """Return how layers were split over the cards."""
    if row["split_mode"] == "none" and row["num_gpus"]:
        return (1, *(0,) * (row["num_gpus"] - 1))
    if row["tensor_split"]:
        return tuple(int(float(part) * 1000) for part in row["tensor_split"].split(","))
    return (1,) * row["num_gpus"]


def scored(keys, runs, sizes):
    """Compare everything; return a score by architecture."""
    scores, models = defaultdict(Score), {}
    for name, entry in keys.items():
        known = entry.get("num_elements")
        model = model_of(
            name, entry["arch"], entry["hparams"], is_tied=entry["tied"], rope_freqs=entry.get("rope_freqs")
        )
        if known is not None and known > _num_elements(model):
            model = model_of(name, entry["arch"], entry["hparams"], is_tied=entry["tied"], rope_freqs=True)
        models[name] = model
        score = scores[entry["arch"]]
        score.models.add(name)
        for mix, num_bytes in sizes[name].items():
            planned = mix_bytes(model, mix).total_bytes
            score.mixes += 1
            score.equal += planned == num_bytes
            score.worst = max(score.worst, abs(planned / num_bytes - 1))
    for name, row in runs:
        score = scores[keys[name]["arch"]]
        placed = place(models[name], row["mix"], settings(row), shares(row), "cuda")
        everywhere = (*placed.devices, placed.host)
        score.runs += 1
        score.weights += [held.weight_bytes for held in everywhere] == row["weights"]
        score.caches += [held.cache_bytes + held.state_bytes for held in everywhere] == row["cache"]
    return scores


def _num_elements(model):
    from kvplan.gguf.mix import num_stored_elements

    return num_stored_elements(model)


def table_of(scores):
    """Return the Markdown table."""
    lines = [
        "| | models | runs | caches equal by device | weights equal by device "
        "| mixes | equal in bytes | worst |",
        "|---|---|---|---|---|---|---|---|",
    ]
    every = Score()
    for arch, score in sorted(scores.items()):
        lines.append(_line(f"`{arch}`", score))
        every.models |= score.models
        for name in ("runs", "weights", "caches", "mixes", "equal"):
            setattr(every, name, getattr(every, name) + getattr(score, name))
        every.worst = max(every.worst, score.worst)
    return "\n".join([*lines, _line("all", every)])


def _line(name, score):
    return (
        f"| {name} | {len(score.models)} | {score.runs} | {score.caches} | {score.weights} "
        f"| {score.mixes} | {score.equal} | {100 * score.worst:.2f} % |"
    )


def main():
    """Score the shipped tables, or those that are named."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--breakdowns")
    parser.add_argument("--sizes")
    parser.add_argument("--readme", action="store_true")
    asked = parser.parse_args()
    tables = given(asked.breakdowns, asked.sizes) if asked.breakdowns else shipped()
    shown = table_of(scored(*tables))
    print(shown)
    if asked.readme:
        readme = ROOT / "README.md"
        text = readme.read_text(encoding="utf-8")
        before, rest = text.split(START, 1)
        readme.write_text(f"{before}{START}\n{shown}\n{END}{rest.split(END, 1)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
