"""SGLang's pools, default share and start-up lines equal those of its own code."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle_tables import oracle
from sglang_cases import device_of, differences, pools_of, spec_of, stage_of

from kvplan.engines.sglang.pools import Pools, Refused, size_pools
from kvplan.engines.sglang.settings import settings_of
from kvplan.engines.sglang.stages import pipeline_sizes
from kvplan.engines.sglang.words import startup_lines
from kvplan.errors import InvalidValue, UnknownFormat
from kvplan.workload import Workload

POOLS = oracle("sglang_pools.jsonl")
MODELS = oracle("sglang_models.jsonl")
SHARES = oracle("sglang_mem_fraction.jsonl")
H100 = {"name": "H100", "mib": 81559, "cap": [9, 0]}


def named(rows):
    return [pytest.param(row, id=f"{row['id']}-{row['model']}") for row in rows]


@pytest.mark.parametrize("row", named([*POOLS, *MODELS]))
def test_the_pools_equal_sglang(row):
    assert differences(row) == {}


@pytest.mark.parametrize("row", named(SHARES))
def test_the_default_share_equals_sglang(row):
    assert differences(row) == {}


@pytest.mark.parametrize("row", named(POOLS))
def test_the_start_up_lines_are_the_ones_it_printed(row):
    settings, stage = stage_of(row)
    lines = startup_lines(stage, settings, pools_of(row, settings, stage))
    if "error" in row["result"]:
        assert lines == (row["result"]["error"].partition(": ")[2],)
        return
    printed = [line.strip() for line in row["result"]["engine_log"]]
    sizes = [line.strip() for line in lines[:-1] if not line.startswith("DSV4")]
    # MiniMax-M3 prints its index pool by itself; here the two are one line.
    if not any(group.index_head_dim for group in full_attention(spec_of(row))):
        assert [line for line in sizes if line not in printed] == []
    for line in lines:
        if line.startswith("DSV4 pool sizes"):
            assert any(text.startswith(line) for text in printed)
    result = row["result"]
    assert lines[-1].startswith(
        f"max_total_num_tokens={result['max_total_num_tokens']}, "
        f"chunked_prefill_size={result['chunked_prefill_size']}, "
    )
    assert f"max_running_requests={result['max_running_requests']}, " in lines[-1]


def full_attention(model):
    caches = [cache for group in model.layers for cache in group.layer.caches]
    return [cache for cache in caches if type(cache).__name__ == "FullAttention"]


SIZED = [row for row in POOLS if "error" not in row["result"]]


@given(row=st.sampled_from(SIZED), extra=st.floats(0, 40))
def test_more_free_memory_never_holds_fewer_tokens(row, extra):
    settings, stage = stage_of(row)
    now = pools_of(row, settings, stage)
    more = pools_of({**row, "avail_after_load_gb": row["avail_after_load_gb"] + extra}, settings, stage)
    assert isinstance(more, Pools)
    assert more.mamba_slots >= now.mamba_slots
    # States take their share first: one slot more may cost tokens, never more than it takes itself.
    slot_bytes = more.state_bytes // (more.mamba_slots + 1) if more.mamba_slots > now.mamba_slots else 0
    lost = now.max_total_num_tokens - more.max_total_num_tokens
    assert lost * stage.cells.full_bytes <= slot_bytes


@given(row=st.sampled_from(SIZED), free=st.floats(0.01, 100))
def test_pools_never_exceed_what_was_free_by_more_than_their_padding(row, free):
    settings, stage = stage_of(row)
    pools = pools_of({**row, "avail_after_load_gb": free}, settings, stage)
    if isinstance(pools, Refused):
        assert pools.message
        return
    padding = 2 * settings.page_size * (stage.cells.full_bytes + stage.cells.window_bytes) + 8 * 1024
    if stage.compressed is None:
        taken = pools.pool_bytes + pools.draft_bytes
        assert taken <= pools.budget_bytes + padding
    assert pools.budget_bytes <= free * 2**30


@pytest.mark.parametrize(
    "name", ["meta-llama/Llama-3.1-8B-Instruct", "deepseek-ai/DeepSeek-V3", "openai/gpt-oss-20b"]
)
def test_fp8_rows_are_never_larger_than_bf16_rows(name):
    row = {"model": name, "gpu": H100, "result": {}}
    sizes = {}
    for kv in ("bf16", "fp8_e4m3"):
        _, stage = stage_of({**row, "server_args": {"kv_cache_dtype": kv}})
        sizes[kv] = stage.cells.full_bytes + stage.cells.window_bytes
    assert 0 < sizes["fp8_e4m3"] < sizes["bf16"]


def test_latent_rows_are_replicated_over_ranks_and_heads_are_not():
    for name, ratio in (("deepseek-ai/DeepSeek-V3", 1), ("meta-llama/Llama-3.1-8B-Instruct", 8)):
        one = stage_of({"model": name, "gpu": H100, "server_args": {}})[1].cells.full_bytes
        eight = stage_of({"model": name, "gpu": H100, "server_args": {"tp_size": 8}})[1].cells.full_bytes
        assert one == ratio * eight


def test_layers_that_do_not_divide_go_to_the_last_stages():
    assert pipeline_sizes(61, 4) == (15, 15, 15, 16)
    assert sum(pipeline_sizes(93, 8)) == 93


def test_data_parallel_attention_keeps_whole_heads_and_replicates_attention_weights():
    row = {"model": "meta-llama/Llama-3.3-70B-Instruct", "gpu": H100}
    split = stage_of({**row, "server_args": {"tp_size": 4}})
    whole = stage_of({**row, "server_args": {"tp_size": 4, "dp_size": 4, "enable_dp_attention": True}})
    assert whole[1].cells.full_bytes == 4 * split[1].cells.full_bytes
    assert whole[1].weight_bytes > split[1].weight_bytes
    assert whole[0].chunked_prefill_size == split[0].chunked_prefill_size // 4


def test_a_draft_head_adds_its_layers_and_the_states_of_its_tokens():
    row = next(row for row in POOLS if row["server_args"].get("speculative_algorithm"))
    _, stage = stage_of(row)
    assert stage.cells.draft_full_bytes > 0
    states = {"model": "Qwen/Qwen3-Next-80B-A3B-Instruct", "gpu": H100}
    speculative = {"speculative_algorithm": "EAGLE", "speculative_num_steps": 3, "speculative_eagle_topk": 1}
    settings, stage = stage_of({**states, "server_args": {"tp_size": 4, **speculative}})
    pools = size_pools(stage.cells, settings, 78.2, 40.0, stage.state_bytes)
    assert isinstance(pools, Pools)
    assert pools.intermediate_bytes % stage.state_bytes == 0
    assert pools.max_running_requests <= 48


def test_max_total_tokens_only_lowers():
    row = {"model": "Qwen/Qwen3-8B", "gpu": H100}
    settings, stage = stage_of({**row, "server_args": {}})
    free = size_pools(stage.cells, settings, 78.0, 60.0)
    for asked, expected in ((10_000, 10_000), (10**9, free.max_total_num_tokens)):
        limited = replace(settings, max_total_tokens=asked)
        assert size_pools(stage.cells, limited, 78.0, 60.0).max_total_num_tokens == expected


def test_bad_settings_say_what_is_wrong():
    model = spec_of({"model": "Qwen/Qwen3-8B"})
    gpu = device_of(H100)
    with pytest.raises(UnknownFormat, match="no KV cache format 'int8'"):
        settings_of(model, Workload(kv_cache_dtype_k="int8", kv_cache_dtype_v="int8"), gpu, 1, 1)
    with pytest.raises(UnknownFormat, match="one format"):
        settings_of(model, Workload(kv_cache_dtype_k="bf16", kv_cache_dtype_v="fp8"), gpu, 1, 1)
    with pytest.raises(InvalidValue, match="not a share"):
        settings_of(model, Workload(engine_options=(("mem_fraction_static", 1.5),)), gpu, 1, 1)
