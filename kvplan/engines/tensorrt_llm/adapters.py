"""LoRA under TensorRT-LLM: a cache of adapters on the device, taken before the profile run.

cpp/tensorrt_llm/batch_manager/peftCacheManager.cpp (getMaxNumSlots, getPageManagerConfig: every module of
an adapter counts as many pages as the widest one), _torch/pyexecutor/_util.py (``max_loras`` adapters of
``max_lora_rank`` over all layers and modules), llmapi/llm_args.py (PeftCacheConfig: without ``max_loras``
a share of what is free, 0.02).
"""

from functools import lru_cache

from kvplan.model import ModelSpec, num_layers
from kvplan.quantity import ZERO, Quantity
from kvplan.units import ceil_div
from kvplan.workload import Workload

MAX_LORA_RANK, DEVICE_CACHE_PERCENT = 64, 0.02
# TensorRT-LLM's names of modules -> the projections they adapt.
MODULES: dict[str, tuple[str, ...]] = {
    "attn_q": ("q_proj.weight",),
    "attn_k": ("k_proj.weight",),
    "attn_v": ("v_proj.weight",),
    "attn_qkv": ("qkv_proj.weight",),
    "attn_dense": ("o_proj.weight",),
    "mlp_h_to_4h": ("mlp.gate_proj.weight",),
    "mlp_gate": ("mlp.up_proj.weight",),
    "mlp_gate_up": ("gate_up_proj.weight",),
    "mlp_4h_to_h": ("mlp.down_proj.weight",),
}
QKV = ("attn_q", "attn_k", "attn_v")
ADAPTED_ROLES = frozenset(("attention", "mlp", "shared_expert"))
SHARE_WHY = "a share of what is free once the model is loaded; max_loras would fix it"
SLOTS_WHY = "max_loras adapters of max_lora_rank, each module as wide as the widest"


def adapter_bytes(model: ModelSpec, workload: Workload, tensor: int, free_bytes: int) -> Quantity:
    """Return a rank's cache of adapters; 0 where none are asked for.

    ``free_bytes`` is what the loaded model leaves. Which modules are adapted is each adapter's own
    choice where ``lora_target_modules`` does not say: from queries, keys and values to all.
    """
    config = workload.option("lora_config")
    asked: dict[str, object] = dict(config) if isinstance(config, dict) else {}
    if not asked and not workload.option("enable_lora"):
        return ZERO
    count = asked.get("max_loras")
    if not isinstance(count, int) or count <= 0:
        peft = workload.option("peft_cache_config")
        share = peft.get("device_cache_percent") if isinstance(peft, dict) else None
        percent = float(share) if isinstance(share, int | float) else DEVICE_CACHE_PERCENT
        most = int(max(0, free_bytes) * percent)
        return Quantity(most // 10, most, most, "assumed", SHARE_WHY)
    rank = asked.get("max_lora_rank")
    rows = (
        (rank if isinstance(rank, int) and rank > 0 else MAX_LORA_RANK) * count * num_layers(model.structure)
    )
    named = asked.get("lora_target_modules")
    targets = tuple(str(name) for name in named) if isinstance(named, list | tuple) else ()
    if targets:
        if any(name in QKV for name in targets):
            targets = tuple(dict.fromkeys((*targets, *QKV)))
        amount = 2 * rows * _row(model, tensor, targets)
        if amount:
            return Quantity(amount, amount, amount, "assumed", SLOTS_WHY)
    least, most = (2 * rows * _row(model, tensor, names) for names in (QKV, tuple(MODULES)))
    return Quantity(min(least, most), most, most, "assumed", SLOTS_WHY)


@lru_cache(maxsize=512)
def _row(model: ModelSpec, tensor: int, targets: tuple[str, ...]) -> int:
    """Return the elements of one rank in one layer over all target modules, as the cache pages them."""
    sizes: dict[str, int] = {}
    for group in model.layers:
        for part in group.layer.tensors:
            if part.role not in ADAPTED_ROLES or len(part.shape) != 2:
                continue
            for module in targets:
                if part.name.endswith(MODULES.get(module, ())):
                    num_out, num_in = part.shape
                    one = num_in // tensor + num_out if part.split == "in" else num_in + num_out // tensor
                    sizes[module] = max(sizes.get(module, 0), one)
    if not sizes:
        return 0
    page, widest = min(sizes.values()), max(sizes.values())
    return len(sizes) * ceil_div(widest, page) * page
