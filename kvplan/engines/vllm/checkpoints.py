"""vLLM: states that a kernel hands out in the middle of a prompt, for prefix caching.

Where every recurrent layer can, a request holds one more state block in each of their groups, and blocks
fall on the offsets that the kernel can stop at. vLLM 0.33: v1/kv_cache_interface.py
``MambaSpec.num_prefill_checkpoint_blocks``, platforms/interface.py ``_align_hybrid_block_size``,
model_executor/layers/mamba/mamba_mixer2.py and gdn/qwen_gdn_linear_attn.py, models/kimi_k3/nvidia/kda.py.
"""

from kvplan.engines.vllm.attention import BLACKWELL, CONSUMER_BLACKWELL, HOPPER
from kvplan.frozen import dataclass
from kvplan.layers import RECURRENT_STATES, GatedDeltaState, KimiDeltaState, Mamba2State
from kvplan.model import ModelSpec, cache_kinds

KIMI_K3_SINCE, MAMBA2_SINCE, DELTA_SINCE = (0, 30), (0, 32), (0, 33)
# FlashInfer's gated DeltaNet stops at chunks (v1/attention/backends/gdn_attn.py); on Blackwell it takes
# keys of 128 only.
DELTA_ALIGNMENT, DELTA_HEAD_DIM = 64, 128
# FlashKDA, which Kimi K3's layer class alone runs, takes heads of 128.
KIMI_DELTA_HEAD_DIM = 128
# Gated DeltaNet with a layer class of its own, which hands out none.
WITHOUT_CHECKPOINTS = ("olmo_hybrid",)


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """State blocks a request holds for it in each recurrent group, and the tokens blocks align to."""

    num_blocks: int = 0
    alignment: int = 1


NONE = Checkpoints()


def checkpoints_of(model: ModelSpec, device_generation: int, version: tuple[int, int]) -> Checkpoints:
    """Return what the model's kernels hand out on a named device of this generation (0: not NVIDIA's)."""
    states = [cache for cache, _ in cache_kinds(model) if isinstance(cache, RECURRENT_STATES)]
    if not states or model.model_type in WITHOUT_CHECKPOINTS:
        return NONE
    if version >= MAMBA2_SINCE and all(isinstance(state, Mamba2State) for state in states):
        return Checkpoints(1)
    if version >= DELTA_SINCE and all(_runs_flashinfer(state, device_generation) for state in states):
        return Checkpoints(1, DELTA_ALIGNMENT)
    is_kimi_k3 = model.architecture.startswith("KimiK3") and version >= KIMI_K3_SINCE
    if is_kimi_k3 and all(_runs_flashkda(state, device_generation) for state in states):
        return Checkpoints(1)
    return NONE


def _runs_flashkda(state: object, device_generation: int) -> bool:
    """Tell whether a layer is Kimi's delta attention on FlashKDA (``resolve_kda_prefill_backend``)."""
    return (
        isinstance(state, KimiDeltaState)
        and state.head_dim == KIMI_DELTA_HEAD_DIM
        and device_generation in (HOPPER, BLACKWELL, CONSUMER_BLACKWELL)
    )


def _runs_flashinfer(state: object, device_generation: int) -> bool:
    """Tell whether a layer is gated DeltaNet on FlashInfer's kernel (``_resolve_gdn_prefill_backend``)."""
    if not isinstance(state, GatedDeltaState):
        return False
    if device_generation in (BLACKWELL, CONSUMER_BLACKWELL):
        return state.head_k_dim == DELTA_HEAD_DIM
    return device_generation == HOPPER
