"""From tokens to text: whole characters, and stop texts that are cut across tokens."""

from collections.abc import Sequence

import pytest

from runtime.transformers.pieces import Pieces


def decode(tokens: Sequence[int]) -> str:
    """A tokenizer of one token per byte."""
    return bytes(tokens).decode(errors="replace")


def said(text: str, *stops: str) -> list[str]:
    """The pieces of a text, what is held back to the end last."""
    pieces = Pieces(decode, stops)
    made = []
    for byte in text.encode():
        made.append(pieces.feed(byte))
        if pieces.stopped:
            break
    return [piece for piece in [*made, pieces.finish()] if piece]


def test_a_character_of_several_tokens_comes_whole() -> None:
    assert said("aé€😀") == ["a", "é", "€", "😀"]


def test_half_a_character_at_the_end_is_shown_as_such() -> None:
    pieces = Pieces(decode, ())
    assert [pieces.feed(byte) for byte in "aé".encode()[:2]] == ["a", ""]
    assert pieces.finish() == "�"


@pytest.mark.parametrize(
    ("text", "stops", "whole"),
    [
        ("one two three", ("two",), "one "),
        ("one two three", ("three", "two"), "one "),
        ("one two", ("two three",), "one two"),
        ("aaab", ("aab",), "a"),
        ("ababac", ("abac",), "ab"),
        ("x", ("x",), ""),
    ],
)
def test_text_ends_before_the_first_stop_text(text: str, stops: tuple[str, ...], whole: str) -> None:
    assert "".join(said(text, *stops)) == whole


def test_only_what_may_begin_a_stop_text_is_held_back() -> None:
    assert said("a.b.", ".c") == ["a", ".b", "."]


def test_nothing_follows_a_stop_text() -> None:
    pieces = Pieces(decode, ("b",))
    assert [pieces.feed(byte) for byte in b"ab"] == ["a", ""]
    assert pieces.stopped
    assert pieces.finish() == ""
