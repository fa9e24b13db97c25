"""Graphs whose layers repeat: lengthened from a shorter one they are what building them whole gives."""

import pytest

from kvplan.engines.ggml.allocator import Lifetimes
from kvplan.engines.ggml.repeating import lengthened, periods_needed
from kvplan.engines.llama_cpp.graph import outline, simulate
from kvplan.engines.llama_cpp.graph.parts import Batch
from kvplan.engines.llama_cpp.graph.repeats import runs_of
from kvplan.model import num_layers
from kvplan.sources import open_model


def outlined(name, mix, num_on_host, *, experts_only=False, flash_attn=True, num_cards=1, **options):
    """Return the outline of a model whose first layers, or their experts, lie in system memory."""
    model = open_model(name)
    layers = num_layers(model.structure)
    on_cards = [index * num_cards // layers for index in range(layers)]
    spilled = [num_cards if index < num_on_host else card for index, card in enumerate(on_cards)]
    placement = simulate.Placement(
        num_cards,
        tuple(on_cards if experts_only else spilled),
        tuple(spilled),
        on_cards[-1],
        has_overrides=experts_only,
        **options,
    )
    batch = Batch(512, 2, 2, 0, 0, 2, flash_attn, "q8_0", "f16", not flash_attn)
    shape, places = simulate._shortened(model, mix, placement, False, False)
    return outline.Outline(shape, places, batch, True, placement.op_offload, placement.is_pipeline)


CASES = [
    ("llama-3.1-8b", "q4_k_m", 17, {}),
    ("llama-3.1-8b", "q8_0", 16, {"op_offload": False}),
    ("qwen3-30b-a3b", "q4_k_m", 21, {"experts_only": True}),
    ("gpt-oss-120b", "mxfp4_moe", 18, {"experts_only": True}),
    ("gpt-oss-120b", "mxfp4_moe", 17, {"experts_only": True, "num_cards": 2}),
    ("gemma-3-27b", "iq4_xs", 30, {}),
    ("deepseek-v3", "q4_k_m", 30, {"experts_only": True}),
    ("qwen3-next-80b-a3b", "q4_k_m", 24, {"experts_only": True}),
    ("nemotron-3-nano-30b-a3b", "q8_0", 20, {}),
    ("falcon-h1-34b", "q4_k_m", 40, {"flash_attn": False}),
]


@pytest.mark.parametrize(("name", "mix", "num_on_host", "options"), CASES)
def test_more_layers_of_a_kind_do_what_those_before_them_do(name, mix, num_on_host, options):
    asked = outlined(name, mix, num_on_host, **options)
    whole = outline._built(asked).at(8192)
    assert outline.graph_of(asked).at(8192) == whole
    assert outline.graph_of(asked).ends().long.events == whole.events


def test_fewer_layers_are_built_than_the_graph_has():
    asked = outlined("qwen3-30b-a3b", "q4_k_m", 24, experts_only=True)
    graph = outline.graph_of(asked)
    assert isinstance(graph, outline.Lengthened)
    assert len(graph._shorter.at(4096).starts) == 2 * periods_needed(1) < len(graph.at(4096).starts)


def test_a_run_that_keeps_a_place_of_each_layer_is_not_lengthened():
    # Each of eight layers takes a place; the last gives all of them back.
    events = (*range(8), *range(8))
    kept = Lifetimes(events, (0,) * 8, (64,) * 8, tuple(range(8)), (None,) * 8)
    assert lengthened(kept, 0, 1, 3) is None
    given_back = Lifetimes(
        (0, 1, 0, 2, 1, 3, 2, 4, 3, 5, 4, 5), (0,) * 6, (64,) * 6, (0, 1, 3, 5, 7, 9), (None,) * 6
    )
    assert lengthened(given_back, 0, 1, 2) == Lifetimes(
        (0, 1, 0, 2, 1, 3, 2, 4, 3, 5, 4, 6, 5, 7, 6, 7),
        (0,) * 8,
        (64,) * 8,
        (0, 1, 3, 5, 7, 9, 11, 13),
        (None,) * 8,
    )


def test_runs_are_patterns_and_the_layers_between_them():
    runs = runs_of("xabababababy", lambda _: 2)
    assert [(run.start, run.period, run.repeats) for run in runs] == [(0, 1, 1), (1, 2, 5), (11, 1, 1)]
    assert [layer for run in runs for layer in run.layers_built] == [0, 1, 2, 9, 10, 11]
    paired = runs_of("aaaaaa", lambda _: 3, 2)
    assert [run.layers_built for run in paired] == [(0, 1, 2, 5)]
