#!/usr/bin/env python3
"""Schemas of the objects that mp writes, as small files in schemas/: from Kubernetes' Go modules, and from CRDs in a folder.

    extract.py kubernetes               the OpenAPI documents of each of VERSIONS (120 MB to fetch, nothing of it stays)
    extract.py crd FILE SOURCE COMMIT   one CustomResourceDefinition, as a project has it at a commit

Descriptions are left out; everything that a server checks stays.
"""

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).resolve().parent / "schemas"
MODULE, VERSIONS = "k8s.io/kubernetes", ("v1.34.4", "v1.35.4", "v1.36.1")
KINDS = {  # OpenAPI document → the kinds of it that are taken
    "api__v1": ("ConfigMap", "PersistentVolumeClaim", "Service", "ServiceAccount"),
    "apis__apps__v1": ("Deployment", "StatefulSet"),
    "apis__autoscaling__v2": ("HorizontalPodAutoscaler",),
    "apis__batch__v1": ("Job",),
    "apis__policy__v1": ("PodDisruptionBudget",),
}
REFERENCE = "#/components/schemas/"
LICENCE = "Apache-2.0"


def kubernetes(version: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            ["go", "mod", "download", "-json", "-modcacherw", f"{MODULE}@{version}"],
            env={**os.environ, "GOMODCACHE": folder, "GOFLAGS": "-mod=mod"},
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
        with zipfile.ZipFile(json.loads(done.stdout)["Zip"]) as archive:
            documents = {name: _document(archive, version, name) for name in KINDS}
    kinds: dict[str, str] = {}
    schemas: dict[str, Any] = {}
    for name, wanted in KINDS.items():
        known = documents[name]["components"]["schemas"]
        for kind, api, schema in _kinds(known):
            if kind in wanted:
                kinds[f"{api}/{kind}"] = schema
                _gather(known, schema, schemas)
    return {
        "source": f"{MODULE} {version}, api/openapi-spec/v3",
        "licence": LICENCE,
        "kinds": kinds,
        "schemas": schemas,
    }


def _document(archive: zipfile.ZipFile, version: str, name: str) -> Any:
    return json.loads(archive.read(f"{MODULE}@{version}/api/openapi-spec/v3/{name}_openapi.json"))


def _kinds(schemas: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Each kind of a document: its name, its API, its schema's name."""
    for name, schema in schemas.items():
        for one in schema.get("x-kubernetes-group-version-kind", ()):
            api = f"{one['group']}/{one['version']}" if one["group"] else one["version"]
            yield one["kind"], api, name


def _gather(known: dict[str, Any], name: str, found: dict[str, Any]) -> None:
    """A schema and all that it refers to."""
    if name in found:
        return
    found[name] = bare(known[name])
    for reference in _references(found[name]):
        _gather(known, reference.removeprefix(REFERENCE), found)


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, each in value.items():
            if key == "$ref":
                yield each
            else:
                yield from _references(each)
    elif isinstance(value, list):
        for each in value:
            yield from _references(each)


def bare(value: Any, *, names: bool = False) -> Any:
    """Without descriptions; `names`: the keys are names of fields, one of which may be "description"."""
    if isinstance(value, dict):
        return {
            key: bare(each, names=key == "properties" and not names)
            for key, each in value.items()
            if names or key != "description" or not isinstance(each, str)
        }
    return [bare(each) for each in value] if isinstance(value, list) else value


def write(name: str, content: dict[str, Any]) -> None:
    file = FOLDER / f"{name}.json"
    file.write_text(json.dumps(content, sort_keys=True, separators=(",", ":")) + "\n", encoding="utf-8")


def main() -> None:
    match sys.argv[1:]:
        case ["kubernetes"]:
            for version in VERSIONS:
                write(f"kubernetes-{version}", kubernetes(version))
        case ["crd", file, source, commit]:
            crd = bare(yaml.safe_load(Path(file).read_text(encoding="utf-8")))
            write(
                crd["metadata"]["name"],
                {"source": f"{source} {commit}", "licence": LICENCE, "definition": crd},
            )
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
