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


class ModulePatterns:
    """Patterns made ready to ask; those of one layer are only tried for that layer."""

    __slots__ = ("_anywhere", "_of_layer")

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self._anywhere: list[re.Pattern[str]] = []
        self._of_layer: dict[int, list[re.Pattern[str]]] = {}
        for pattern in patterns:
            compiled = _compiled(pattern)
            plain = _PREFIX.sub("", pattern)
            layer = _LAYER.match(plain)
            if layer and not pattern.startswith("re:"):
                self._of_layer.setdefault(int(layer.group(1)), []).append(compiled)
            else:
                self._anywhere.append(compiled)

    def match(self, tensor_name: str, layer: int | None) -> bool:
        """Tell whether a tensor's module is meant; ``layer`` is None outside the layers."""
        module = _PREFIX.sub("", tensor_name.removesuffix(".weight"))
        name = module if layer is None else f"layers.{layer}.{module}"
        names = (name, name.replace("self_attn.", "attn.").replace("mlp.", "ffn."))
        own = self._of_layer.get(layer, ()) if layer is not None else ()
        return any(
            pattern.search(candidate)
            for pattern in (*own, *self._anywhere)
            for candidate in (names if names[0] != names[1] else names[:1])
        )

    def differ_by_layer(self) -> bool:
        """Tell whether any pattern may mean some layers and not others."""
        return bool(self._of_layer) or any("layers" in pattern.pattern for pattern in self._anywhere)


@lru_cache(maxsize=256)
def patterns_of(patterns: tuple[str, ...]) -> ModulePatterns:
    """Return the patterns made ready, once for every set."""
    return ModulePatterns(patterns)


def _compiled(pattern: str) -> re.Pattern[str]:
    if pattern.startswith("re:"):
        # The file's expression starts at the module's full path, of which the front is left out.
        return re.compile(r"\A(?:" + _PREFIX.sub("", pattern.removeprefix("re:")) + ")")
    plain = _PREFIX.sub("", pattern.removesuffix(".weight"))
    if _GLOB.search(plain):
        return re.compile(r"\A" + translate(plain) + r"|\A" + translate(f"{plain}.*"))
    return re.compile(rf"(?:\A|\.){re.escape(plain)}(?:\.|\Z)")


def is_pattern(text: str) -> bool:
    """Tell whether a pattern can be read: its regular expression, where it is one, is sound."""
    try:
        _compiled(text)
    except re.error:
        return False
    return True
