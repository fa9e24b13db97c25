"""How many plans a second one core makes: ``python tests/benchmarks/plans.py``.

The design asks for 10,000 a second for a dense model and 2,000 for the most complex one, and for a
solve within 5 ms.
"""

from time import perf_counter

from kvplan.engines import engine_named
from kvplan.hardware.parse import parse_gpus
from kvplan.plan import plan
from kvplan.solve import max_context
from kvplan.sources import open_model
from kvplan.workload import Workload

MODELS = ("llama-3-70b", "gemma-3-27b", "deepseek-v3", "gpt-oss-120b")
ENGINES = ("ideal", "vllm", "llama.cpp", "transformers")


def main():
    """Print a table of plans a second and milliseconds a solve."""
    for name in MODELS:
        model, devices = open_model(name), parse_gpus(["2xh100"])
        for engine_name in ENGINES:
            engine = engine_named(engine_name)
            contexts = [1000 + 7 * step for step in range(2000)]
            workloads = [Workload(context_tokens=tokens, context_source="flag") for tokens in contexts]
            plan(model, workloads[0], devices, engine)
            start = perf_counter()
            for workload in workloads:
                plan(model, workload, devices, engine)
            rate = len(workloads) / (perf_counter() - start)
            start = perf_counter()
            for batch in range(1, 21):
                max_context(model, Workload(num_sequences=batch), devices, engine)
            solve = (perf_counter() - start) / 20 * 1000
            print(f"{name:14} {engine_name:13} {rate:9,.0f} plans/s {solve:7.2f} ms a solve")


if __name__ == "__main__":
    main()
