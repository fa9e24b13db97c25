"""Dataclasses with slots, at a fifth of what they cost to define.

``dataclass(frozen=True, slots=True)`` writes and compiles six methods for each class, which for
kvplan's hundred values is a quarter of a short command's time. Here ``__new__`` is compiled once for
each number of fields and given each class's names; the other methods are the same for every class and
read the fields through one ``attrgetter``. What is made is a dataclass all the same: ``fields``,
``replace``, ``asdict`` and pattern matching work, and to a type checker it is the standard library's
own.

A value is filled while it is still open, an object of a twin class with the same slots that refuses no
assignment, and then becomes its own class's: a third of the time of storing past a refusal, field by
field, which a plan of some hundred values is made of.
"""

from collections.abc import Callable
from dataclasses import MISSING, Field, FrozenInstanceError
from dataclasses import dataclass as standard_dataclass
from functools import lru_cache
from operator import attrgetter
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any, NoReturn

__all__ = ["dataclass", "replace"]

if TYPE_CHECKING:
    from dataclasses import dataclass, replace
else:

    def dataclass(*, frozen: bool = False, slots: bool = False, eq: bool = True) -> Callable[[type], type]:
        """Return a decorator for a class with slots; others are the standard library's."""
        if not slots:
            return standard_dataclass(frozen=frozen, eq=eq)
        return lambda cls: _slotted(cls, frozen=frozen, eq=eq)

    def replace(value: object, /, **changes: object) -> object:
        """Return a copy of a value with other fields, as ``dataclasses.replace`` does, but quickly."""
        fields_of = value.__match_args__
        values = list(value.__reduce__()[1])
        for name, changed in changes.items():
            if name not in fields_of:
                raise TypeError(f"{value.__class__.__qualname__} has no field '{name}'")
            values[fields_of.index(name)] = changed
        return value.__class__(*values)


def _slotted(cls: type, *, frozen: bool, eq: bool) -> type:
    if any(hasattr(base, "__match_args__") for base in cls.__bases__):
        raise TypeError(f"{cls.__qualname__}: a value with slots inherits no fields")
    names, written = tuple(cls.__annotations__), vars(cls)
    values = _reader(names)
    body: dict[str, Any] = {
        "__repr__": _repr,
        "__reduce__": lambda self: (self.__class__, values(self)),
        "__init_subclass__": classmethod(_derive),
        "__match_args__": names,
        "__dataclass_fields__": _Fields(cls),
        "__dataclass_params__": _Parameters(frozen=frozen, eq=eq),
    }
    if frozen:
        body["__setattr__"], body["__delattr__"] = _refuse_set, _refuse_delete
    if eq:
        body["__eq__"] = lambda self, other: (
            values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented
        )
        body["__hash__"] = (lambda self: hash(values(self))) if frozen else None
    body.update((name, value) for name, value in written.items() if name not in names)
    # Slots are laid out when a class is made, so it is made once more.
    for name in ("__dict__", "__weakref__"):
        body.pop(name, None)
    body["__slots__"] = names
    made = type(cls)(cls.__name__, cls.__bases__, body)
    made.__qualname__ = cls.__qualname__
    made.__new__ = _maker(made, {name: written.get(name, MISSING) for name in names})  # type: ignore[method-assign]
    return made


class _Fields:
    """The standard library's description of a class's fields, made when someone asks for it."""

    def __init__(self, described: type) -> None:
        self._described = described

    def __get__(self, instance: object, owner: type) -> Any:
        if "__dataclass_fields__" not in vars(self._described):
            standard_dataclass(init=False, repr=False, eq=False)(self._described)
        return vars(self._described)["__dataclass_fields__"]


class _Parameters:
    """How a class was decorated, in the standard library's words."""

    def __init__(self, *, frozen: bool, eq: bool) -> None:
        self._frozen, self._eq = frozen, eq

    def __get__(self, instance: object, owner: type) -> Any:
        @standard_dataclass(frozen=self._frozen, slots=True, eq=self._eq)  # type: ignore[literal-required]
        class Sample:
            pass

        return vars(Sample)["__dataclass_params__"]


