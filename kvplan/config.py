"""A model's config, read through one object that knows how its keys are spelled.

The same fact has many names (``num_hidden_layers``, ``n_layer``, ``num_layers``): ``ALIASES``
lists them, first spelling first. A value is checked for type and range when it is read; a missing
one raises an error that names the key, the architecture and the file. There is no silent default:
where a class has a default that config files omit, the family passes it and says whose it is.
"""

from collections.abc import Mapping, Sequence
from typing import overload

from kvplan.errors import InvalidSpec, MissingFact

# Sources: the attribute maps of transformers 5.23 (models/*/configuration_*.py) and the
# trust_remote_code configurations of the families that transformers has no class for.
ALIASES: dict[str, tuple[str, ...]] = {
    "num_hidden_layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers"),
    "hidden_size": ("hidden_size", "n_embd", "d_model", "n_embed", "dim"),
    "num_attention_heads": (
        "num_attention_heads",
        "n_head",
        "n_heads",
        "num_heads",
        "decoder_attention_heads",
    ),
    "num_key_value_heads": ("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num"),
    "head_dim": ("head_dim", "kv_channels", "d_kv", "attention_head_dim"),
    "intermediate_size": ("intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim", "d_ff"),
    "vocab_size": ("vocab_size", "padded_vocab_size", "n_vocab"),
    "max_position_embeddings": (
        "max_position_embeddings",
        "n_positions",
        "max_sequence_length",
        "max_seq_len",
        "seq_length",
        "model_max_length",
        "n_ctx",
    ),
    "num_experts": (
        "num_experts",
        "num_local_experts",
        "n_routed_experts",
        "moe_num_experts",
    ),
    "num_experts_per_tok": (
        "num_experts_per_tok",
        "num_experts_per_token",
        "experts_per_token",
        "moe_topk",
        "moe_k",
        "top_k_experts",
    ),
    "sliding_window": ("sliding_window", "sliding_window_size", "attention_window_size", "window_size"),
}

# Every spelling with all the spellings of the same fact.
SPELLINGS = {spelling: spellings for spellings in ALIASES.values() for spelling in spellings}

MAX_COUNT = 2**40
MAX_LAYERS = 10_000


