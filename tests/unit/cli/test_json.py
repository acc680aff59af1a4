"""Machine output keeps to its schemas, and the committed schemas are fresh."""

import json as text_json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pipeline.cli.views import entries, json, stock
from pipeline.cli.views.details import Details, Kept, Live, Provenance
from pipeline.cli.views.entries import Fate, Pulled
from pipeline.cli.views.history import history_json
from pipeline.cli.views.schema import SCHEMAS
from pipeline.cli.views.standing import status_json
from pipeline.cli.views.tables import AdapterRow, Row
from pipeline.core.change import Action, FieldDiff
from pipeline.core.diagnostic import Where, error, warning
from pipeline.core.digest import Json, digest
from pipeline.core.errors import Denied, Unreachable
from pipeline.core.model import Facts, FileEntry, Filter
from pipeline.core.report import Report
from pipeline.core.resource import Unreadable
from pipeline.engine.outdated import Difference, Looked, NewerEngine, Outdated
from pipeline.engine.prune import ImageFate, Pruned, Pruning
from pipeline.resources.cache.adopt import Found
from pipeline.resources.cache.cached import Cached
from pipeline.resources.cache.reclaim import Reclaim
from pipeline.resources.cache.shelf import Damage
from pipeline.resources.image.reclaim import Held, Place
from tests.unit.cli.building import Box, artifact, change, plan
from tests.unit.cli.test_report import RUN
from tests.unit.cli.test_standing import HISTORY, STANDINGS

SCHEMA_FOLDER = Path(__file__).parents[3] / "schema"
PLAN = plan(
    change("qwen/docker:box", Action.UPDATE, diffs=[FieldDiff("launch/env/A", None, ["x"])], line=3),
    change("old/docker:box", Action.DELETE),
    change(
        "tiny/docker:box",
        Action.CREATE,
        applied=Box(),
        missing=True,
        drift=[FieldDiff("memory_bytes", 1, None)],
    ),
    unreadable={"far/docker:away": Unreadable("timeout", "is it up?")},
    diagnostics=[error("wrong", Where("models.yaml", 1, 2), "do this", "qwen")],
    refusals=[error("protected")],
)
CACHED = Cached(
    "hf://Qwen/Qwen3-8B",
    ("main", "v1"),
    "9c0d2f7a" * 5,
    12,
    (FileEntry("model.safetensors", 12, "ab" * 32),),
    Path("/cache/x"),
    True,
    "model",
    "2026-01-31T12:00:00Z",
    0.0,
    "mp",
)
FOUND = Found("hf://acme/x", (), "", {}, "instructlab", Path("/other"), Path("/other/models/x"))
MADE_PRUNED = entries.pruned(
    [Fate(CACHED, True, "not used for 45 days")],
    Reclaim((CACHED,), (), (), (), (), (), 12, 0.0, False),
    None,
)
PLACE = Place("127.0.0.1:5000/acme", "tiny")
HELD = Held(PLACE, "mp-0123456789ab", digest(b"image"), "acme", "", (), 12)
DENIED = Denied(PLACE.location, "does not let anybody delete images (405)", "allow it there")
PRUNING = Pruning(
    (ImageFate(HELD, True, "nothing uses it, 2 newer stay"),),
    (),
    (),
    {PLACE: 3},
    {"layout:/srv": Denied("/srv", "denied")},
    {},
    12,
    {PLACE.location: 12},
    {},
)
PRUNED = Pruned(1, 12, {PLACE.location: 12}, (DENIED,))

