"""Which attention kernel TGI's launcher picks, and the block size that follows.

TGI 3.0 launcher/src/main.rs (resolve_attention) and 2.3 server/text_generation_server/models/
globals.py (BLOCK_SIZE); before 2.3 paged attention alone. A public start-up of gemma-3-27b under 3.3
shows that its launcher reads the language model's part of a config, which 3.0 did not.
"""

from kvplan.device import Device
from kvplan.model import ModelSpec

BLOCK_SIZES: dict[str, int] = {"flashinfer": 1, "flashdecoding": 256, "paged": 16}
FLASHINFER_SINCE = (2, 3)
NESTED_SINCE = (3, 3)
FLASHINFER_HEADS = (64, 128, 256)
# Families that the launcher keeps off flashinfer.
WITHOUT_FLASHINFER = ("falcon", "deepseek_v2")
FLASHDECODING_CAPABILITY = 8


def attention_of(model: ModelSpec, asked: str, device: Device | None, version: tuple[int, ...]) -> str:
    """Return the kernel: ``asked`` (the variable ATTENTION), else the launcher's choice."""
    if asked in BLOCK_SIZES:
        return asked
    if version < FLASHINFER_SINCE or (device is not None and device.vendor not in ("", "nvidia")):
        return "paged"
    if (
        _head_dim(model, nested=version >= NESTED_SINCE) in FLASHINFER_HEADS
        and model.model_type not in WITHOUT_FLASHINFER
    ):
        return "flashinfer"
    major = device.compute_capability.partition(".")[0] if device is not None else ""
    return "paged" if major.isdigit() and int(major) < FLASHDECODING_CAPABILITY else "flashdecoding"


def _head_dim(model: ModelSpec, *, nested: bool) -> int:
    """Return the head size as the launcher reads it: the config's, else hidden size by heads."""
    config = model.config or {}
    parts = (config, config.get("text_config") if nested else None)
    for part in parts:
        own = part.get("head_dim") if hasattr(part, "get") else None
        if isinstance(own, int) and own > 0:
            return own
    return model.structure.hidden_size // max(1, model.structure.num_attention_heads)
