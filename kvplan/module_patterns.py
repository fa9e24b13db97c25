"""Which modules a quantization_config means by its patterns.

Publishers write regular expressions (``re:.*self_attn.*``, compressed-tensors), globs
(``model.layers.0*``, ModelOpt) or plain names that must match whole components of a module's path
(``lm_head``, ``gate``, ``model.layers.3.mlp``; transformers and AutoAWQ). Paths before ``layers.``
differ between checkpoints of one model and are left out; DeepSeek's own spelling of ``self_attn``
and ``mlp`` (``attn``, ``ffn``) is read as well.
"""

import re
from fnmatch import translate
from functools import lru_cache

_PREFIX = re.compile(r"^(?:(?:model|language_model|transformer|text_model|thinker)\\?\.)+")
_LAYER = re.compile(r"layers\.(\d+)(?:\.|$)")
_GLOB = re.compile(r"[*?\[]")
# What may tell one layer's number from another's in an expression that names no layer outright.
_NUMBER = re.compile(r"\d|\\d|[\[{?]|(?<!\\)\.(?![*+])")
_GLOB_NUMBER = re.compile(r"[\d?\[]")


class ModulePatterns:
    """Patterns made ready to ask: plain names as sets, the rest as expressions, by the layer they name.

    ``differ_by_layer`` tells whether any may mean some layers and not others.
    """

    __slots__ = ("_compiled", "_expressions", "_names", "_numbered", "_own", "differ_by_layer")

    def __init__(self, patterns: tuple[str, ...]) -> None:
        # Under None stand those that may mean any layer.
        self._names: dict[int | None, set[str]] = {}
        self._expressions: dict[int | None, list[str]] = {}
        # Compiled when a layer is first asked about: one stands for all that are packed like it.
        self._compiled: dict[int | None, tuple[re.Pattern[str], ...]] = {}
        # What is said of one layer, without its number; and how patterns begin that may ask for one.
        self._own: dict[int, set[str]] = {}
        self._numbered: set[str] = set()
        self.differ_by_layer = False
        for pattern in patterns:
            plain = _PREFIX.sub("", pattern.removesuffix(".weight"))
            layer = None if pattern.startswith("re:") else _LAYER.match(_PREFIX.sub("", pattern))
            key = int(layer.group(1)) if layer else None
            name = _plain_name(pattern)
            if name is not None:
                self._names.setdefault(key, set()).add(name)
            else:
                self._expressions.setdefault(key, []).append(pattern)
            if key is not None:
                self._own.setdefault(key, set()).add(plain.removeprefix(f"layers.{key}"))
            elif name is None:
                self._note_number(pattern, plain)
            elif name.split(".", 1)[0].isdigit():
                self._numbered.add("")
            self.differ_by_layer = self.differ_by_layer or "layers" in (name or pattern)

    def _note_number(self, pattern: str, plain: str) -> None:
        if pattern.startswith("re:"):
            if _NUMBER.search(pattern.removeprefix("re:")):
                self._numbered.add("")
        elif _GLOB_NUMBER.search(plain):
            # What stands before the first wildcard.
            self._numbered.add(_GLOB.split(plain, maxsplit=1)[0])

    def meaning(self, layer: int) -> object:
        """Return a key that layers share in which every pattern means the same modules."""
        path = f"layers.{layer}."
        if any(path.startswith(begin) or begin.startswith(path) for begin in self._numbered):
            return layer
        return frozenset(self._own.get(layer, ()))

    def match(self, tensor_name: str, layer: int | None) -> bool:
        """Tell whether a tensor's module is meant; ``layer`` is None outside the layers."""
        keys = (None,) if layer is None else (layer, None)
        for name in _spellings(tensor_name, layer):
            for key in keys:
                names = self._names.get(key)
                if names and not _parts(name).isdisjoint(names):
                    return True
                if any(expression.search(name) for expression in self._ready(key)):
                    return True
        return False

    def _ready(self, key: int | None) -> tuple[re.Pattern[str], ...]:
        found = self._compiled.get(key)
        if found is None:
            found = self._compiled[key] = tuple(map(_compiled, self._expressions.get(key, ())))
        return found


def _spellings(tensor_name: str, layer: int | None) -> tuple[str, ...]:
    """Return the path of a tensor's module, and DeepSeek's spelling where it is another."""
    module = _PREFIX.sub("", tensor_name.removesuffix(".weight"))
    name = module if layer is None else f"layers.{layer}.{module}"
    other = name.replace("self_attn.", "attn.").replace("mlp.", "ffn.")
    return (name,) if other == name else (name, other)


@lru_cache(maxsize=65_536)
def _parts(name: str) -> frozenset[str]:
    """Return every run of whole components of a path: ``a.b.c`` has a, b, c, a.b, b.c and a.b.c."""
    words = name.split(".")
    return frozenset(
        ".".join(words[start:end]) for start in range(len(words)) for end in range(start + 1, len(words) + 1)
    )


def _plain_name(pattern: str) -> str | None:
    """Return the name that must match whole components, None for an expression or a glob."""
    if pattern.startswith("re:"):
        return None
    plain = _PREFIX.sub("", pattern.removesuffix(".weight"))
    return None if _GLOB.search(plain) else plain


@lru_cache(maxsize=256)
def patterns_of(patterns: tuple[str, ...]) -> ModulePatterns:
    """Return the patterns made ready, once for every set."""
    return ModulePatterns(patterns)


def _compiled(pattern: str) -> re.Pattern[str]:
    if pattern.startswith("re:"):
        # The file's expression starts at the module's full path, of which the front is left out.
        return re.compile(r"\A(?:" + _PREFIX.sub("", pattern.removeprefix("re:")) + ")")
    plain = _PREFIX.sub("", pattern.removesuffix(".weight"))
    return re.compile(r"\A" + translate(plain) + r"|\A" + translate(f"{plain}.*"))


def is_pattern(text: str) -> bool:
    """Tell whether a pattern can be read: its regular expression, where it is one, is sound."""
    if not text.startswith("re:"):
        return True
    try:
        _compiled(text)
    except re.error:
        return False
    return True
