"""[MODEL]…: names, globs, and a suggestion for what fits nothing."""

import pytest

from pipeline.cli.select import selected
from pipeline.core.errors import UserError

KNOWN = ["qwen3-8b", "qwen3-32b", "llama-70b"]


def test_nothing_asked_for_means_all() -> None:
    assert selected(None, KNOWN) == ()
    assert selected([], KNOWN) == ()


def test_globs_and_names_keep_the_order_of_the_manifest() -> None:
    assert selected(["llama-70b", "qwen*"], KNOWN) == ("qwen3-8b", "qwen3-32b", "llama-70b")


def test_every_unknown_name_is_told_at_once_with_a_suggestion() -> None:
    with pytest.raises(UserError) as raised:
        selected(["qwen3-8", "llama-70b", "zzz*"], KNOWN)

    first, second = raised.value.diagnostics
    assert (first.summary, first.hint) == ('there is no model "qwen3-8"', 'did you mean "qwen3-8b"?')
    assert (second.summary, second.hint) == (
        'no model fits "zzz*"',
        "there are qwen3-8b, qwen3-32b, llama-70b",
    )
