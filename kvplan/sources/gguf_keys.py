"""A GGUF header's keys of its own architecture, read with their types checked."""

from kvplan.errors import InvalidSpec
from kvplan.sources.gguf import Header


class Keys:
    """A header's keys of its own architecture, read with their types checked."""

    __slots__ = ("_header", "arch", "origin")

    def __init__(self, header: Header, arch: str, origin: str) -> None:
        self._header = header
        self.arch = arch
        self.origin = origin

    def raw(self, key: str) -> object:
        """Return ``{arch}.{key}`` as it stands, or None."""
        return self._header.metadata.get(f"{self.arch}.{key}")

    def count(self, key: str, default: int | None = None) -> int:
        """Read a count. Raises InvalidSpec naming the key where it is absent or no count."""
        value = self.raw(key)
        if value is None and default is not None:
            return default
        if isinstance(value, tuple) and value and all(item == value[0] for item in value):
            value = value[0]
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 2**40:
            raise self.invalid(key, "is missing" if value is None else f"is {str(value)[:40]}")
        return value

    def per_layer(self, key: str, num_layers: int, default: int) -> tuple[int, ...]:
        """Read one count a layer: an array, or one number for all."""
        value = self.raw(key)
        if not isinstance(value, tuple):
            return (self.count(key, default),) * num_layers
        counts = tuple(int(item) for item in value if isinstance(item, int) and 0 <= item <= 2**40)
        if len(counts) != len(value) or len(counts) < num_layers:
            raise self.invalid(key, f"holds {len(counts)} counts for {num_layers} layers")
        return counts[:num_layers]

    def per_layer_flags(self, key: str, num_layers: int) -> tuple[bool, ...]:
        """Read one flag a layer. Raises InvalidSpec where the key is no array of as many."""
        value = self.raw(key)
        if not isinstance(value, tuple) or len(value) < num_layers:
            raise self.invalid(key, "is missing" if value is None else "is no flag a layer")
        return tuple(bool(flag) for flag in value[:num_layers])

    def invalid(self, key: str, problem: str) -> InvalidSpec:
        """Return the error for a key that cannot be."""
        return InvalidSpec(
            f"{self.origin}: {self.arch}.{key} {problem}",
            why="the memory arithmetic needs it",
            hint="convert the model again, or name the original: org/repo",
        )