MADE: dict[str, dict[str, Json]] = {
    "status": status_json(STANDINGS),
    "history": history_json(HISTORY),
    "plan": json.plan(PLAN),
    "report": json.report(RUN),
    "drift": json.drift(PLAN),
    "list": json.models(
        [
            Row("qwen", "box", "running", "main", "9c0d2f7", None, ("here/qwen:mp-1@sha256:ab",), "./q", 12),
            Row("old", "box", "kept", "", ""),
        ],
        [AdapterRow("qwen", "fr", "cached", "v2", "9c0d2f7", "hf://acme/fr", 12)],
        [CACHED],
    ),
    "outdated": json.outdated(
        Looked(
            (
                Outdated(
                    ("qwen", "weights"),
                    artifact(),
                    artifact("4e" * 20),
                    (Difference("weights", "1 of 2", 3),),
                ),
                Outdated(("old", "weights"), artifact(), None, (), Unreachable("hub", "time-out")),
            ),
            3,
            1,
        ),
        [NewerEngine("vllm", "cpu", "0.32.0", "0.33.0")],
    ),
    "validate": json.validation("models.yaml", [error("wrong", Where("models.yaml", 1, 2), "do this")]),
    "locked": json.locked(["tiny: not in models.lock"], [warning("open")], written=True),
    "show": json.details(
        [
            Details(
                "qwen",
                "models.yaml:3:3",
                (
                    Provenance(
                        "weights",
                        "hf://Qwen/Qwen3-8B",
                        ("main",),
                        "9c0d2f7a" * 5,
                        CACHED.files,
                        Filter(("*.json",), allow=(("run.py", "ab" * 32),)),
                        7,
                        Facts(layers=2, license="mit", gated=False),
                        Kept("/cache/x", True, "2026-01-31T12:00:00Z", "mp"),
                        5,
                    ),
                ),
                (
                    Live(
                        "qwen/docker:box",
                        "docker",
                        "drifted",
                        "update",
                        "drifted",
                        drift=(FieldDiff("gpus", 1, 2),),
                        fields={"gpus": 2, "launch": {"argv": ["serve"]}},
                    ),
                ),
            ),
            Details("old", None, (Provenance("weights", "", (), "9c0d2f7a" * 5, ()),)),
        ]
    ),
    "pulled": entries.pulled([Pulled("qwen", "weights", artifact(), Path("/cache/x"), 12, 0.5)]),
    "cached": entries.listed([CACHED, replace(CACHED, source="", fetched_at=None, tool=None)], 12),
    "verified": entries.verified([CACHED], [Damage("hf://a/b", "9c0d2f7a" * 5, "x", "wrong")], 12),
    "pruned": MADE_PRUNED,
    "prune": stock.document(PRUNING, PRUNED, MADE_PRUNED),
    "imported": entries.imported([FOUND, FOUND], [12, 0], {0: CACHED}, {1: "a link leads out"}),
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_output_keeps_to_its_schema(name: str) -> None:
    schema: dict[str, Any] = SCHEMAS[name]()

    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(text_json.loads(json.text(MADE[name])), schema)


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_refuses_unknown_keys(name: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**MADE[name], "surprise": 1}, SCHEMAS[name]())


@pytest.mark.parametrize("name", SCHEMAS)
def test_committed_schema_is_fresh(name: str) -> None:
    committed = (SCHEMA_FOLDER / f"{name}.schema.json").read_text(encoding="utf-8")

    assert committed == json.text(SCHEMAS[name]()) + "\n", "run: just schema"


def test_plan_counts_and_places_are_in_the_json() -> None:
    made: Any = MADE["plan"]  # Any: a JSON document

    assert made["summary"]["create"] == 1 and made["summary"]["delete"] == 1
    assert made["changes"][0]["where"] == "models.yaml:3:3"
    assert made["changes"][0]["diffs"] == [{"path": "launch/env/A", "before": None, "after": ["x"]}]
    assert made["complete"] is False


def test_drift_names_only_what_drifted() -> None:
    made: Any = MADE["drift"]  # Any: a JSON document

    assert [one["address"] for one in made["drifted"]] == ["tiny/docker:box"]


def test_empty_report_is_valid() -> None:
    jsonschema.validate(json.report(Report(())), SCHEMAS["report"]())
