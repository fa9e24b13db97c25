"""Patterns of quantization configs: layers said to be alike are alike for every tensor."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvplan.module_patterns import ModulePatterns

PIECES = (
    "lm_head", "model.layers.{}.mlp", "model.layers.{}*", "model.layers.{}.self_attn*", "layers.{}.mlp.gate",
    "re:.*mlp.*", "re:.*layers\\.{}\\..*", "re:.*layers\\.[0-{}]\\..*", "re:.*\\.{}\\.mlp", "*gate*", "{}",
    "model.layers.*.self_attn", "layers.?.mlp*", "mtp.layers.{}.mlp", "layers", "re:.*layers\\..\\.mlp.*",
    "self_attn.{}",
)  # fmt: skip
TENSORS = (
    "self_attn.q_proj.weight",
    "mlp.gate.weight",
    "mlp.experts.down_proj.weight",
    "input_layernorm.weight",
)
LAYERS = st.integers(0, 24)
PATTERNS = st.lists(st.tuples(st.sampled_from(PIECES), st.integers(0, 12)), min_size=1, max_size=6)


@given(PATTERNS, LAYERS, LAYERS)
def test_layers_of_one_meaning_match_alike(pieces, one, other):
    patterns = ModulePatterns(tuple(piece.format(number) for piece, number in pieces))
    if patterns.meaning(one) == patterns.meaning(other):
        for tensor in TENSORS:
            assert patterns.match(tensor, one) == patterns.match(tensor, other)


def test_layers_that_are_named_alike_share_a_meaning():
    named = tuple(f"model.layers.{layer}.self_attn*" for layer in range(60))
    patterns = ModulePatterns(("lm_head", *named, "model.layers.0.mlp"))
    assert len({patterns.meaning(layer) for layer in range(61)}) == 3


@pytest.mark.parametrize(
    ("pattern", "layers"),
    [
        ("model.layers.1*", {1, *range(10, 20)}),
        ("model.layers.1.*", {1}),
        ("re:.*layers\\.[12]\\..*", {1, 2}),
    ],
)
def test_a_pattern_means_its_layers(pattern, layers):
    patterns = ModulePatterns((pattern,))
    assert {layer for layer in range(25) if patterns.match("mlp.gate.weight", layer)} == layers
