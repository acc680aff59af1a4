"""No line of any view is longer than a hundred columns or steers a terminal, whatever names and texts hold."""

import re
import unicodedata

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cli.views.diagnostics import diagnostics
from pipeline.cli.views.drift import drift
from pipeline.cli.views.origin import Origin
from pipeline.cli.views.plan import plan as plan_view
from pipeline.cli.views.report import report as report_view
from pipeline.cli.views.tables import Details, Row, details, models
from pipeline.cli.views.text import WIDTH, ansi, columns, cut, wrap
from pipeline.core.change import Action, Change, FieldDiff
from pipeline.core.diagnostic import Diagnostic, Severity, Where
from pipeline.core.report import Outcome, Report, Status
from pipeline.core.resource import Address, Proof, Transfer, Unreadable
from tests.unit.cli.building import Box, artifact, change, plan

TEXT = st.text(max_size=150) | st.text(alphabet="模型 aé̂/:-\t\x1b\n", max_size=150)
NAME = st.text(alphabet="abc-模.", min_size=1, max_size=120) | st.just("n" * 120)
JSON = st.none() | st.booleans() | st.integers() | TEXT | st.lists(TEXT, max_size=3)
DIFF = st.builds(FieldDiff, TEXT, JSON, JSON)
WHERE = st.none() | st.builds(Where, NAME, st.integers(1, 6), st.integers(1, 300))
SIZE = st.integers(0, 10**15)
DIAGNOSTIC = st.builds(
    Diagnostic, st.sampled_from(Severity), TEXT, WHERE, st.none() | TEXT, st.none() | TEXT, st.none() | NAME
)


@st.composite
def changes(draw: st.DrawFn) -> Change[Box]:
    owner = draw(NAME | st.just("@engine"))
    kind = draw(st.sampled_from(["artifact", "image", "docker", "engine"]))
    return change(
        f"{owner}/{kind}:{draw(NAME)}",
        draw(st.sampled_from(Action)),
        desired=Box(artifact=artifact(source=draw(TEXT), version=draw(TEXT))),
        live=draw(st.none() | st.just(Box())),
        diffs=draw(st.lists(DIFF, max_size=9)),
        drift=draw(st.lists(DIFF, max_size=2)),
        missing=draw(st.booleans()),
        reason=draw(TEXT),
        transfer=Transfer(draw(SIZE), draw(SIZE), draw(SIZE), draw(st.booleans())),
        line=draw(st.none() | st.integers(1, 10**6)),
    )


def assert_fits(text: str) -> None:
    for line in text.split("\n"):
        assert columns(line) <= WIDTH, line
        bare = re.sub(r"\x1b\[[0-9;]*m", "", line)
        assert not any(unicodedata.category(character) in ("Cc", "Zl", "Zp", "Cf") for character in bare), (
            line
        )


@settings(max_examples=120, deadline=None)
@given(
    st.lists(changes(), max_size=4), st.lists(DIAGNOSTIC, max_size=2), st.dictionaries(NAME, TEXT, max_size=2)
)
def test_plans_and_drift_fit(
    found: list[Change[Box]], remarks: list[Diagnostic], unread: dict[str, str]
) -> None:
    made = plan(
        *found,
        diagnostics=remarks,
        refusals=remarks,
        unreadable={name: Unreadable(reason, reason) for name, reason in unread.items()},
    )
    origin = Origin("models.yaml" * 9, "a" * 40, True, unlocked=("x" * 130, "y z"))

    for view in (plan_view, drift):
        assert_fits(view(made, origin, {}, ansi))


@settings(max_examples=60, deadline=None)
@given(st.lists(DIAGNOSTIC, min_size=1, max_size=3), TEXT)
def test_diagnostics_fit(items: list[Diagnostic], source: str) -> None:
    sources = {item.where.file: source * 3 for item in items if item.where}

    assert_fits(diagnostics(items, sources, ansi))


@settings(max_examples=60, deadline=None)
@given(NAME, st.sampled_from(Status), TEXT, TEXT, st.floats(0, 10**6))
def test_reports_and_tables_fit(name: str, status: Status, text: str, other: str, seconds: float) -> None:
    proof = Proof(text, other, text, seconds)
    outcome = Outcome(Address(name), Action.CREATE, status, seconds, text, other, proof, other)

    assert_fits(report_view(Report((outcome,), True), ansi))
    assert_fits(
        models(
            [
                Row(name, name, text, other, text, other),
                Row(name, name, text, other, text, None, (f"{other}/{text}:{name}",)),
            ],
            ansi,
        )
    )
    assert_fits(details(Details(name, ((text[:40].strip(), ((name, other),)),)), ansi))


@given(st.text(), st.integers(1, 40))
def test_cut_never_exceeds_its_width(text: str, width: int) -> None:
    assert columns(cut(text, width)) <= width


@given(st.text(alphabet="ab c模", max_size=200), st.integers(2, 40))
def test_wrap_keeps_every_character_but_spaces(text: str, width: int) -> None:
    lines = wrap(text, width)

    assert "".join(lines).replace(" ", "") == "".join(text.split())
    assert all(columns(line) <= width for line in lines)