class Config:
    """One config (or one nested part of it), read only.

    ``architecture`` and ``origin`` are for messages: which class and which file this is.
    """

    __slots__ = ("_data", "architecture", "origin", "path")

    def __init__(
        self, data: Mapping[str, object], *, architecture: str = "", origin: str = "", path: str = ""
    ) -> None:
        self._data = data
        self.architecture = architecture
        self.origin = origin
        self.path = path

    def has(self, key: str) -> bool:
        """Tell whether the key, in any spelling, is there and not null."""
        return self._find(key)[1] is not None

    def names(self) -> tuple[str, ...]:
        """Return the keys of this part, in the file's order."""
        return tuple(str(key) for key in self._data)

    def raw(self, key: str) -> object:
        """Return the value as it stands, or None."""
        return self._find(key)[1]

    @overload
    def integer(self, key: str) -> int: ...
    @overload
    def integer(self, key: str, default: int) -> int: ...
    @overload
    def integer(self, key: str, default: None) -> int | None: ...
    def integer(self, key: str, default: int | type[Exception] | None = MissingFact) -> int | None:
        """Read a count: an integer from 0 to 2**40.

        Raises MissingFact when it is absent and there is no default, InvalidSpec when it is no
        such integer.
        """
        spelled, value = self._find(key)
        if value is None:
            if default is MissingFact:
                raise self._missing(key)
            return default  # type: ignore[return-value]
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.invalid(spelled, f"is {_show(value)}, not an integer")
        if not 0 <= value <= MAX_COUNT:
            raise self.invalid(spelled, f"is {value}, which no model has")
        return value

    def positive(self, key: str, default: int | None = None) -> int:
        """Read a count that must be at least 1 (a ``default`` stands in for an absent key)."""
        value = self.integer(key) if default is None else self.integer(key, default)
        if value < 1:
            raise self.invalid(self._find(key)[0], f"is {value}, but must be at least 1")
        return value

    def layers(self, key: str = "num_hidden_layers", default: int | None = None) -> int:
        """Read a number of layers, at most 10,000."""
        value = self.positive(key, default)
        if value > MAX_LAYERS:
            raise self.invalid(self._find(key)[0], f"is {value}, more layers than any model has")
        return value

    def flag(self, key: str, default: bool | None = None) -> bool:
        """Read a boolean."""
        spelled, value = self._find(key)
        if value is None:
            if default is None:
                raise self._missing(key)
            return default
        if not isinstance(value, bool):
            raise self.invalid(spelled, f"is {_show(value)}, not true or false")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """Read a string."""
        spelled, value = self._find(key)
        if value is None:
            if default is None:
                raise self._missing(key)
            return default
        if not isinstance(value, str):
            raise self.invalid(spelled, f"is {_show(value)}, not a string")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """Read a number, which may be fractional."""
        spelled, value = self._find(key)
        if value is None:
            if default is None:
                raise self._missing(key)
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.invalid(spelled, f"is {_show(value)}, not a number")
        return float(value)

    def sequence(self, key: str) -> Sequence[object] | None:
        """Read a list, or None where it is absent."""
        spelled, value = self._find(key)
        if value is None:
            return None
        if not isinstance(value, list | tuple) or len(value) > MAX_LAYERS:
            raise self.invalid(spelled, f"is {_show(value)}, not a list")
        return value

    def integers(self, key: str) -> tuple[int, ...] | None:
        """Read a list of integers, or None where it is absent."""
        values = self.sequence(key)
        if values is None:
            return None
        if not all(isinstance(value, int) and not isinstance(value, bool) for value in values):
            raise self.invalid(self._find(key)[0], "is not a list of integers")
        return tuple(int(value) for value in values)  # type: ignore[call-overload]

    def texts(self, key: str) -> tuple[str, ...] | None:
        """Read a list of strings, or None where it is absent."""
        values = self.sequence(key)
        if values is None:
            return None
        if not all(isinstance(value, str) for value in values):
            raise self.invalid(self._find(key)[0], "is not a list of strings")
        return tuple(str(value) for value in values)

    def sub(self, key: str) -> "Config | None":
        """Return a nested config (``text_config``), or None where it is absent."""
        spelled, value = self._find(key)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise self.invalid(spelled, f"is {_show(value)}, not a nested config")
        return Config(
            value,
            architecture=self.architecture,
            origin=self.origin,
            path=f"{self.path}{spelled}.",
        )

    def with_defaults(self, defaults: Mapping[str, object]) -> "Config":
        """Return the config with a class's defaults behind what the file says."""
        return Config(
            {**defaults, **{key: value for key, value in self._data.items() if value is not None}},
            architecture=self.architecture,
            origin=self.origin,
            path=self.path,
        )

    def nested(self, data: Mapping[str, object], path: str) -> "Config":
        """Return a part of this config that stands in a list, ``path`` being where."""
        return Config(data, architecture=self.architecture, origin=self.origin, path=f"{self.path}{path}")

    def behind(self, defaults: Mapping[str, object]) -> "Config":
        """Return the config with ``defaults`` for keys that it does not state in any spelling.

        Unlike ``with_defaults``, a key that is stated as null stays null.
        """
        stated = {
            key: value
            for key, value in defaults.items()
            if not any(spelling in self._data for spelling in SPELLINGS.get(key, (key,)))
        }
        if not stated:
            return self
        return Config(
            {**self._data, **stated}, architecture=self.architecture, origin=self.origin, path=self.path
        )

    def override(self, data: Mapping[str, object]) -> "Config":
        """Return the config with ``data`` in place of what it says."""
        return Config(
            {**self._data, **data}, architecture=self.architecture, origin=self.origin, path=self.path
        )

    def without(self, key: str) -> "Config":
        """Return the config without one of its parts."""
        data = {name: value for name, value in self._data.items() if name != key}
        return Config(data, architecture=self.architecture, origin=self.origin, path=self.path)

    def with_only(self, data: Mapping[str, object]) -> "Config":
        """Return a config of other data with this one's origin, for parts a file leaves out."""
        return Config(data, architecture=self.architecture, origin=self.origin, path=self.path)

    def heads(self, hidden_size: int, key: str = "num_attention_heads", default: int | None = None) -> int:
        """Read a number of heads that divides ``hidden_size``. Raises InvalidSpec for another."""
        heads = self.positive(key, default)
        if hidden_size % heads:
            raise self.invalid(key, f"is {heads}, which does not divide hidden_size {hidden_size}")
        return heads

    def per_layer(self, key: str, num_layers: int) -> tuple[str, ...] | None:
        """Read a list of one string a layer; a longer list is cut as transformers does."""
        kinds = self.texts(key)
        if kinds is None:
            return None
        if len(kinds) < num_layers:
            raise self.invalid(key, f"names {len(kinds)} layers, but there are {num_layers}")
        return kinds[:num_layers]

    def missing(self, key: str) -> MissingFact:
        """Return the error for a key that must be there."""
        return self._missing(key)

    def invalid(self, key: str, problem: str) -> InvalidSpec:
        """Return the error for a key whose value cannot be."""
        return InvalidSpec(
            f"{self._where()}: {self.path}{key} {problem}",
            why="the memory arithmetic needs it",
            hint="correct the config, or name a bundled model: kvplan list models",
        )

    def _find(self, key: str) -> tuple[str, object]:
        for spelling in ALIASES.get(key, (key,)):
            value = self._data.get(spelling)
            if value is not None:
                return spelling, value
        return key, None

    def _missing(self, key: str) -> MissingFact:
        spellings = " or ".join(ALIASES.get(key, (key,))[:3])
        return MissingFact(
            f"{self._where()}: no {self.path}{spellings}",
            why=f"{self.architecture or 'this architecture'} cannot be sized without it",
            hint="add the key to the config, or name a bundled model: kvplan list models",
        )

    def _where(self) -> str:
        return self.origin or self.architecture or "config"


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
