"""The parts that all other tests stand on: each is the real thing and answers."""

import json
import socket
import urllib.error
import urllib.request

import docker
import pytest

from tests.parts.base_image import BaseImage
from tests.parts.registry import RealRegistry, running_registry


def test_connections_out_of_this_machine_are_refused() -> None:
    with pytest.raises(RuntimeError, match="on this machine only"), socket.socket() as outside:
        outside.connect(("192.0.2.1", 80))


@pytest.mark.registry
def test_registry_answers_and_writes_an_access_log(registry: RealRegistry) -> None:
    with urllib.request.urlopen(f"http://{registry.host}/v2/_catalog", timeout=5) as answer:
        assert "repositories" in json.load(answer)
    assert any(request.startswith("GET /v2/_catalog") for request in registry.requests())


@pytest.mark.registry
def test_registry_comes_back_on_its_port_after_a_stop(tmp_path_factory: pytest.TempPathFactory) -> None:
    with running_registry(tmp_path_factory.mktemp("restarted")) as own:
        own.stop()
        with pytest.raises(OSError, match="refused"):
            urllib.request.urlopen(f"http://{own.host}/v2/", timeout=5)
        own.start()
        with urllib.request.urlopen(f"http://{own.host}/v2/", timeout=5) as answer:
            assert answer.status == 200


@pytest.mark.registry
def test_locked_registry_refuses_strangers(locked_registry: RealRegistry) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"http://{locked_registry.host}/v2/", timeout=5)
    assert refused.value.code == 401


@pytest.mark.docker
@pytest.mark.registry
def test_base_image_runs_python_and_has_what_engines_need(docker_host: str, base_image: BaseImage) -> None:
    client = docker.DockerClient(base_url=docker_host)
    try:
        said = client.containers.run(
            base_image.local,
            ["sh", "-c", "lscpu >/dev/null && python -c 'import ssl, sqlite3, asyncio; print(40 + 2)'"],
            user="10001:10001",
            remove=True,
        )
    finally:
        client.close()
    assert said.decode().strip() == "42"
    assert base_image.digest.startswith("sha256:")
