"""Shapes derived from layers and engine layouts, against what the plans say: no torch needed.

The two sides share no arithmetic: plans multiply row bytes, layouts multiply the typed shapes.
"""

from dataclasses import replace

import pytest
from cache_kinds import FORMATS, FULL, KINDS, bundled, model_of, planned

from kvplan.errors import CannotTell, UnknownFormat
from kvplan.hardware.catalog import device_named
from kvplan.layers import KIND_NAMES, RECURRENT_STATES
from kvplan.sources import open_model
from kvplan.verify.cache_layout import layout_of, scaled_down
from kvplan.verify.storage import rows

STATE_KINDS = {KIND_NAMES[kind] for kind in RECURRENT_STATES}
# What an engine itself does not take, or keeps in no known shape.
NOT_KNOWN = {
    ("vllm", "compressed"), ("sglang", "compressed"), ("vllm", "latent"), ("vllm", "sparse latent"),
    ("sglang", "indexed"), ("sglang", "sparse latent"),
}  # fmt: skip


def agrees(layout, result):
    """The cache as laid out is the plan's, and so is every part that the plan prices by itself."""
    assert layout.cache_bytes == result.cache.total.expected, result.model.name
    for group in layout.groups:
        assert group.planned_bytes in (None, group.num_bytes), (result.model.name, group.name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("engine", "kv"), [(name, kv) for name, kvs in FORMATS.items() for kv in kvs])
def test_every_kind_in_every_format_takes_what_is_planned(kind, engine, kv):
    try:
        result = planned(model_of(KINDS[kind]), engine, kv)
    except (UnknownFormat, CannotTell):
        # vLLM's MLA has no plain NVFP4, SGLang's sparse rows are bf16 or fp8, 4 bits beside index keys
        # are in one of two pools.
        assert (engine, kind) in NOT_KNOWN or (engine, kv) == ("vllm", "nvfp4")
        return
    if result.cache.total.basis == "assumed":
        with pytest.raises(CannotTell):
            layout_of(result)
        return
    try:
        layout = layout_of(result)
    except CannotTell as refusal:
        if engine == "lmdeploy" and KINDS[kind].__class__ in RECURRENT_STATES:
            # Only Gated DeltaNet's slots were read.
            assert kind != "gated delta"
            return
        if engine == "tensorrt-llm" and KINDS[kind].__class__ in RECURRENT_STATES:
            # Their type differs by version.
            return
        # Latents with scales a token, compressed layers beside others, 4-bit rows beside index keys.
        assert (engine, kind) in NOT_KNOWN, refusal.message
        return
    agrees(layout, result)


@pytest.mark.parametrize("engine", FORMATS)
def test_bundled_models_take_what_is_planned(engine):
    checked = 0
    for model in bundled():
        for tokens, sequences in ((1, 1), (4097, 3)):
            try:
                result = planned(model, engine, "auto", tokens, sequences)
            except UnknownFormat:
                # Weights that this engine does not load.
                assert engine in ("tgi", "lmdeploy")
                continue
            if result.cache.total.basis == "assumed" or not result.cache.total.expected:
                continue
            kinds = {group.kind for group in result.cache.groups}
            if engine == "lmdeploy" and kinds & STATE_KINDS - {"gated_delta_net"}:
                continue
            if engine == "tensorrt-llm" and kinds & STATE_KINDS:
                continue
            agrees(layout_of(result), result)
            checked += 1
    # TGI serves fewest of them with rows that are known.
    assert checked > (15 if engine == "tgi" else 40)


@pytest.mark.parametrize("engine", ["sglang", "vllm"])
@pytest.mark.parametrize("name", ["deepseek-v4-flash", "deepseek-v4-pro"])
@pytest.mark.parametrize(("tokens", "sequences"), [(1, 1), (4097, 3), (131072, 2)])
def test_deepseek_v4s_packed_rows_take_what_is_planned(engine, name, tokens, sequences):
    result = planned(open_model(name), engine, "auto", tokens, sequences)
    agrees(layout_of(result), result)


