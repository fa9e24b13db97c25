"""The lines an SGLang server prints of its memory while it starts, and its errors.

SGLang 0.5.23 srt/mem_cache/memory_pool.py, srt/model_executor/pool_configurator.py and
srt/managers/scheduler.py. Its "GB" are GiB.
"""

from kvplan.engines.sglang.compressed import full_token_bytes, request_state_bytes, window_tokens
from kvplan.engines.sglang.fraction import MAX_PREFILL_TOKENS
from kvplan.engines.sglang.pools import Pools, Refused, caps_by_requests
from kvplan.engines.sglang.settings import Settings
from kvplan.engines.sglang.stages import Stage
from kvplan.units import GIB

TORCH_NAMES: dict[str, str] = {
    "bf16": "torch.bfloat16",
    "bfloat16": "torch.bfloat16",
    "float16": "torch.float16",
    "fp8_e4m3": "torch.float8_e4m3fn",
    "mxfp8": "torch.float8_e4m3fn",
    "fp8_e5m2": "torch.float8_e5m2",
    "nvfp4": "torch.float4_e2m1fn_x2",
    "fp4_mx_block16": "torch.float4_e2m1fn_x2",
}


def startup_lines(stage: Stage, settings: Settings, pools: Pools | Refused) -> tuple[str, ...]:
    """Return the lines of the rank that has ``stage``, or the error it stops with."""
    if isinstance(pools, Refused):
        return (pools.message,)
    lines: list[str] = []
    if stage.compressed is not None:
        lines += _compressed_lines(stage, settings, pools)
    elif stage.cells.window_bytes:
        lines += _window_lines(stage, settings, pools)
    else:
        lines += _state_lines(stage, pools)
        if stage.cells.full_bytes:
            lines.append(_pool_line("", settings, pools.full_tokens, *_split(stage, settings, pools)))
    lines.append(
        f"max_total_num_tokens={pools.max_total_num_tokens}, "
        f"chunked_prefill_size={settings.chunked_prefill_size}, "
        f"max_prefill_tokens={MAX_PREFILL_TOKENS}, "
        f"max_running_requests={pools.max_running_requests}, context_len={settings.context_length}"
    )
    return tuple(lines)


def _gb(num_bytes: float) -> str:
    return f"{num_bytes / GIB:.2f}"


def _split(stage: Stage, settings: Settings, pools: Pools) -> tuple[int, int]:
    rows = pools.full_tokens + settings.page_size
    keys = stage.cells.full_key_bytes * rows
    return keys, stage.cells.full_bytes * rows - keys


def _pool_line(name: str, settings: Settings, tokens: int, key_bytes: int, value_bytes: int) -> str:
    dtype = TORCH_NAMES[settings.kv_dtype]
    head = f"{name}KV Cache is allocated. dtype: {dtype}, #tokens: {tokens}, "
    if not value_bytes:
        return f"{head}KV size: {_gb(key_bytes)} GB"
    return f"{head}K size: {_gb(key_bytes)} GB, V size: {_gb(value_bytes)} GB"


def _state_lines(stage: Stage, pools: Pools) -> list[str]:
    if not pools.mamba_slots:
        return []
    slots = pools.mamba_slots + 1
    return [
        f"Mamba Cache is allocated. max_mamba_cache_size: {pools.mamba_slots}, "
        f"conv_state size: {_gb(stage.cells.conv_bytes * slots)}GB, "
        f"ssm_state size: {_gb(stage.cells.ssm_bytes * slots)}GB "
    ]


def _window_lines(stage: Stage, settings: Settings, pools: Pools) -> list[str]:
    cells, page = stage.cells, settings.page_size
    full, window = pools.full_tokens, pools.window_tokens
    keys = cells.window_key_bytes * (window + page)
    split = f"Use sliding window memory pool. full_layer_tokens={full}, swa_layer_tokens={window}"
    return [
        *(() if caps_by_requests(settings) else (split,)),
        _pool_line("Full ", settings, full, *_split(stage, settings, pools)),
        _pool_line("SWA ", settings, window, keys, cells.window_bytes * (window + page) - keys),
    ]


def _compressed_lines(stage: Stage, settings: Settings, pools: Pools) -> list[str]:
    layout = stage.compressed
    if layout is None:
        return []
    full = pools.full_tokens
    fixed = request_state_bytes(layout, settings, pools.max_running_requests)
    return [
        f"DSV4 memory calculation: bytes_per_full_token={full_token_bytes(layout, settings):.2f}, "
        f"available_bytes={_gb(pools.budget_bytes)} GB, c128_state_fixed={_gb(fixed)} GB, full_token={full}",
        f"DSV4 pool sizes: full={full}, swa={window_tokens(settings, full)}, c4={full // 4}, "
        f"c128={full // 128}",
    ]
