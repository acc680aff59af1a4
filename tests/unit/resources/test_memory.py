"""The memory that processes share: what one appends the other finds, and damage never tells anything wrong."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.resources.cache.memory import Memory


def number(words: Sequence[str]) -> int:
    (word,) = words
    return int(word)


def memory(folder: Path) -> Memory[int]:
    return Memory(folder / "numbers", number)


def test_another_process_finds_it_at_once(tmp_path: Path) -> None:
    one, other = memory(tmp_path), memory(tmp_path)
    assert other.get("a") is None
    one.put("a", ["1"])
    assert other.get("a") == 1
    one.put("b", ["2"])
    assert (other.get("b"), memory(tmp_path).get("a")) == (2, 1)


def test_last_line_counts_and_what_is_known_is_not_written_again(tmp_path: Path) -> None:
    for _ in range(2):
        memory(tmp_path).put("a", ["1"])
    assert (tmp_path / "numbers").read_text() == "a\t1\n"
    memory(tmp_path).put("a", ["2"])
    assert memory(tmp_path).get("a") == 2


@pytest.mark.parametrize("damage", [b"b\t1", b"b", b"\xff\xfe", b"\0\0\0\0", b"b\t1\t2\nc\tx\n\n", b"b\t"])
def test_damaged_lines_are_as_good_as_none_and_those_around_them_stay(tmp_path: Path, damage: bytes) -> None:
    memory(tmp_path).put("a", ["1"])
    with (tmp_path / "numbers").open("ab") as file:
        file.write(damage)
    fresh = memory(tmp_path)
    assert fresh.get("b") is None

    fresh.put("d", ["4"])

    again = memory(tmp_path)
    assert [again.get(key) for key in "abcd"] == [1, None, None, 4]


def test_memory_that_was_replaced_or_cannot_be_read_is_begun_anew(tmp_path: Path) -> None:
    one = memory(tmp_path)
    one.put("a", ["1"])
    (tmp_path / "numbers").unlink()
    one.put("b", ["2"])
    assert memory(tmp_path).get("a") is None
    assert memory(tmp_path).get("b") == 2
    (tmp_path / "numbers").unlink()
    (tmp_path / "numbers").mkdir()
    assert memory(tmp_path).get("b") is None


@pytest.mark.parametrize("word", ["a\tb", "a\nb", "a\rb"])
def test_words_that_would_break_lines_are_refused(tmp_path: Path, word: str) -> None:
    with pytest.raises(ValueError, match="single words"):
        memory(tmp_path).put(word, ["1"])
