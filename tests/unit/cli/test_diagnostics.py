"""A mistake is shown with its place, its line, a caret under the word, and what to do."""

from textwrap import dedent

from pipeline.cli.views.diagnostics import diagnostics, failure
from pipeline.core.diagnostic import Where, error, warning

TEXT = "version: 1\nmodels:\n  qwen:\n    hardwares: l40s\n"


def shown(text: str) -> str:
    return dedent(text).strip("\n")


def test_mistake_is_shown_under_its_line() -> None:
    item = error('qwen: unknown key "hardwares"', Where("models.yaml", 4, 5), 'did you mean "hardware"?')

    assert diagnostics([item], {"models.yaml": TEXT}) == shown(
        """
        models.yaml:4:5: qwen: unknown key "hardwares"
          4 |     hardwares: l40s
            |     ^^^^^^^^^
          hint: did you mean "hardware"?
        """
    )


def test_all_mistakes_come_in_the_order_of_the_file_and_are_counted() -> None:
    items = [
        warning("later", Where("models.yaml", 4, 1)),
        error("no place"),
        error("first", Where("models.yaml", 1, 1)),
        error("second", Where("models.yaml", 2, 1)),
    ]

    lines = diagnostics(items, {}).splitlines()

    assert lines == [
        "models.yaml:1:1: first",
        "models.yaml:2:1: second",
        "models.yaml:4:1: warning: later",
        "error: no place",
        "3 errors, 1 warning",
    ]


def test_caret_stays_under_its_word_in_a_long_line() -> None:
    text = f"a: {{b: {'x' * 200}, wrong: 1}}"
    column = text.index("wrong") + 1

    _, excerpt, caret = diagnostics([error("no", Where("m.yaml", 1, column))], {"m.yaml": text}).splitlines()

    assert excerpt[caret.index("^") : caret.rindex("^") + 1] == "wrong"


def test_wide_characters_push_the_caret_aside() -> None:
    text = 'a: "模型" wrong'

    _, excerpt, caret = diagnostics([error("no", Where("m", 1, 9))], {"m": text}).splitlines()

    assert excerpt == '  1 | a: "模型" wrong'
    assert caret == "    |           ^^^^^"


def test_place_outside_the_file_has_no_excerpt() -> None:
    assert diagnostics([error("gone", Where("m", 9, 9))], {"m": "one line"}) == "m:9:9: gone"


def test_failure_names_the_next_step() -> None:
    assert failure("hub: 401", "set HF_TOKEN") == "error: hub: 401\n  hint: set HF_TOKEN"