@pytest.mark.parametrize(
    ("name", "method"),
    [("deepseek-v3", "mtp"), ("deepseek-v4-flash", "mtp"), ("glm-4.5", "mtp"), ("llama-3-8b", "eagle3"),
     ("qwen3.5-27b", "mtp"), ("gemma-3-4b", "eagle3"), ("jamba-v0.1", "eagle3"), ("gpt-oss-20b", "ngram")],
)  # fmt: skip
def test_layers_that_draft_under_vllm_are_laid_out(name, method):
    options = [("speculative_config", {"method": method, "num_speculative_tokens": 3})]
    model = open_model(name)
    alone = planned(model, "vllm", "auto", 4097, 3)
    result = planned(model, "vllm", "auto", 4097, 3, options)
    agrees(layout_of(result), result)
    # More layers, or a column of every state for each drafted token; n-grams keep nothing.
    assert (layout_of(result) == layout_of(alone)) == (method == "ngram")


@pytest.mark.parametrize(
    ("name", "more"),
    [("deepseek-v3", ()), ("deepseek-v3.2", ()), ("glm-4.5-air", ()),
     ("llama-3-8b", (("speculative_draft_model_path", "some/draft"),)),
     ("gpt-oss-20b", (("speculative_draft_model_path", "some/draft"),))],
)  # fmt: skip
def test_layers_that_draft_under_sglang_are_laid_out(name, more):
    result = planned(open_model(name), "sglang", "auto", 4097, 3, (("speculative_algorithm", "EAGLE"), *more))
    layout = layout_of(result)
    agrees(layout, result)
    assert "draft_layers" in {group.name for group in layout.groups}


@pytest.mark.parametrize("name", ["gpt-oss-20b", "gemma-4-e4b"])
def test_sglangs_window_pools_have_slots_of_their_own(name):
    result = planned(open_model(name), "sglang", "auto", 8192, 2)
    layout = layout_of(result)
    agrees(layout, result)
    windows = [group for group in layout.groups if "window pool" in group.detail]
    full = [group for group in layout.groups if "slots" in group.detail and group not in windows]
    assert windows
    assert int(full[0].detail.split()[0].replace(",", "")) == 16384
    assert {group.detail.split()[0] for group in windows} == {f"{int(16384 * 0.8):,}"}


