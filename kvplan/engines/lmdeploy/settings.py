"""LMDeploy's settings: its own options, their defaults by GPU, and the cache's quantization policy.

LMDeploy 0.18 messages.py (TurbomindEngineConfig, PytorchEngineConfig, QuantPolicy), cli/utils.py and
utils.py (get_max_batch_size).
"""

from kvplan.device import Device
from kvplan.engines.lmdeploy.backends import Backend
from kvplan.errors import InvalidValue, UnknownFormat, did_you_mean
from kvplan.frozen import dataclass
from kvplan.model import ModelSpec
from kvplan.workload import Workload

BLOCK_LENGTH = 64
MAX_PREFILL_TOKENS = 8192
FREE_SHARE = 0.8
# Until 0.2.1 the share was of the whole card (messages.py, cache_max_entry_count).
TOTAL_SHARE = 0.5
LAST_WITH_TOTAL_SHARE = (0, 2, 1)
MAX_BATCH_SIZE = 128
# Part of the card's name -> default batch.
BATCH_BY_CARD = (("a100", 384), ("a800", 384), ("h100", 1024), ("h800", 1024), ("l20y", 1024), ("h200", 1024))

# kvplan's and LMDeploy's names of a cache format -> quant_policy.
POLICIES: dict[str, int] = {
    "auto": 0, "none": 0, "bf16": 0, "bfloat16": 0, "fp16": 0, "float16": 0,
    "int4": 4, "int8": 8, "fp8": 16, "fp8_e4m3": 16, "fp8_e5m2": 17, "turbo_quant": 42,
}  # fmt: skip
NAMES: dict[int, str] = {4: "int4", 8: "int8", 16: "fp8_e4m3", 17: "fp8_e5m2", 42: "turbo_quant"}


@dataclass(frozen=True, slots=True)
class Settings:
    """What one server runs with.

    ``cache_max_entry_count`` is a share of free memory (of the card's where ``share_of_total``) or,
    from 1 on, a number of blocks; ``num_gpu_blocks`` fixes the PyTorch backend's blocks, 0 for none.
    ``speculative_algorithm`` is empty where nothing drafts.
    """

    backend: Backend
    cache_max_entry_count: float
    share_of_total: bool
    num_gpu_blocks: int
    block_length: int
    max_batch_size: int
    max_prefill_token_num: int
    state_budget: int
    quant_policy: int
    text_only: bool
    speculative_algorithm: str = ""
    num_draft_tokens: int = 0

    @property
    def fixed_blocks(self) -> int:
        """The blocks that a flag fixes, 0 where memory decides."""
        if self.num_gpu_blocks:
            return self.num_gpu_blocks
        return int(self.cache_max_entry_count) if self.cache_max_entry_count >= 1 else 0


def settings_of(
    workload: Workload, backend: Backend, device: Device | None, version: tuple[int, ...]
) -> Settings:
    """Resolve the settings. Raises InvalidValue for a share that LMDeploy does not take."""
    of_total = version <= LAST_WITH_TOTAL_SHARE
    default = TOTAL_SHARE if of_total else FREE_SHARE
    asked = workload.option("cache_max_entry_count", default)
    share = float(asked) if isinstance(asked, int | float) else default
    if share <= 0 or (backend == "pytorch" and share >= 1):
        takes = "more than 0 and less than 1" if backend == "pytorch" else "more than 0"
        raise InvalidValue(
            f"cache_max_entry_count {share:g} is not a share",
            why=f"LMDeploy's {backend} backend takes {takes}",
            hint=f"leave it out for {default:g}",
        )
    algorithm = workload.option("speculative_algorithm") if backend == "pytorch" else None
    return Settings(
        backend=backend,
        cache_max_entry_count=share,
        share_of_total=of_total,
        num_gpu_blocks=max(0, _whole(workload, "num_gpu_blocks", 0)) if backend == "pytorch" else 0,
        block_length=max(1, _whole(workload, "cache_block_seq_len", BLOCK_LENGTH)),
        max_batch_size=max(1, _whole(workload, "max_batch_size", default_batch(device))),
        max_prefill_token_num=max(1, _whole(workload, "max_prefill_token_num", MAX_PREFILL_TOKENS)),
        state_budget=max(0, _whole(workload, "prefix_cache_state_budget", 0)),
        quant_policy=_quant_policy(workload),
        text_only=bool(workload.option("language_model_only")),
        speculative_algorithm=str(algorithm or ""),
        num_draft_tokens=max(1, _draft_tokens(workload)) if algorithm else 0,
    )


def default_batch(device: Device | None) -> int:
    """Return ``max_batch_size`` where none is given: by the card's name."""
    name = device.name.casefold() if device is not None else ""
    return next((size for part, size in BATCH_BY_CARD if part in name), MAX_BATCH_SIZE)


def kv_dtype_name(model: ModelSpec, quant_policy: int) -> str:
    """Return the cache's format as reports show it."""
    own = model.dtype if model.dtype in ("float16", "bfloat16") else "float16"
    return NAMES.get(quant_policy, own)


def _quant_policy(workload: Workload) -> int:
    """Return the policy of ``--kv``, else of ``quant_policy``. Raises UnknownFormat for another."""
    if workload.kv_cache_dtype_k != workload.kv_cache_dtype_v:
        raise UnknownFormat(
            "LMDeploy keeps keys and values under one policy",
            why="--quant-policy sets both",
            hint="use --kv with one format",
        )
    asked = workload.kv_cache_dtype_k
    if asked == "auto":
        return _whole(workload, "quant_policy", 0)
    if asked not in POLICIES:
        raise UnknownFormat(
            f"LMDeploy has no KV cache format '{asked}'",
            why=did_you_mean(asked, POLICIES) or f"it takes {', '.join(POLICIES)}",
            hint="name one of them, or the engine that has it: kvplan list engines",
        )
    return POLICIES[asked]


def _draft_tokens(workload: Workload) -> int:
    """Return the tokens drafted a step; DFlash's block names them, its first token is the model's."""
    block = _whole(workload, "speculative_dflash_block_size", 0)
    return _whole(workload, "speculative_num_draft_tokens", max(1, block - 1))


def _whole(workload: Workload, name: str, default: int) -> int:
    value = workload.option(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else default
