"""Frozen dataclasses at a quarter of what they cost to define.

``dataclass(frozen=True, slots=True)`` writes and compiles six methods for each class, which for
kvplan's seventy values is a fifth of a short command's time. Here only ``__init__`` is compiled; the
others are the same for every class and read the fields through one ``attrgetter``. What is made is a
dataclass all the same: ``fields``, ``replace``, ``asdict`` and pattern matching work, and to a type
checker it is the standard library's own.
"""

from collections.abc import Callable
from dataclasses import MISSING, FrozenInstanceError, fields
from dataclasses import dataclass as standard_dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NoReturn

__all__ = ["dataclass", "replace"]

if TYPE_CHECKING:
    from dataclasses import dataclass, replace
else:

    def dataclass(*, frozen: bool = False, slots: bool = False, eq: bool = True) -> Callable[[type], type]:
        """Return a decorator for a frozen class with slots; others are the standard library's."""
        if not (frozen and slots):
            return standard_dataclass(frozen=frozen, slots=slots, eq=eq)
        return lambda cls: _frozen(cls, eq=eq)

    def replace(value: object, /, **changes: object) -> object:
        """Return a copy of a frozen value with other fields, as ``dataclasses.replace`` does, but quickly."""
        fields_of = value.__match_args__
        values = value.__getstate__()
        for name, changed in changes.items():
            if name not in fields_of:
                raise TypeError(f"{value.__class__.__qualname__} has no field '{name}'")
            values[fields_of.index(name)] = changed
        return value.__class__(*values)


def _frozen(cls: type, *, eq: bool) -> type:
    made: Any = standard_dataclass(init=False, repr=False, eq=False, slots=True)(cls)
    names = tuple(field.name for field in fields(made))
    values = _reader(names)
    made.__init__ = _initializer(made)
    made.__setattr__ = _refuse_set
    made.__delattr__ = _refuse_delete
    made.__repr__ = _repr
    made.__getstate__ = lambda self: list(values(self))
    made.__setstate__ = _restore
    if eq:
        made.__eq__ = lambda self, other: (
            values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented
        )
        if "__hash__" not in vars(cls):
            made.__hash__ = lambda self: hash(values(self))
    return made  # type: ignore[no-any-return]


def _initializer(cls: Any) -> Any:
    """Compile ``__init__``: each argument goes into its slot, past the refusing ``__setattr__``.

    Raises TypeError for what is not built here: ``__post_init__``, keyword-only and computed fields.
    """
    if hasattr(cls, "__post_init__"):
        raise TypeError(f"{cls.__qualname__}: a frozen value has no __post_init__")
    given: list[str] = []
    lines: list[str] = []
    names: dict[str, object] = {"_missing": MISSING}
    for field in fields(cls):
        name = field.name
        if field.kw_only or not field.init:
            raise TypeError(f"{cls.__qualname__}.{name}: a frozen value has plain fields only")
        names[f"_set_{name}"] = getattr(cls, name).__set__
        argument, value = name, name
        if field.default is not MISSING:
            names[f"_default_{name}"] = field.default
            argument = f"{name}=_default_{name}"
        elif field.default_factory is not MISSING:
            names[f"_make_{name}"] = field.default_factory
            argument = f"{name}=_missing"
            value = f"_make_{name}() if {name} is _missing else {name}"
        given.append(argument)
        lines.append(f" _set_{name}(self,{value})")
    exec(f"def __init__(self,{','.join(given)}):\n" + ("\n".join(lines) or " pass"), names)
    return names["__init__"]


def _refuse_set(self: object, name: str, value: object) -> NoReturn:  # noqa: ARG001
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_delete(self: object, name: str) -> NoReturn:  # noqa: ARG001
    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _repr(self: Any) -> str:
    shown = (f"{field.name}={getattr(self, field.name)!r}" for field in fields(self))
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _reader(names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    """Return what reads all fields of a value, in order."""
    if len(names) < 2:
        return lambda self: tuple(getattr(self, name) for name in names)
    return attrgetter(*names)


def _restore(self: Any, state: list[object]) -> None:
    for field, value in zip(fields(self), state, strict=True):
        object.__setattr__(self, field.name, value)
