"""Builders of buildx, read from the files that it keeps: where they are, and what cannot be used."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from pipeline.clients.buildx import Endpoint, endpoint
from pipeline.clients.handshake import Certificates
from pipeline.core.errors import BackendError, Corrupt, Missing

PLATFORM = "linux/amd64"
ARM = {"architecture": "arm64", "os": "linux", "variant": "v8"}


def kept(folder: Path, driver: str, *nodes: Mapping[str, object]) -> dict[str, str]:
    """A home in which buildx keeps one builder; the environment of its owner."""
    instances = folder / ".docker" / "buildx" / "instances"
    instances.mkdir(parents=True)
    named = [{"Name": f"far{number}", "Platforms": None, **node} for number, node in enumerate(nodes)]
    (instances / "far").write_text(json.dumps({"Name": "far", "Driver": driver, "Nodes": named}))
    return {"HOME": str(folder)}


def test_a_remote_builder_has_its_address_and_its_certificates(tmp_path: Path) -> None:
    options = {"cacert": "/c/ca.pem", "cert": "/c/cert.pem", "key": "/c/key.pem", "servername": "b"}
    environ = kept(
        tmp_path, "remote", {"Endpoint": "tcp://b:1", "DriverOpts": {**options, "default-load": "true"}}
    )

    certificates = Certificates("/c/ca.pem", "/c/cert.pem", "/c/key.pem", "b")
    assert endpoint("far", PLATFORM, environ) == Endpoint("tcp://b:1", certificates)
    assert endpoint("FAR", PLATFORM, environ) == Endpoint("tcp://b:1", certificates), "as buildx reads names"


def test_files_are_looked_for_where_buildx_keeps_them(tmp_path: Path) -> None:
    kept(tmp_path, "remote", {"Endpoint": "tcp://b:1"})
    docker = tmp_path / ".docker"
    for environ in ({"DOCKER_CONFIG": str(docker)}, {"BUILDX_CONFIG": str(docker / "buildx")}):
        assert endpoint("far", PLATFORM, {"HOME": "/nonexistent", **environ}) == Endpoint("tcp://b:1")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("desktop", Endpoint("docker-container://buildx_buildkit_far0?context=desktop")),
        (
            "ssh://me@far",
            Endpoint("docker-container://buildx_buildkit_far0", environ={"DOCKER_HOST": "ssh://me@far"}),
        ),
        ("", Endpoint("docker-container://buildx_buildkit_far0")),
    ],
)
def test_a_builder_in_a_container_is_reached_through_its_docker_engine(
    tmp_path: Path, host: str, expected: Endpoint
) -> None:
    assert endpoint("far", PLATFORM, kept(tmp_path, "docker-container", {"Endpoint": host})) == expected


def test_of_several_nodes_the_one_for_the_platform_is_meant(tmp_path: Path) -> None:
    nodes = {"Endpoint": "tcp://first:1"}, {"Endpoint": "tcp://arm:1", "Platforms": [ARM]}
    environ = kept(tmp_path, "remote", *nodes)

    assert endpoint("far", "linux/arm64", environ).address == "tcp://arm:1"
    assert endpoint("far", PLATFORM, environ).address == "tcp://first:1"


@pytest.mark.parametrize(
    ("driver", "node", "kind", "said"),
    [
        ("kubernetes", {"Endpoint": "kubernetes:///far"}, BackendError, 'its driver is "kubernetes"'),
        (
            "remote",
            {"Endpoint": "tcp://b:1", "DriverOpts": {"cert": "/c", "key": "/k"}},
            Corrupt,
            'no "cacert"',
        ),
        (
            "remote",
            {"Endpoint": "tcp://b:1", "DriverOpts": {"cacert": "/a", "cert": "/c"}},
            Corrupt,
            'no "key"',
        ),
        ("remote", {}, Corrupt, "is not what buildx writes"),
    ],
)
def test_a_builder_that_cannot_be_used_says_why(
    tmp_path: Path, driver: str, node: Mapping[str, object], kind: type[BackendError], said: str
) -> None:
    with pytest.raises(kind, match=said) as refused:
        endpoint("far", PLATFORM, kept(tmp_path, driver, node))
    assert refused.value.hint


def test_a_builder_that_is_not_there_is_looked_for_in_the_place_that_is_named(tmp_path: Path) -> None:
    with pytest.raises(Missing, match=f'no builder "far" in {tmp_path}/.docker/buildx/instances'):
        endpoint("far", PLATFORM, {"HOME": str(tmp_path)})


@pytest.mark.parametrize(
    "content", ["[]", "{", '{"Driver": "remote", "Nodes": []}', '{"Driver": "remote", "Nodes": [1]}']
)
def test_a_file_of_another_form_is_no_crash(tmp_path: Path, content: str) -> None:
    environ = kept(tmp_path, "remote")
    (tmp_path / ".docker" / "buildx" / "instances" / "far").write_text(content)
    with pytest.raises(Corrupt):
        endpoint("far", PLATFORM, environ)
