"""Compare kvplan's families with the classes of an installed transformers, and sample what was measured.

Run with a Python that has torch and transformers (5.23 made the table in use):

    PYTHONPATH=. python tests/calibration/compare_classes.py [MODEL_TYPE ...] [--write]

Each class's default config is cut to six layers and changed in one key at a time: doubled, halved,
flipped, removed, lists turned round. Every version that the class accepts is built on the meta device
and its parameters counted; transformers' own DynamicCache says which layers keep a window. What
differs from kvplan's answer is printed. --write puts a sample into tests/oracles/classes.jsonl: for
each class its config and, for some changes, [key path, value, parameters, windows]; with model types
named, only their rows are replaced.
"""

import argparse
import copy
import json
import logging
import random
from pathlib import Path

import torch
import transformers
from transformers.cache_utils import DynamicCache
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from kvplan.errors import KvplanError
from kvplan.families.registry import FAMILIES
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

TARGET = Path(__file__).resolve().parents[1] / "oracles" / "classes.jsonl"
TASKS = """
CAUSAL_LM IMAGE_TEXT_TO_TEXT MULTIMODAL_LM SEQ_TO_SEQ_CAUSAL_LM SPEECH_SEQ_2_SEQ AUDIO_TEXT_TO_TEXT
MASKED_LM
"""
NUM_LAYERS = 6
SAMPLED = 6
# Keys that size nothing.
IDLE = [
    "model_type",
    "architectures",
    "transformers_version",
    "dtype",
    "torch_dtype",
    "_name_or_path",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "id2label",
    "label2id",
    "initializer_range",
    "rms_norm_eps",
    "layer_norm_eps",
    "use_cache",
    "attention_dropout",
    "hidden_act",
    "hidden_activation",
    "is_encoder_decoder",
    "return_dict",
    "output_attentions",
    "output_hidden_states",
    "problem_type",
    "chunk_size_feed_forward",
    "is_decoder",
    "decoder_start_token_id",
    "is_gated_act",
]


def class_of(model_type):
    """Return the first class that users load for a model type, or None."""
    for task in TASKS.split():
        names = getattr(modeling_auto, f"MODEL_FOR_{task}_MAPPING_NAMES", {}).get(model_type)
        if names:
            return names if isinstance(names, str) else names[0]
    return None


def cut(config):
    """Return the config with at most six layers, lists of layers cut to match."""
    config = copy.deepcopy(config)

    def walk(part):
        key = next((k for k in ("num_hidden_layers", "n_layer", "num_layers") if part.get(k)), None)
        count = part.get(key) if key else None
        if isinstance(count, int) and count > NUM_LAYERS:
            for name, value in part.items():
                if name in ("num_hidden_layers", "n_layer", "num_layers", "max_window_layers"):
                    part[name] = min(value, NUM_LAYERS) if isinstance(value, int) else value
                elif isinstance(value, list) and len(value) >= count:
                    part[name] = value[:NUM_LAYERS] + value[count:]
            own = part.get("per_layer_config")
            if isinstance(own, dict):
                part["per_layer_config"] = {k: v for k, v in own.items() if int(k) < NUM_LAYERS}
        for value in part.values():
            if isinstance(value, dict):
                walk(value)

    walk(config)
    return config


def changes(config, path=()):
    """Yield (path, value), None standing for a removed key."""
    for key, value in config.items():
        if key in IDLE or key.startswith("_") or key.endswith("token_id"):
            continue
        here = (*path, key)
        if isinstance(value, dict):
            if key in ("text_config", "linear_attn_config", "encoder", "decoder"):
                yield from changes(value, here)
            continue
        yield here, None
        if isinstance(value, bool):
            yield here, not value
        elif isinstance(value, int) and value > 0:
            yield here, value * 2
            if value % 2 == 0:
                yield here, value // 2
        elif isinstance(value, list) and len(set(map(str, value))) > 1:
            yield here, value[::-1]


def changed(config, path, value):
    """Return the config with one key set, or removed where ``value`` is None."""
    config = copy.deepcopy(config)
    part = config
    for key in path[:-1]:
        part = part[key]
    if value is None:
        part.pop(path[-1])
    else:
        part[path[-1]] = value
    return config


