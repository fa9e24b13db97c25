"""How many plans a second one core makes: ``python tests/benchmarks/plans.py``.

The aim is 10,000 a second for a dense model and 2,000 for the most complex hybrid, and a solve within
5 ms. CPU time of one core, so that other work on the machine does not count; every plan has another
context, so that nothing is answered from a plan before.
"""

from time import process_time

from kvplan.engines import engine_named
from kvplan.errors import KvplanError
from kvplan.hardware.parse import parse_gpus
from kvplan.plan import plan
from kvplan.solve import max_context
from kvplan.sources import open_model
from kvplan.workload import Workload

MODELS = (
    "llama-3-70b",
    "gemma-3-27b",
    "deepseek-v3",
    "gpt-oss-120b",
    "kimi-k3",
    "deepseek-v4-pro",
    "gemma-3n-e4b",
)
ENGINES = ("ideal", "vllm", "sglang", "tensorrt-llm", "tgi", "lmdeploy", "transformers", "llama.cpp")


def main():
    """Print a table of plans a second and milliseconds a solve."""
    for name in MODELS:
        model, devices = open_model(name), parse_gpus(["2xh100"])
        for engine_name in ENGINES:
            engine = engine_named(engine_name)
            contexts = [1000 + 7 * step for step in range(1000)]
            workloads = [Workload(context_tokens=tokens, context_source="flag") for tokens in contexts]
            try:
                plan(model, workloads[0], devices, engine)
            except KvplanError as error:
                print(f"{name:15} {engine_name:13} {error.message}")
                continue
            start = process_time()
            for workload in workloads:
                plan(model, workload, devices, engine)
            rate = len(workloads) / (process_time() - start)
            start = process_time()
            for batch in range(1, 21):
                max_context(model, Workload(num_sequences=batch), devices, engine)
            solve = (process_time() - start) / 20 * 1000
            print(f"{name:15} {engine_name:13} {rate:9,.0f} plans/s {solve:7.2f} ms a solve")


if __name__ == "__main__":
    main()
