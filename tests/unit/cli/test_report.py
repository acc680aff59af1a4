"""What a run did: every outcome, failures in full, answers as proof, one fixed last line."""

from textwrap import dedent

from pipeline.cli.views.report import last_line
from pipeline.cli.views.report import report as view
from pipeline.core.change import Action
from pipeline.core.report import Outcome, Report, Status
from pipeline.core.resource import Address, Proof

RUN = Report(
    (
        Outcome(Address("tiny/artifact"), Action.CREATE, Status.APPLIED, 0.42),
        Outcome(
            Address("tiny/local:laptop"),
            Action.CREATE,
            Status.APPLIED,
            12.3,
            proof=Proof(
                "http://127.0.0.1:8000/v1/chat/completions", "What is mp?", "A models.yaml, applied.", 0.2
            ),
            endpoint="http://127.0.0.1:8000",
        ),
        Outcome(
            Address("qwen/image:main"),
            Action.CREATE,
            Status.FAILED,
            3.0,
            "registry ghcr.io: 401 unauthorized",
            "docker login ghcr.io",
        ),
        Outcome(Address("qwen/docker:box"), Action.UPDATE, Status.SKIPPED, error="needs qwen/image:main"),
    )
)


def test_report_shows_outcomes_then_failures_then_answers() -> None:
    assert view(RUN) == dedent(
        """\
        ADDRESS            ACTION  RESULT   SECONDS
        tiny/artifact      create  applied      0.4
        tiny/local:laptop  create  applied     12.3  http://127.0.0.1:8000
        qwen/image:main    create  failed       3.0  registry ghcr.io: 401 unauthorized
        qwen/docker:box    update  skipped      0.0  needs qwen/image:main

        Failed: qwen/image:main
          registry ghcr.io: 401 unauthorized
          hint: docker login ghcr.io

        tiny/local:laptop  http://127.0.0.1:8000
          asked     What is mp?
          answered  A models.yaml, applied. (0.2 s)

        Applied 2, failed 1, skipped 1, unknown 0."""
    )


def test_interrupted_run_says_how_to_go_on() -> None:
    text = view(Report((), interrupted=True))

    assert text == (
        "Interrupted: run it again, finished work is recognised.\nApplied 0, failed 0, skipped 0, unknown 0."
    )


def test_unknown_outcome_says_to_look_again() -> None:
    text = view(Report((Outcome(Address("a/docker:b"), Action.CREATE, Status.UNKNOWN),)))

    assert "Unknown: a/docker:b\n  cut off: plan again to see what is there" in text
    assert last_line(Report(())) == "Applied 0, failed 0, skipped 0, unknown 0."


def test_answer_cannot_steer_the_terminal() -> None:
    proof = Proof("u", "p", "red \x1b[31m\x07 text\nsecond line", 0.1)

    text = view(Report((Outcome(Address("a/b:c"), Action.CREATE, Status.APPLIED, proof=proof),)))

    assert "\x1b" not in text and "\x07" not in text
    assert "text second line" in text


def test_an_inventory_that_could_not_be_saved_is_said_above_the_last_line() -> None:
    text = view(
        Report(
            (Outcome(Address("a/docker:b"), Action.CREATE, Status.APPLIED),), unsaved="inventory: disk full"
        )
    )
    assert text.splitlines()[-2] == "Not saved: inventory: disk full"