def measured(model_type, name, config):
    """Return (parameters, windows) of the class, or None where it refuses the config.

    Windows are one number a layer, 0 for full attention; None where the cache is of another kind.
    """
    try:
        made = CONFIG_MAPPING[model_type].from_dict(copy.deepcopy(config))
        with torch.device("meta"):
            model = getattr(transformers, name)(made)
        model.tie_weights()
        total = sum(parameter.numel() for parameter in model.parameters())
    except Exception:
        return None
    try:
        layers = DynamicCache(config=made).layers
    except Exception:
        return total, None
    windows = []
    for layer in layers:
        kind = type(layer).__name__
        if kind not in ("DynamicLayer", "DynamicSlidingWindowLayer"):
            return total, None
        windows.append(layer.sliding_window if kind == "DynamicSlidingWindowLayer" else 0)
    return total, windows or None


def windows_of(structure):
    """Return what ``measured`` calls windows, from kvplan's layers; None for two stacks."""
    if structure.kind != "decoder":
        return None
    windows = []
    for layer in expand(structure.layers):
        own = [cache for cache in layer.caches if not isinstance(cache, CrossAttention)]
        match own:
            case [SharedCache()]:
                continue
            case [SlidingWindow() as cache]:
                windows.append(cache.sliding_window)
            case [ChunkedAttention() as cache]:
                windows.append(cache.attention_chunk_size)
            case [FullAttention() | LatentAttention()]:
                windows.append(0)
            case _:
                return None
    return windows


def planned(config):
    """Return (parameters, windows) by kvplan, or its error."""
    try:
        structure = model_from_config(config, name="compared", source="calibration").structure
    except KvplanError as error:
        return error
    return num_parameters(structure), windows_of(structure)


def compare(model_type, tally, at_most):
    """Compare one class; print what differs. Return its row for the table, or None."""
    name = class_of(model_type)
    if name is None:
        return None
    try:
        config = cut(json.loads(json.dumps(CONFIG_MAPPING[model_type]().to_dict(), default=str)))
    except Exception as error:
        print(f"{model_type}: no default config: {error!r:.80}")
        return None
    config = {key: value for key, value in config.items() if key not in ("id2label", "label2id")}
    config["architectures"] = [name]
    rows = []
    chosen = list(changes(config))
    random.seed(model_type)
    if at_most is not None and len(chosen) > at_most:
        chosen = random.sample(chosen, at_most)
    for path, value in [((), None), *chosen]:
        version = changed(config, path, value) if path else config
        there = measured(model_type, name, version)
        here = planned(version)
        if there is None:
            tally["the class refuses"] += 1
        elif isinstance(here, KvplanError):
            tally[f"kvplan refuses, exit {here.exit_code}"] += 1
        elif here[0] == there[0] and (None in (here[1], there[1]) or here[1] == there[1]):
            tally["equal"] += 1
            rows.append([".".join(path), value, there[0], there[1] if here[1] is not None else None])
        else:
            tally["different"] += 1
            print(f"{model_type} {'.'.join(path)}={value}: class {there}, kvplan {here}", flush=True)
    if not rows or rows[0][0]:
        return None
    sample = [rows[0], *random.sample(rows[1:], min(SAMPLED, len(rows) - 1))]
    return {"model_class": name, "config": config, "rows": sample}


def main():
    """Compare the classes that are named, or all that kvplan reads."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model_types", nargs="*")
    parser.add_argument("--changes", type=int, help="try this many changes a class, not all")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    tally = dict.fromkeys(
        ("equal", "different", "the class refuses", "kvplan refuses, exit 2", "kvplan refuses, exit 3"), 0
    )
    table = []
    for model_type in options.model_types or sorted(FAMILIES):
        if model_type in CONFIG_MAPPING:
            row = compare(model_type, tally, options.changes)
            table += [row] if row else []
    print(tally)
    if options.write:
        origin = (
            f"transformers {transformers.__version__}: classes built on the meta device from their default "
            "configs cut to six layers, changed in one key at a time: parameters, and each layer's window"
        )
        if options.model_types:
            made = {row["config"]["model_type"] for row in table}
            kept = [json.loads(line) for line in TARGET.read_text(encoding="utf-8").splitlines()[1:]]
            table += [row for row in kept if row["config"]["model_type"] not in made]
            table.sort(key=lambda row: row["config"]["model_type"])
        lines = [json.dumps({"origin": origin}), *(json.dumps(row, separators=(",", ":")) for row in table)]
        TARGET.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
