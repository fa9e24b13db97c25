"""Shapes derived from layers and engine layouts, against what the plans say: no torch needed.

The two sides share no arithmetic: plans multiply row bytes, layouts multiply the typed shapes.
"""

import pytest
from cache_kinds import FORMATS, FULL, KINDS, bundled, model_of, planned

from kvplan.errors import CannotTell, UnknownFormat
from kvplan.verify.cache_layout import layout_of, scaled_down
from kvplan.verify.storage import rows


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("engine", "kv"), [(name, kv) for name, kvs in FORMATS.items() for kv in kvs])
def test_every_kind_in_every_format_takes_what_is_planned(kind, engine, kv):
    try:
        result = planned(model_of(KINDS[kind]), engine, kv)
    except UnknownFormat:
        # vLLM's MLA has no plain NVFP4.
        assert (engine, kv) == ("vllm", "nvfp4")
        return
    if result.cache.total.basis == "assumed" or (engine, kind) == ("vllm", "compressed"):
        with pytest.raises(CannotTell):
            layout_of(result)
        return
    try:
        layout = layout_of(result)
    except CannotTell as refusal:
        # vLLM's MLA has no rows with scales per token and head.
        assert (engine, "latent" in kind) == ("vllm", True), refusal.message
        return
    assert layout.num_bytes == result.cache.total.expected
    for group in layout.groups:
        assert group.planned_bytes in (None, group.num_bytes)


@pytest.mark.parametrize("engine", FORMATS)
def test_bundled_models_take_what_is_planned(engine):
    checked = 0
    for model in bundled():
        for tokens, sequences in ((1, 1), (4097, 3)):
            result = planned(model, engine, "auto", tokens, sequences)
            if result.cache.total.basis == "assumed" or not result.cache.total.expected:
                continue
            kinds = {group.kind for group in result.cache.groups}
            if engine == "vllm" and "compressed_attention" in kinds:
                continue
            assert layout_of(result).num_bytes == result.cache.total.expected, model.name
            checked += 1
    assert checked > 40


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
