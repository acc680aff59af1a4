"""Values of a table are made when they are asked for, once, by whoever asks first."""

from collections.abc import Callable

import pytest

from pipeline.core.lazily import Lazily


def table() -> tuple[Lazily[str], list[str]]:
    made: list[str] = []

    def maker(name: str) -> Callable[[], str]:
        def make() -> str:
            made.append(name)
            return name.upper()

        return make

    return Lazily({name: maker(name) for name in ("one", "two")}), made


def test_names_are_known_without_making_anything() -> None:
    lazily, made = table()
    assert (list(lazily), len(lazily), "one" in lazily, "three" in lazily) == (["one", "two"], 2, True, False)
    assert made == []


def test_a_value_is_made_once() -> None:
    lazily, made = table()
    assert (lazily["two"], lazily["two"]) == ("TWO", "TWO")
    assert made == ["two"]


def test_an_unknown_name_is_a_key_error() -> None:
    lazily, _ = table()
    with pytest.raises(KeyError):
        lazily["three"]
    assert lazily.get("three") is None
