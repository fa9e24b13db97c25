"""What a config file may leave out because its class says it: defaults of transformers' classes.

The table is generated from transformers 5.23.0 (``tests/calibration/make_class_defaults.py``) and
holds only keys that decide what a model stores or caches. A key that the file sets to null stays
null: there null has a meaning of its own (Mistral's ``sliding_window: null`` is no window, while
the class's own default is 4,096).

A top-level file always states its sizes, so they are never filled in: a file without
``hidden_size`` is a broken file. Nested configs (``text_config``) are saved as differences from the
class, so there every key may be missing.
"""

from kvplan.config import ALIASES, Config
from kvplan.families._class_defaults import CLASS_DEFAULTS

SIZES = frozenset(
    spelling
    for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")
    for spelling in ALIASES[key]
) - {"n_inner"}


def with_class_defaults(config: Config, model_type: str) -> Config:
    """Return the config with its class's defaults behind what the file says.

    A model type without a class in transformers is returned as it is, and so is a file that nests
    its text model, whose outer keys belong to another class.
    """
    defaults = CLASS_DEFAULTS.get(model_type)
    if defaults is None or config.has("text_config"):
        return config
    omitted = frozenset() if config.path else SIZES
    return config.behind({key: value for key, value in defaults.items() if key not in omitted})