def _derive(derived: Any) -> None:
    """Let a derived class, whose objects may be laid out otherwise, be made as any other's.

    Where it brings no ``__init__`` of its own, with the fields of the value that it is derived from.
    """
    base: Any = next(cls for cls in derived.__mro__[1:] if "__match_args__" in vars(cls))

    def new(cls: type, *arguments: object, **named: object) -> object:
        self: Any = object.__new__(cls)
        if cls.__init__ is object.__init__:  # type: ignore[misc]
            for name, value in zip(
                base.__match_args__, base(*arguments, **named).__reduce__()[1], strict=True
            ):
                object.__setattr__(self, name, value)
        return self

    derived.__new__ = new


def _maker(cls: type, defaults: dict[str, object]) -> FunctionType:
    """Return ``__new__``: fills an object of a twin class and turns it into ``cls``.

    Raises TypeError for what is not built here: ``__post_init__``, keyword-only and computed fields,
    defaults that values would share, and a field without a default behind one with.
    """
    if hasattr(cls, "__post_init__"):
        raise TypeError(f"{cls.__qualname__}: a value has no __post_init__")
    given: list[object] = []

    def first(_: None) -> object:
        # Many classes that a command defines have no value in it.
        twin = type(cls)(
            cls.__name__, cls.__bases__, {"__slots__": tuple(defaults), "__module__": cls.__module__}
        )
        names.update(_open=object.__new__, _twin=twin)
        return object.__new__(twin)

    names: dict[str, object] = {"_missing": MISSING, "_open": first, "_twin": None}
    made: list[bool] = []
    for index, (name, written) in enumerate(defaults.items()):
        default: object = written
        factory: object = MISSING
        if isinstance(written, Field):
            default, factory = written.default, written.default_factory
            if written.kw_only is True or not written.init:
                raise TypeError(f"{cls.__qualname__}.{name}: a value has plain fields only")
        if default.__class__.__hash__ is None:
            raise TypeError(f"{cls.__qualname__}.{name}: a default that can change needs a factory")
        if given and default is factory is MISSING:
            raise TypeError(f"{cls.__qualname__}.{name}: needs a default, as the field before it has one")
        if default is not factory:
            given.append(default)
        names[f"_make{index}"] = factory
        made.append(factory is not MISSING)
    code = _filling(tuple(made))
    own = {f"_field{index}": name for index, name in enumerate(defaults)}
    code = code.replace(
        co_varnames=("cls", *defaults, "self"),
        co_names=tuple(own.get(name, name) for name in code.co_names),
        co_qualname=f"{cls.__qualname__}.__new__",
    )
    return FunctionType(code, names, "__new__", tuple(given))


@lru_cache(maxsize=256)
def _filling(made: tuple[bool, ...]) -> CodeType:
    """Compile the body that takes as many arguments; ``made`` says which a factory may make."""
    arguments = ",".join(f"a{index}" for index in range(len(made)))
    lines = [
        f" self._field{index}=_make{index}() if a{index} is _missing else a{index}"
        if by_factory
        else f" self._field{index}=a{index}"
        for index, by_factory in enumerate(made)
    ]
    body = "\n".join((" self=_open(_twin)", *lines, " self.__class__=cls", " return self"))
    names: dict[str, Any] = {}
    exec(f"def __new__(cls,{arguments}):\n{body}", names)
    code: CodeType = names["__new__"].__code__
    return code


def _refuse_set(self: object, name: str, value: object) -> NoReturn:  # noqa: ARG001
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_delete(self: object, name: str) -> NoReturn:  # noqa: ARG001
    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _repr(self: Any) -> str:
    shown = (f"{name}={getattr(self, name)!r}" for name in self.__match_args__)
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _reader(names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    """Return what reads all fields of a value, in order."""
    if len(names) < 2:
        return lambda self: tuple(getattr(self, name) for name in names)
    return attrgetter(*names)
