"""`@frozen` against the standard library's frozen dataclass: nobody who uses one sees a difference."""

import copy
import pickle
from dataclasses import FrozenInstanceError, dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import pytest

from pipeline.core.frozen import frozen


def _class(decorator: Any) -> Any:
    @decorator
    class Thing:
        """Fields as the project's classes have them."""

        name: str
        sizes: tuple[int, ...] = ()
        note: str = field(default="", compare=False)
        hidden: str = field(default="", repr=False)
        limit: ClassVar[int] = 3
        more: dict[str, int] = field(default_factory=dict, hash=False, repr=False)

    Thing.__qualname__ = "Thing"
    return Thing


@frozen
class Kept:
    """At module level, as pickle wants it."""

    name: str
    count: int = 0


@frozen
class Narrower(Kept):
    flag: bool = False


@pytest.fixture(params=["frozen", "dataclass"])
def thing(request: pytest.FixtureRequest) -> Any:
    return _class(frozen if request.param == "frozen" else dataclass(frozen=True))


def test_equal_where_every_compared_field_is(thing: Any) -> None:
    assert thing("a", (1, 2)) == thing("a", (1, 2), note="other")
    assert thing("a", (1, 2)) != thing("a", (1, 3))
    assert thing("a", (1,), hidden="x") != thing("a", (1,))
    assert len({thing("a"), thing("a", note="other"), thing("b")}) == 2


def test_what_has_no_hash_may_be_left_out_of_it(thing: Any) -> None:
    assert thing("a", more={"x": 1}) != thing("a", more={"x": 2})
    assert hash(thing("a", more={"x": 1})) == hash(thing("a", more={"x": 2}))


def test_another_class_is_never_equal(thing: Any) -> None:
    assert thing("a") != "a"
    assert thing("a").__eq__("a") is NotImplemented
    assert Kept("a") != Narrower("a")


def test_text_names_every_field_that_may_be_shown(thing: Any) -> None:
    assert repr(thing("a", (1,), hidden="secret")) == "Thing(name='a', sizes=(1,), note='')"


def test_nothing_can_be_changed(thing: Any) -> None:
    made = thing("a", (1, 2))
    with pytest.raises(FrozenInstanceError):
        made.name = "b"
    with pytest.raises(FrozenInstanceError):
        made.unheard_of = 1
    with pytest.raises(FrozenInstanceError):
        made.limit = 4
    with pytest.raises(FrozenInstanceError):
        del made.name
    assert made == thing("a", (1, 2))


def test_made_again_with_another_field(thing: Any) -> None:
    assert replace(thing("a", (1, 2)), name="b") == thing("b", (1, 2))


def test_missing_and_unknown_arguments_are_refused(thing: Any) -> None:
    with pytest.raises(TypeError, match="name"):
        thing()
    with pytest.raises(TypeError, match="colour"):
        thing("a", colour=1)


def test_cached_property_is_kept() -> None:
    @frozen
    class Counted:
        sizes: tuple[int, ...]

        @cached_property
        def total(self) -> int:
            return sum(self.sizes)

    made = Counted((1, 2))
    assert (made.total, made.__dict__["total"]) == (3, 3)


def test_a_subclass_compares_its_own_fields_too() -> None:
    assert Narrower("a", 1, True) == Narrower("a", 1, True) != Narrower("a", 1, False)
    assert repr(Narrower("a")) == "Narrower(name='a', count=0, flag=False)"


def test_copied_and_sent_to_another_process() -> None:
    made = Narrower("a", 2, True)
    assert copy.deepcopy(made) == made == pickle.loads(pickle.dumps(made))


def test_own_methods_win() -> None:
    @frozen
    class Loud:
        name: str

        def __repr__(self) -> str:
            return self.name.upper()

    assert repr(Loud("a")) == "A"


def test_a_class_without_fields() -> None:
    @frozen
    class Nothing:
        """Only its kind says something."""

    assert Nothing() == Nothing()
    assert hash(Nothing()) == hash(Nothing())


def test_what_holds_itself_has_a_text() -> None:
    made = Kept("a")
    holder: list[object] = [made]
    looped = replace(made, name="b")
    looped.__dict__["count"] = holder
    holder.append(looped)
    assert "..." in repr(looped)
