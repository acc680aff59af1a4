"""No line of any view is longer than a hundred columns or steers a terminal, whatever names and texts hold."""

import re
import unicodedata
from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cli.views import shelf
from pipeline.cli.views.details import Details, Kept, Live, Provenance, details
from pipeline.cli.views.diagnostics import diagnostics
from pipeline.cli.views.drift import drift
from pipeline.cli.views.entries import Fate
from pipeline.cli.views.origin import Origin
from pipeline.cli.views.plan import plan as plan_view
from pipeline.cli.views.report import report as report_view
from pipeline.cli.views.tables import AdapterRow, Row, adapters, models
from pipeline.cli.views.text import WIDTH, ansi, columns, cut, wrap
from pipeline.core.change import Action, Change, FieldDiff
from pipeline.core.diagnostic import Diagnostic, Severity, Where
from pipeline.core.model import Facts, FileEntry
from pipeline.core.report import Outcome, Report, Status
from pipeline.core.resource import Address, Proof, Transfer, Unreadable
from pipeline.resources.cache.adopt import Found
from pipeline.resources.cache.cached import Cached
from pipeline.resources.cache.reclaim import Reclaim
from pipeline.resources.cache.shelf import Damage
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
                Row(name, name, text, other, text, other, (), other, 10**12),
                Row(name, name, text, other, text, None, (f"{other}/{text}:{name}",)),
            ],
            ansi,
        )
    )
    assert_fits(adapters([AdapterRow(name, other, text, other, text, other, 10**12)], ansi))
    files = (FileEntry(name, 10**12, text), FileEntry(other, 1, other))
    source = Provenance(other, text, (other, text), name, files, facts=Facts(license=other))
    live = Live(name, name, text, remarks=(other,), url=other, fields={name: [other, text]})
    for kept in (None, Kept(text, True, other, text), Kept(text, False, None, None)):
        one = replace(source, kept=kept)
        assert_fits(details(Details(name, other, (one, replace(one, role="weights")), (live,)), text, ansi))


@settings(max_examples=60, deadline=None)
@given(NAME, TEXT, TEXT, SIZE, st.booleans())
def test_what_is_said_of_the_cache_fits(name: str, text: str, other: str, size: int, sound: bool) -> None:
    cached = Cached(
        name,
        (text, other),
        other,
        size,
        (),
        Path("/cache"),
        sound,
        "adapter" if sound else "model",
        text,
        0.0,
    )
    found = Found(name, (text,), other, {}, "instructlab", Path("/other"), Path("/other/x"), absent=("x",))
    plan = Reclaim((cached,), (Path("/v"),), (Path("/d"),), (), (Path("/b"),), (), size, 0.0, False)

    assert_fits(shelf.listed([cached, cached], size, 10.0**9, ansi))
    assert_fits(shelf.undeclared([cached], 10.0**9, ansi))
    assert_fits(shelf.verified([cached], [Damage(name, other, text, "wrong")], size, ansi))
    assert_fits(shelf.fates([Fate(cached, sound, text), Fate(cached, not sound, other)], plan, ansi))
    assert_fits(shelf.elsewhere([found], [size], ["to copy"], ansi))


@given(st.text(), st.integers(1, 40))
def test_cut_never_exceeds_its_width(text: str, width: int) -> None:
    assert columns(cut(text, width)) <= width


@given(st.text(alphabet="ab c模", max_size=200), st.integers(2, 40))
def test_wrap_keeps_every_character_but_spaces(text: str, width: int) -> None:
    lines = wrap(text, width)

    assert "".join(lines).replace(" ", "") == "".join(text.split())
    assert all(columns(line) <= width for line in lines)
