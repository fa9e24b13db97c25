"""Small configs of each class, changed key by key, count what the real class counts."""

import copy

import pytest
from oracle_tables import oracle

from kvplan.layers import (
    ChunkedAttention,
    CrossAttention,
    FullAttention,
    LatentAttention,
    SharedCache,
    SlidingWindow,
    expand,
)
from kvplan.model import num_parameters
from kvplan.sources.config_model import model_from_config

TABLE = oracle("classes.jsonl")


def changed(config, path, value):
    config = copy.deepcopy(config)
    part = config
    *parents, key = path.split(".")
    for parent in parents:
        part = part[parent]
    if value is None:
        del part[key]
    else:
        part[key] = value
    return config


def window(cache):
    match cache:
        case SlidingWindow():
            return cache.sliding_window
        case ChunkedAttention():
            return cache.attention_chunk_size
    assert isinstance(cache, FullAttention | LatentAttention)
    return 0


def windows_of(structure):
    own = [
        [cache for cache in layer.caches if not isinstance(cache, CrossAttention)]
        for layer in expand(structure.layers)
    ]
    return [window(cache) for (cache,) in own if not isinstance(cache, SharedCache)]


@pytest.mark.parametrize("row", TABLE, ids=[row["model_class"] for row in TABLE])
def test_parameters_and_windows_equal_the_class(row):
    for path, value, total, windows in row["rows"]:
        config = changed(row["config"], path, value) if path else row["config"]
        structure = model_from_config(config, name=row["model_class"], source="test").structure
        assert num_parameters(structure) == total, (path, value)
        if windows is not None:
            assert windows_of(structure) == windows, (path, value)


# Classes that transformers does not have, by the totals that the Hub shows for their checkpoints.
PUBLISHED = [
    (
        8_021_025_280,
        {
            "model_type": "molmo",
            "hidden_size": 3584,
            "intermediate_size": 37888,
            "num_attention_heads": 28,
            "num_hidden_layers": 28,
            "num_key_value_heads": 4,
            "qkv_bias": True,
            "embedding_size": 152064,
            "vocab_size": 152064,
        },
    ),
    (
        4_146_621_440,
        {
            "model_type": "phi3_v",
            "hidden_size": 3072,
            "intermediate_size": 8192,
            "num_attention_heads": 32,
            "num_hidden_layers": 32,
            "num_key_value_heads": 32,
            "vocab_size": 32064,
            "embd_layer": {"use_hd_transform": True, "with_learnable_separator": True},
            "img_processor": {"image_dim_out": 1024, "name": "clip_vision_model"},
        },
    ),
    (
        8_099_175_152,
        {
            "model_type": "minicpmv",
            "version": 2.6,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_attention_heads": 28,
            "num_hidden_layers": 28,
            "num_key_value_heads": 4,
            "vocab_size": 151666,
            "query_num": 64,
            "vision_config": {
                "hidden_size": 1152,
                "image_size": 980,
                "intermediate_size": 4304,
                "num_hidden_layers": 27,
                "patch_size": 14,
            },
        },
    ),
]


@pytest.mark.parametrize(("total", "config"), PUBLISHED, ids=[row[1]["model_type"] for row in PUBLISHED])
def test_parameters_equal_the_published_checkpoint(total, config):
    structure = model_from_config(config, name="published", source="test").structure
    assert num_parameters(structure) == total