def test_sglang_allocates_more_than_the_cache_and_the_plan_counts_it_elsewhere():
    device = device_named("h100")
    result = planned(open_model("qwen3.5-4b"), "sglang", "auto", 8192, 2, devices=[device])
    beside = {group.name: group for group in layout_of(result).groups if group.beside}
    assert set(beside) == {"padding_pages", "spare_state", "req_to_token"}
    for group in beside.values():
        assert group.num_bytes == group.planned_bytes
    options = dict(result.engine_options)
    requests = options["max_running_requests"]
    # memory_pool.py: a row more than requests, four columns more than the context, int32.
    assert beside["req_to_token"].num_bytes == (requests + 1) * (8192 + 4) * 4
    without = layout_of(planned(open_model("qwen3.5-4b"), "sglang", "auto", 8192, 2))
    assert {group.name for group in without.groups if group.beside} == {"padding_pages", "spare_state"}
    part = scaled_down(without, without.cache_bytes // 2)
    assert not any(group.beside for group in part.groups)
    assert part.beside_left_out == ("padding_pages", "spare_state")
    assert scaled_down(without, without.num_bytes).beside_left_out == ()
    assert scaled_down(without, without.cache_bytes).num_layers_left_out == 0


def test_sglangs_padding_is_one_page_of_every_layer():
    """MHATokenToKVPool makes ``size + page_size`` rows: 32 layers of 8 heads of 128, keys and values."""
    layout = layout_of(planned(open_model("llama-3-8b"), "sglang", "auto", 100, 1))
    sizes = {group.name: group.num_bytes for group in layout.groups}
    assert sizes == {"full_attention": 32 * 100 * 8 * 128 * 2 * 2, "padding_pages": 32 * 8 * 128 * 2 * 2}


@pytest.mark.parametrize("kv", ["auto", "fp8", "int8", "int4", "turbo_quant"])
@pytest.mark.parametrize(
    "name", ["llama-3-8b", "deepseek-v3", "deepseek-v3.2", "qwen3-next-80b-a3b", "gemma-2-9b"]
)
def test_lmdeploys_pytorch_blocks_are_aligned(kv, name):
    result = planned(open_model(name), "lmdeploy", kv, 1000, 3, [("backend", "pytorch")])
    if result.cache.total.basis == "assumed" or (name, kv) == ("deepseek-v3.2", "fp8"):
        with pytest.raises(CannotTell):
            layout_of(result)
        return
    agrees(layout_of(result), result)


def test_lmdeploys_turbomind_refuses_what_it_does_not_keep():
    result = planned(open_model("llama-3-8b"), "lmdeploy", "fp8", 1000, 3)
    with pytest.raises(CannotTell, match="keeps no such cache"):
        layout_of(result)


def test_tgi_keeps_a_block_for_health_checks():
    layout = layout_of(planned(open_model("llama-3-8b"), "tgi", "auto", 1000, 3))
    # The last token of a request is never stored.
    assert layout.groups[0].tensors[0].shape == (3 * 999 + 1, 1, 8, 128)


def test_tensorrt_llms_blocks_hold_thirty_two_tokens():
    layout = layout_of(planned(open_model("llama-3-8b"), "tensorrt-llm", "fp8", 33, 3))
    assert layout.groups[0].tensors[0].shape == (6, 2, 8, 32, 128)
    assert layout.num_bytes == 6 * 32 * 8 * 128 * 2 * 32


@pytest.mark.parametrize("engine", ["mlx", "exllamav3"])
def test_an_engine_without_a_layout_says_so(engine):
    """Whatever engines join later: exit 3 with what is known, never a traceback."""
    result = replace(planned(model_of(FULL), "ideal", "fp16"), engine_name=engine)
    with pytest.raises(CannotTell, match=f"how {engine} lays out its cache is not written down"):
        layout_of(result)


def test_a_windowed_model_pools_windows_and_full_layers():
    layout = layout_of(planned(model_of(KINDS["sliding"]), "vllm", "auto", 8192, 1))
    assert {group.name for group in layout.groups} == {"full_attention", "sliding_window"}
    assert all("blocks of 16 tokens" in group.detail for group in layout.groups)


def test_scaling_down_keeps_a_layer_of_each_kind():
    layout = layout_of(planned(model_of(KINDS["mamba2"], 30), "ideal", "bf16", 8192, 1))
    part = scaled_down(layout, layout.num_bytes // 4)
    assert part.num_bytes <= layout.num_bytes // 4
    assert [group.num_layers >= 1 for group in part.groups] == [True, True]
    assert part.num_layers + part.num_layers_left_out == layout.num_layers
    for group in part.groups:
        assert group.planned_bytes == group.num_bytes


def test_scaling_below_one_layer_is_refused():
    layout = layout_of(planned(model_of(FULL), "ideal", "bf16"))
    with pytest.raises(CannotTell, match="one layer of each kind"):
        scaled_down(layout, 1000)


@pytest.mark.parametrize(
    ("name", "width", "num_bytes"),
    [("q8_0", 32, 34), ("q8_0", 33, 68), ("q5_1", 64, 48), ("q5_0", 32, 22), ("q4_1", 32, 20),
     ("q4_0", 32, 18), ("nvfp4", 64, 36), ("int8", 128, 132), ("int4", 128, 68),
     ("indexer", 128, 132), ("mxfp8", 32, 33)],
)  # fmt: skip
def test_blocks_have_the_sizes_of_their_definitions(name, width, num_bytes):
    # ggml-common.h, OCP MX and DeepSeek's indexer state these sizes.
    assert sum(tensor.num_bytes for tensor in rows("row", name, (1,), width)) == num_bytes


def test_an_unknown_format_is_refused():
    with pytest.raises(CannotTell, match="not known here"):
        rows("row", "fp3", (1,), 64)


@pytest.mark.parametrize("num_on_card", [0, 2, 99])
def test_quantized_rows_are_padded_on_cards_only(num_on_card):
    options = (("n_gpu_layers", num_on_card),)
    model, card = model_of(KINDS["full"]), device_named("rtx-4090")
    result = planned(model, "llama.cpp", "q8_0", options=options, devices=(card,))
    # 2 of 5 places are the last layer's and the output's.
    padded = sum(group.num_layers for group in layout_of(result).groups if "padding" in str(group.tensors))
    assert padded == {0: 0, 2: 1, 99: 4}[num_on_card]
    agrees(layout_of(result), result)
