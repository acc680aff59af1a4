"""Names that imported entries get: none stands for two things."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.engine.importing import imported
from pipeline.manifest.read import read
from pipeline.manifest.spec import Manifest
from pipeline.targets.described import Described, Gpus

HEAD = "version: 1\nproject: acme\ntargets: {prod: {kind: kubernetes, namespace: m}}\n"


def manifest(folder: Path, sections: str = "models: {}\n") -> Manifest:
    file = folder / "models.yaml"
    file.write_text(HEAD + sections)
    document = read(file)
    assert document.manifest is not None, document.diagnostics
    return document.manifest


def described(name: str = "qwen", env: dict[str, Any] | None = None, gpus: Gpus | None = None) -> Described:
    """Any: a text, or name and key of a Secret."""
    options = {"name": name, "replicas": 1, "runs": {"container": "vllm", "image": "vllm:1"}}
    return Described(name, "hf://a/b", "main", gpus or Gpus(0, None), env or {}, options, (), ())


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("hub", "HF_TOKEN"), ("hub-hf", "TOKEN")),
        (("hub", "token"), ("hub", "TOKEN")),
        (("a" * 60, "first"), ("a" * 60, "fist")),
    ],
)
def test_secrets_whose_names_would_be_the_same_stay_apart(
    tmp_path: Path, first: tuple[str, str], second: tuple[str, str]
) -> None:
    made = imported(manifest(tmp_path), "prod", [described(env={"A": first, "B": second, "C": first})])

    env = made.models["qwen"]["env"]
    assert env["A"] == env["C"] != env["B"]
    for variable, (name, key) in {"A": first, "B": second}.items():
        assert made.secrets[env[variable]["secret"]] == {"kubernetes": {"name": name, "key": key}}
    assert all(len(name) <= 63 for name in made.secrets)


def test_a_declared_secret_of_that_name_is_another(tmp_path: Path) -> None:
    known = manifest(tmp_path, "secrets: {hub-token: {env: HUB_TOKEN}}\nmodels: {}\n")

    made = imported(known, "prod", [described(env={"A": ("hub", "token")})])

    assert made.models["qwen"]["env"] == {"A": {"secret": "hub-token-2"}}
    assert made.secrets == {"hub-token-2": {"kubernetes": {"name": "hub", "key": "token"}}}


def test_a_declared_hardware_class_of_that_name_is_another(tmp_path: Path) -> None:
    known = manifest(tmp_path, "hardware: {nvidia-l40s-x2: {gpus: 0}}\nmodels: {}\n")
    gpus = Gpus(2, "NVIDIA-L40S")

    made = imported(known, "prod", [described("one", gpus=gpus), described("two", gpus=gpus)])

    assert [entry["hardware"] for entry in made.models.values()] == ["nvidia-l40s-x2-2"] * 2
    assert made.hardware == {"nvidia-l40s-x2-2": {"gpu": "NVIDIA-L40S", "gpus": 2}}


def test_machines_of_which_one_has_the_name_are_two_classes(tmp_path: Path) -> None:
    """An instance type says more than a product: ND96 with 8 GPUs is not ND96 with 4 of them asked for."""
    found = [
        described("one", gpus=Gpus(8, "H100", 1, "ND96")),
        described("two", gpus=Gpus(4, "H100", 1, "ND96")),
    ]

    made = imported(manifest(tmp_path), "prod", found)

    assert [made.hardware[entry["hardware"]]["gpus"] for entry in made.models.values()] == [8, 4]


def test_an_object_gets_an_entry_of_its_own_where_its_name_is_another_ones(tmp_path: Path) -> None:
    known = manifest(tmp_path, "models: {qwen: {source: 'hf://a/b', version: main, template: vllm}}\n")

    made = imported(known, "prod", [described("qwen"), described("qwen-prod")])

    assert {entry["targets"]["prod"]["name"] for entry in made.models.values()} == {"qwen", "qwen-prod"}
