"""LMDeploy: flags that change memory in ways that are not planned, each said with a notice.

Source: the help of each flag in LMDeploy 0.18 cli/serve.py and cli/utils.py.
"""

from kvplan.engines.base import Notice
from kvplan.workload import Workload

# Option -> what it does, where it is asked for at all.
NOT_PLANNED: dict[str, str] = {
    "hf_overrides": "a changed config",
    "kv_transfer_config": "a KV connector's buffers",
    "kernel_block_size": "blocks divided for the kernels",
    "dllm_block_length": "the blocks of a diffusion model",
    "cudagraph_capture_batch_sizes": "CUDA graphs of other sizes",
    "piecewise_cudagraph_max_tokens": "piecewise CUDA graphs",
}
# Degrees of parallelism: 1 is the default.
RANKS: dict[str, str] = {
    "dp": "data-parallel attention",
    "ep": "experts kept whole on each rank",
    "cp": "context parallelism",
}


def not_planned(workload: Workload) -> tuple[Notice, ...]:
    """Return a notice for every flag whose effect on memory is not planned."""
    found = [(name, what) for name, what in NOT_PLANNED.items() if workload.option(name)]
    for name, what in RANKS.items():
        ranks = workload.option(name)
        if isinstance(ranks, int) and ranks > 1:
            found.append((name, what))
    role = workload.option("role")
    if isinstance(role, str) and role.casefold() != "hybrid":
        found.append(("role", "a server that prefills or decodes alone"))
    return tuple(
        Notice("flag-not-planned", f"--{name.replace('_', '-')}: {what} not counted") for name, what in found
    )
