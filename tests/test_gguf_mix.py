"""GGUF sizes equal the quantizer's, byte for byte, for every mix and model of the table."""

import pytest
from oracle_tables import oracle

from kvplan.gguf_mix import imatrix_difference, least_mix_bytes, mix_bytes, num_stored_elements
from kvplan.sources import open_model
from kvplan.sources.config_model import model_from_config

ROWS = oracle("gguf_mixes.jsonl")


@pytest.mark.parametrize("row", ROWS, ids=[row["model"] for row in ROWS])
def test_every_mix_is_exact(row):
    model = model_from_config(row["config"], name=row["model"], source="test")
    assert num_stored_elements(model) == row["num_elements"]
    assert {mix: mix_bytes(model, mix).total_bytes for mix in row["bytes"]} == row["bytes"]


@pytest.mark.parametrize("row", ROWS, ids=[row["model"] for row in ROWS])
def test_the_parts_add_up(row):
    model = model_from_config(row["config"], name=row["model"], source="test")
    file = mix_bytes(model, "q4_k_m")
    outside = file.embedding_bytes + file.output_bytes + file.output_norm_bytes
    assert outside + file.input_bytes + file.shared_bytes + sum(file.layer_bytes) == file.total_bytes
    assert all(
        0 <= experts <= layer for experts, layer in zip(file.expert_bytes, file.layer_bytes, strict=True)
    )


@pytest.mark.parametrize("row", ROWS, ids=[row["model"] for row in ROWS])
def test_no_file_is_smaller_than_the_bound(row):
    model = model_from_config(row["config"], name=row["model"], source="test")
    for mix, num_bytes in row["bytes"].items():
        assert num_bytes // 4 < least_mix_bytes(model, mix) <= num_bytes


def test_an_importance_matrix_changes_the_first_down_projections():
    """Of 32 layers the first 4, 4,096 x 14,336 each, in blocks of src/llama-quant.cpp's types."""
    model = open_model("llama-3.1-8b")
    elements = 4 * 4096 * 14_336
    # Q5_K (176 bytes for 256) stays IQ4_XS (136); Q4_0 (18 for 32) becomes Q4_1 (20), Q5_0 (22) Q5_1 (24).
    assert imatrix_difference(model, "iq4_xs") == -elements // 256 * (176 - 136)
    assert imatrix_difference(model, "q4_0") == elements // 32 * 2
    assert imatrix_difference(model, "q5_0") == elements // 32 * 2
    assert imatrix_difference(model, "iq3_xxs") < 0
    for unchanged in ("q4_k_m", "q5_k_m", "iq3_m", "q8_0"):
        assert imatrix_difference(model, unchanged) == 0
