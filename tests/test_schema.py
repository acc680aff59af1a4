"""The committed schemas are what the records say, and what people write keeps to them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from pipeline.cli.commands.schema import NAMES, schema
from pipeline.cli.views import json as machine
from pipeline.manifest.later import LATER

ROOT = Path(__file__).resolve().parents[1]
MANIFESTS = sorted(
    [*ROOT.glob("models.yaml"), *ROOT.glob("examples/*/models.yaml"), *ROOT.glob("tests/cases/*/models.yaml")]
)
LOCKS = sorted(
    [*ROOT.glob("models.lock"), *ROOT.glob("examples/*/models.lock"), *ROOT.glob("tests/cases/*/models.lock")]
)


def committed(name: str) -> Any:  # Any: a schema is as heterogeneous as JSON
    return json.loads((ROOT / "schema" / f"{name}.schema.json").read_text())


def nodes(node: Any) -> Iterator[Any]:
    yield node
    for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from nodes(inner)


@pytest.mark.parametrize("name", NAMES)
def test_committed_schema_is_fresh(name: str) -> None:
    text = (ROOT / "schema" / f"{name}.schema.json").read_text()
    assert text == machine.text(schema(name)) + "\n", "just schema"


def test_no_schema_is_committed_that_nothing_makes() -> None:
    assert {path.name for path in (ROOT / "schema").iterdir()} == {f"{name}.schema.json" for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_schema_is_one_and_stands_alone(name: str) -> None:
    found = committed(name)
    jsonschema.validators.validator_for(found).check_schema(found)
    for node in nodes(found):
        if isinstance(node, dict) and isinstance(reference := node.get("$ref"), str):
            assert reference.startswith("#/"), "editors must not have to fetch anything"
            place = found
            for part in reference.removeprefix("#/").split("/"):
                place = place[part]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.parent.name)
def test_manifest_keeps_to_the_schema(path: Path) -> None:
    jsonschema.validate(yaml.safe_load(path.read_text()), committed("models"))


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.parent.name)
def test_lock_keeps_to_the_schema(path: Path) -> None:
    jsonschema.validate(json.loads(path.read_text()), committed("lock"))


def test_first_line_of_every_example_points_at_the_schema() -> None:
    for path in [p for p in MANIFESTS if "cases" not in p.parts]:
        found = re.match(r"# yaml-language-server: \$schema=(\S+)\n", path.read_text())
        assert found, path
        assert (path.parent / found.group(1)).resolve() == ROOT / "schema" / "models.schema.json"


@pytest.mark.parametrize("name", ["models", "lock"])
def test_every_key_is_explained_in_editors(name: str) -> None:
    found = committed(name)
    for owner, spec in {"": found, **found["definitions"]}.items():
        for key, node in spec.get("properties", {}).items():
            assert node.get("description") or key == "kind", f"{owner}.{key}"


def test_what_is_not_supported_yet_is_not_offered() -> None:
    offered = committed("models")["properties"]
    assert not {later.pattern[0] for later in LATER if len(later.pattern) == 1} & set(offered)


def test_docs_examples_keep_to_the_schema() -> None:
    page = (ROOT / "docs" / "manifest.md").read_text()
    for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL):
        jsonschema.validate(yaml.safe_load(block), committed("models"))
