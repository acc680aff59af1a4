"""Flags: from what the user wrote to an argument list."""

import pytest

from pipeline.core.digest import Json
from pipeline.templates.flags import arguments, merged


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"max_num_seqs": 8}, ("--max-num-seqs=8",)),
        ({"--max-num-seqs": 8}, ("--max-num-seqs=8",)),
        ({"enforce-eager": True}, ("--enforce-eager",)),
        ({"enforce-eager": False}, ("--no-enforce-eager",)),
        ({"headless": False}, ()),
        ({"quantization": None}, ()),
        ({"max-model-len": -1}, ("--max-model-len=-1",)),
        ({"rate": 0.5}, ("--rate=0.5",)),
        ({"lora-modules": ["fr=/fr", "de=/de"]}, ("--lora-modules", "fr=/fr", "de=/de")),
        ({"overrides": {"b": 1, "a": [True]}}, ('--overrides={"a":[true],"b":1}',)),
        ({"compilation_config.pass_config": 3}, ("--compilation-config.pass_config=3",)),
    ],
)
def test_a_value_becomes_words_by_its_kind(args: dict[str, Json], words: tuple[str, ...]) -> None:
    assert arguments(args, {"enforce-eager"}) == words


def test_order_is_by_flag_however_it_was_written() -> None:
    assert arguments({"b": 1, "a_c": 2}, ()) == arguments({"a-c": 2, "b": 1}, ()) == ("--a-c=2", "--b=1")


def test_what_was_chosen_takes_the_place_of_the_default() -> None:
    defaults = ("--dtype=float32", "--enforce-eager", "--kv=1")
    assert merged(defaults, ("--dtype=auto", "--no-enforce-eager")) == (
        "--kv=1",
        "--dtype=auto",
        "--no-enforce-eager",
    )
