"""Whether a change for speed changed a number: plans, searches and changes of llama.cpp, drawn by chance.

``python tests/benchmarks/same_plans.py before.jsonl`` on one revision and ``… after.jsonl`` on the other
write a line for each case, the same cases each time; ``cmp before.jsonl after.jsonl`` tells. ``--plans N``
and ``--searches N`` say how many cases there are, ``--seed`` which.
"""

import argparse
import json
import random
from pathlib import Path

from kvplan.changes.attempt import Situation
from kvplan.changes.suggestions import suggestions
from kvplan.engines import engine_named
from kvplan.errors import KvplanError
from kvplan.frozen import replace
from kvplan.hardware.parse import parse_gpus
from kvplan.judge import Rules, judge
from kvplan.offload import plan_or_offload
from kvplan.plan import plan
from kvplan.solve import fewest_gpus, limits, max_context, max_sequences
from kvplan.sources.catalog import entries, model_from_spec
from kvplan.workload import Workload

GIB = 2**30
GPUS = (
    "none", "rtx-4090", "rtx-3060-12gb", "gtx-1650", "24GB", "m3-max-64gb", "h100", "2xrtx-4090", "4xl4",
    "rtx-3090+rtx-3060-12gb", "2xh100", "rx-7900-xtx",
)  # fmt: skip
MIXES = ("q4_k_m", "q8_0", "mxfp4_moe", "iq4_xs", "q2_k", "gguf-bf16", "q5_k_s", None)
CACHES = ("auto", "auto", "auto", "q8_0", "q4_0", "f32", "bf16")


def drawn_options(chance, engine):
    """Return some of the engine's own options."""
    if engine == "ollama":
        drawn = {"num_gpu": chance.randint(0, 60), "num_batch": 256, "flash_attention": "0"}
    else:
        drawn = {
            "n_gpu_layers": str(chance.randint(0, 60)),
            "n_cpu_moe": chance.randint(1, 50),
            "cpu_moe": True,
            "flash_attn": chance.choice(("on", "off")),
            "n_ubatch": chance.choice((1, 16, 64, 300, 1024)),
            "kv_unified": True,
            "swa_full": True,
            "no_kv_offload": True,
            "no_op_offload": True,
            "parallel": chance.choice((-1, 2, 5)),
            "split_mode": chance.choice(("none", "row", "layer")),
            "tensor_split": chance.choice(("1,3", "2,1,1")),
            "override_tensor": chance.choice((r"\.ffn_.*_exps\.=CPU", r"blk\.[0-9]\.ffn_up=CPU")),
            "fit": "off",
        }
    kept = chance.sample(sorted(drawn), chance.choice((0, 0, 1, 1, 2, 3)) % (len(drawn) + 1))
    return tuple((name, drawn[name]) for name in kept)


def drawn_case(chance, specs, *, plain):
    """Return a model, a workload, devices and an engine; without options of its own where ``plain``."""
    engine = chance.choice(("llama.cpp", "llama.cpp", "llama.cpp", "ollama"))
    workload = Workload(
        context_tokens=chance.choice((0, 1, 777, 4096, 8192, 30_000, 131_072)),
        context_source="flag",
        num_sequences=chance.choice((1, 1, 1, 2, 3, 8, 33)),
        weights_format=chance.choice(MIXES),
        kv_cache_dtype_k=(cache := chance.choice(CACHES)),
        kv_cache_dtype_v=cache,
        cpu_memory_bytes=chance.choice((None, 16 * GIB, 64 * GIB, 512 * GIB)),
        engine_options=() if plain else drawn_options(chance, engine),
    )
    return chance.choice(specs), workload, chance.choice(GPUS), engine


def shown(result):
    """Return everything a plan says, without the model it repeats."""
    inner = result.on_devices and shown(result.on_devices)
    return repr(replace(result, model=None, on_devices=None)), inner


def planned(case):
    """Return the plan of a case, as it spills where it does not fit, and the verdict."""
    model, workload, devices, engine = case
    result = plan(model, workload, devices, engine)
    spilled = plan_or_offload(model, workload, devices, engine)
    return shown(result), shown(spilled), repr(judge(spilled))


def searched(case, chance):
    """Return how far a case stretches."""
    model, workload, devices, engine = case
    rules = Rules(allow_offload=chance.random() < 0.4, strict=chance.random() < 0.2)
    kind = chance.choice(("context", "sequences", "gpus", "limits", "changes", "changes"))
    if kind == "context":
        return kind, repr(rules), max_context(model, workload, devices, engine, rules)
    if kind == "sequences":
        return kind, repr(rules), max_sequences(model, workload, devices, engine, rules)
    if kind == "gpus" and devices:
        return kind, repr(rules), fewest_gpus(model, workload, devices[0], engine, rules)
    base = plan(model, workload, devices, engine)
    if kind == "changes":
        found = suggestions(base, Situation(model, workload, devices, engine, chance.random() < 0.5, rules))
        return kind, repr(rules), [(each.changes, repr(each.verdict), shown(each.plan)) for each in found]
    return kind, repr(rules), repr(limits(base, devices, engine, rules))


def main():
    """Write one line a case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--plans", type=int, default=600)
    parser.add_argument("--searches", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    specs = sorted(entries(), key=lambda spec: str(spec["id"]))
    lines = []
    for number in range(asked.plans + asked.searches):
        chance = random.Random(f"{asked.seed} {number}")
        is_plan = number < asked.plans
        spec, workload, gpus, name = drawn_case(chance, specs, plain=not is_plan)
        model = model_from_spec(spec)
        case = model, workload, parse_gpus(gpus.split("+")), engine_named(name)
        try:
            answer = planned(case) if is_plan else searched(case, chance)
        except KvplanError as error:
            answer = error.message
        lines.append(json.dumps([number, model.name, name, gpus, repr(workload), answer]) + "\n")
    asked.output.write_text("".join(lines))


if __name__ == "__main__":
    main()
