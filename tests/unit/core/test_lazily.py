"""Values of a table are made when they are asked for, once, by whoever asks first."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

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


def test_threads_that_ask_at_once_get_the_same_value() -> None:
    together = threading.Barrier(8)
    made: list[object] = []

    def make() -> object:
        time.sleep(0.05)
        made.append(object())
        return made[-1]

    lazily = Lazily({"one": make})

    def ask(_: int) -> object:
        together.wait()
        return lazily["one"]

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(8))) == {made[0]}
    assert len(made) == 1


def test_a_mistake_in_a_maker_is_not_taken_for_a_missing_name() -> None:
    def broken() -> str:
        return {"a": "b"}["c"]

    with pytest.raises(KeyError, match="c"):
        Lazily({"one": broken}).get("one")
