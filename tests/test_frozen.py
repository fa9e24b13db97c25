"""What kvplan's frozen classes do is what the standard library's do."""

import copy
import dataclasses
import pickle

import pytest

from kvplan.frozen import dataclass, replace


@dataclass(frozen=True, slots=True)
class Pair:
    """Two amounts and a word."""

    first: int
    second: int = 2
    word: str = ""


@dataclass(frozen=True, slots=True)
class Other:
    """The same fields under another name."""

    first: int
    second: int = 2
    word: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Same:
    """Compared by identity."""

    first: int


@dataclass(frozen=True, slots=True)
class Nothing:
    """No fields."""


@dataclasses.dataclass(frozen=True, slots=True)
class Standard:
    """The standard library's, to compare with."""

    first: int
    second: int = 2
    word: str = ""


def test_construction_takes_and_refuses_the_same_arguments():
    for arguments, named in [((1,), {}), ((1, 3), {"word": "x"}), ((), {"first": 4})]:
        made, standard = Pair(*arguments, **named), Standard(*arguments, **named)
        assert dataclasses.asdict(made) == dataclasses.asdict(standard)
        assert repr(made) == repr(standard).replace("Standard", "Pair")
    for arguments, named in [((), {}), ((1, 2, "", 4), {}), ((1,), {"third": 3})]:
        with pytest.raises(TypeError):
            Pair(*arguments, **named)


def test_equality_and_hash_go_by_class_and_value():
    assert Pair(1) == Pair(1)
    assert hash(Pair(1)) == hash(Pair(1))
    assert Pair(1) != Pair(2)
    assert Pair(1) != Other(1)
    assert Pair(1) != (1, 2, "")
    assert Same(1) != Same(1)
    assert len({Same(1), Same(1)}) == 2
    assert Nothing() == Nothing()
    assert hash(Nothing()) == hash(Nothing())


def test_fields_can_neither_be_set_nor_deleted():
    made = Pair(1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.first = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.unheard_of = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        del made.first
    assert not hasattr(made, "__dict__")


def test_the_tools_of_dataclasses_work():
    made = dataclasses.replace(Pair(1), second=5)
    assert made == Pair(1, 5)
    assert [field.name for field in dataclasses.fields(Pair)] == ["first", "second", "word"]
    assert copy.deepcopy(made) == made
    assert copy.copy(made) == made
    assert pickle.loads(pickle.dumps(made)) == made
    match made:
        case Pair(first, second):
            assert (first, second) == (1, 5)


def test_a_class_that_is_not_frozen_can_be_changed_and_not_hashed():
    @dataclass(slots=True)
    class Open:
        first: int
        all: list = dataclasses.field(default_factory=list)

    made = Open(1)
    made.first = 2
    assert made == Open(2)
    assert Open(1).all is not made.all
    assert dataclasses.replace(made, first=3) == Open(3)
    assert not hasattr(made, "__dict__")
    with pytest.raises(TypeError, match="unhashable"):
        hash(made)


def test_classes_without_slots_are_the_standard_librarys():
    @dataclass(frozen=True)
    class Loose:
        first: int

    assert Loose(1) == Loose(1)
    assert hasattr(Loose(1), "__dict__")


def test_a_default_is_made_anew_where_a_factory_is_given():
    @dataclass(frozen=True, slots=True)
    class Listed:
        all: list = dataclasses.field(default_factory=list)

    first, second = Listed(), Listed()
    first.all.append(1)
    assert second.all == []
    assert Listed([2]).all == [2]


def test_a_frozen_class_can_be_derived_from_as_one():
    @dataclasses.dataclass(frozen=True)
    class Longer(Pair):
        third: int = 3

    assert Longer(1) == Longer(1, 2, "", 3)
    assert dataclasses.is_dataclass(Pair(1))

    class Named(Pair):
        @property
        def text(self):
            return f"{self.word}{self.first}"

    assert Named(1, word="a").text == "a1"
    assert Named(1).second == 2
    with pytest.raises(TypeError):
        Named()
    with pytest.raises(TypeError, match="non-frozen"):

        @dataclasses.dataclass
        class Open(Pair):
            third: int = 3


def test_factories_stand_among_other_defaults():
    @dataclass(frozen=True, slots=True)
    class Mixed:
        first: int
        all: list = dataclasses.field(default_factory=list)
        last: int = dataclasses.field(default=7)

    assert (Mixed(1).all, Mixed(1).last) == ([], 7)
    assert (Mixed(1, last=2).all, Mixed(1, [3], 4).all, Mixed(1, [3], 4).last) == ([], [3], 4)


def test_what_is_not_built_is_refused_when_the_class_is_defined():
    with pytest.raises(TypeError, match="needs a factory"):

        @dataclass(frozen=True, slots=True)
        class Shared:
            first: list = []  # noqa: RUF012

    with pytest.raises(TypeError, match="needs a default"):

        @dataclass(frozen=True, slots=True)
        class Late:
            first: int = 1
            second: int

    with pytest.raises(TypeError, match="plain fields only"):

        @dataclass(frozen=True, slots=True)
        class Named:
            first: int = dataclasses.field(kw_only=True)

    with pytest.raises(TypeError, match="__post_init__"):

        @dataclass(frozen=True, slots=True)
        class Checked:
            first: int

            def __post_init__(self):
                pass


@dataclass(frozen=True, slots=True)
class Hashed:
    """Two amounts, told apart by the first."""

    first: int
    second: int = 0

    def __hash__(self):
        return self.first


def test_replace_makes_a_copy_with_other_fields():
    assert replace(Pair(1, 5), word="x") == Pair(1, 5, "x")
    assert replace(Hashed(1, 5), first=2, second=6) == Hashed(2, 6)
    assert replace(Same(1), first=2).first == 2
    assert replace(Nothing()) == Nothing()
    with pytest.raises(TypeError, match="third"):
        replace(Pair(1), third=3)


def test_a_class_keeps_a_hash_of_its_own():
    assert hash(Hashed(4, 5)) == hash(Hashed(4, 6)) == 4


def test_a_value_has_no_value_above_it():
    with pytest.raises(TypeError, match="inherits"):

        @dataclass(frozen=True, slots=True)
        class Longer(Pair):
            last: int = 0
