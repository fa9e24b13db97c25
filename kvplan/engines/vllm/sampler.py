"""vLLM: what the sampler of the profile run holds, by version, model runner and class of card.

Counted in fp32 copies of the logits beside the model's own (v1/sample/sampler.py keeps both):

* logits, probabilities and noise, three copies, since 0.17 (v1/sample/ops/topk_topp_sampler.py
  ``random_sample``), and a buffer of one row a processor that Triton's top-k and top-p kernel keeps
  (ops/topk_topp_triton.py ``_TRITON_BUFFER_CACHE``); fewer than 8 sequences are sorted
* before, and under the V0 engine, a sort of the whole vocabulary: nine copies while it runs (0.8 logs and
  a 0.16 log: 8.99 to 9.00)
* FlashInfer's kernel, logits, masked logits and probabilities, since 0.21 on NVIDIA cards, and from 0.9
  to 0.11 where it was installed (envs.py VLLM_USE_FLASHINFER_SAMPLER)
* the V2 runner (v1/worker/gpu/model_runner.py ``_dummy_sampler_run``) makes one copy until 0.27, none
  until 0.32 (sample/sampler.py ``needs_logits_processing``), then samples as above; its penalties keep
  counts of every token for every sequence, a copy and a 32nd (sample/penalties.py)
"""

from functools import lru_cache

from kvplan.engines.vllm.stages import has_states
from kvplan.engines.vllm.versions import V1_ONLY_SINCE
from kvplan.frozen import dataclass
from kvplan.model import ModelSpec
from kvplan.quantity import Basis
from kvplan.units import MIB
from kvplan.weight_formats import weight_format

COPIES, SORTING_COPIES = 3, 9
V1_SAMPLER_SINCE, SORTS_SINCE, TRITON_SINCE, FLASHINFER_SINCE = (0, 9), (0, 12), (0, 17), (0, 21)
V2_OWN_SINCE, V2_FULL_SINCE = (0, 28), (0, 33)
FEW_SEQUENCES = 8
COUNTS_PER_MASK = 32
# Processors of a card, a row each: H100's, and between the smallest and the largest cards elsewhere.
PROCESSORS: dict[str, tuple[int, int, int]] = {
    "hopper": (114, 132, 132),
    "blackwell": (132, 148, 160),
    "amd": (80, 304, 304),
}
OTHER_PROCESSORS = (24, 108, 188)
# torch's cuBLAS workspace: 32 MiB on Hopper and Blackwell, else 2 x 4 MiB + 8 x 16 KiB
# (ATen/cuda/CUDAContextLight.cpp, CublasHandlePool.cpp ``getChosenWorkspaceSize``).
WORKSPACE_BYTES: dict[str, int] = {"hopper": 32 * MIB, "blackwell": 32 * MIB, "amd": 32 * MIB}
OTHER_WORKSPACE_BYTES = 8 * MIB + 128 * 1024
# config/vllm.py DEFAULT_V2_MODEL_RUNNER_ARCHITECTURES: dense unquantized models of a list, then a list,
# then that and every dense model; all since 0.29 (``use_v2_model_runner``).
V2_SINCE, V2_QUANTIZED_SINCE, V2_DENSE_SINCE, V2_ALWAYS_SINCE = (0, 22), (0, 24), (0, 25), (0, 29)
V2_ARCHITECTURES: dict[tuple[int, int], frozenset[str]] = {
    (0, 25): frozenset(("DeepseekV2ForCausalLM", "Qwen2MoeForCausalLM", "GraniteMoeForCausalLM")),
    (0, 23): frozenset(("LlamaForCausalLM", "MistralForCausalLM", "Qwen3ForCausalLM")),
    (0, 22): frozenset(("Qwen3ForCausalLM",)),
}
V2_ARCHITECTURES[0, 24] = V2_ARCHITECTURES[0, 23] | V2_ARCHITECTURES[0, 25]


@dataclass(frozen=True, slots=True)
class Held:
    """What sampling holds, in thousandths of the fp32 logits, and rows of them.

    ``low``, ``expected`` and ``high`` copies are alive at the peak, ``rows`` (least, usual, most) beside
    them; ``counts_are_kept`` where penalties count every token of every sequence.
    """

    low: int
    expected: int
    high: int
    rows: tuple[int, int, int]
    counts_are_kept: bool
    basis: Basis


def workspace_bytes(kernels: str) -> int:
    """Return what cuBLAS takes from torch for one class of card."""
    return WORKSPACE_BYTES.get(kernels, OTHER_WORKSPACE_BYTES)


@lru_cache(maxsize=4096)
def held_by_sampler(
    model: ModelSpec, format_name: str, version: tuple[int, int], kernels: str, max_num_seqs: int
) -> Held:
    """Return what the sampler holds at its peak."""
    none = (0, 0, 0)
    if version >= FLASHINFER_SINCE:
        is_v2 = runs_v2(model, format_name, version)
        rows = _rows(kernels, max_num_seqs)
        # VLLM_USE_FLASHINFER_SAMPLER=0 and cards that FlashInfer lacks run Triton's kernel.
        beside = rows if kernels == "amd" else (0, 0, rows[2])
        full = COPIES * 1000
        if is_v2 and version < V2_FULL_SINCE:
            full = 1000 if version < V2_OWN_SINCE else 0
            return Held(full, full, full, none, counts_are_kept=True, basis="assumed")
        # No log is of the V2 runner on a card of its own memory, and none of an AMD card.
        basis: Basis = "assumed" if is_v2 or kernels == "amd" else "calibrated"
        return Held(full, full, full, beside, counts_are_kept=is_v2, basis=basis)
    if version >= TRITON_SINCE and max_num_seqs >= FEW_SEQUENCES:
        full = COPIES * 1000
        rows = _rows(kernels, max_num_seqs)
        known: Basis = "assumed" if kernels == "amd" else "calibrated"
        return Held(full, full, full, rows, counts_are_kept=False, basis=known)
    most = SORTING_COPIES * 1000
    is_v0 = kernels == "turing" and version < V1_ONLY_SINCE
    if V1_SAMPLER_SINCE <= version < SORTS_SINCE and kernels != "amd" and not is_v0:
        few = COPIES * 1000
        return Held(few, few, most, none, counts_are_kept=False, basis="calibrated")
    return Held(most, most, most, none, counts_are_kept=False, basis="calibrated")


def _rows(kernels: str, max_num_seqs: int) -> tuple[int, int, int]:
    """Return the rows of Triton's buffer: a processor each, no more than sequences round up to."""
    enough = 1 << (max_num_seqs - 1).bit_length()
    low, usual, high = PROCESSORS.get(kernels, OTHER_PROCESSORS)
    return min(low, enough), min(usual, enough), min(high, enough)


@lru_cache(maxsize=4096)
def runs_v2(model: ModelSpec, format_name: str, version: tuple[int, int]) -> bool:
    """Tell whether the V2 model runner is the default for a model."""
    if version < V2_SINCE or version >= V2_ALWAYS_SINCE:
        return version >= V2_ALWAYS_SINCE
    is_listed = model.architecture in V2_ARCHITECTURES[min(version, V2_DENSE_SINCE)]
    is_moe = any(part.role == "expert" for group in model.layers for part in group.layer.tensors)
    if version >= V2_DENSE_SINCE:
        return is_listed or not (is_moe or has_states(model))
    if version >= V2_QUANTIZED_SINCE:
        return is_listed
    return is_listed and not is_moe and weight_format(format_name).family == "plain"
