"""Everything the manifest will say one day is recognised today, and refused with its line."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.manifest.later import LATER, Later, find_later
from pipeline.manifest.read import read


def with_later(later: Later) -> dict[str, Any]:
    """A manifest that is right but for one part of the table."""
    manifest: dict[str, Any] = {
        "version": 1,
        "project": "acme",
        "defaults": {"template": "vllm", "hardware": "x"},
        "inventory": {},
        "secrets": {"x": {"env": "X"}},
        "hardware": {"x": {"gpus": 0}},
        "engines": {"vllm": {}},
        "targets": {"x": {"kind": "docker"}},
        "models": {"x": {"source": "./x", "targets": {"x": {}}}},
    }
    node = manifest
    for part in later.pattern[:-1]:
        name = ("vllm" if "engines" in later.pattern else "x") if part == "*" else part
        node = node.setdefault(name, {})
    node[later.pattern[-1]] = later.values[0] if later.values else "soon"
    return manifest


@pytest.mark.parametrize("later", LATER, ids=[".".join(later.pattern) for later in LATER])
def test_later_part_is_refused_as_not_supported_yet(tmp_path: Path, later: Later) -> None:
    path = tmp_path / "models.yaml"
    path.write_text(yaml.safe_dump(with_later(later), sort_keys=False))
    said = [d for d in read(path).diagnostics if "is missing" not in d.summary]
    assert [d.summary.endswith(f"({later.what}) is not supported yet") for d in said] == [True]
    assert said[0].where is not None
    assert f"{later.pattern[-1]}:" in path.read_text().splitlines()[said[0].where.line - 1]


def test_every_value_of_the_table_is_found() -> None:
    for later in LATER:
        path = tuple("any" if part == "*" else part for part in later.pattern)
        for value in later.values or ("whatever",):
            assert find_later(path, value) == later


def test_known_places_are_not_in_the_table() -> None:
    assert find_later(("targets", "x", "kind"), "docker") is None
    assert find_later(("models", "x", "source"), "./x") is None
