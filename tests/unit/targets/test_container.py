"""Containers as `docker inspect` shows them, read as the state that is compared."""

import json
from typing import Any

import pytest

from pipeline.clients.container import container_of
from pipeline.core.mark import mark_in
from pipeline.core.resource import Mark
from pipeline.targets.docker.live import endpoint_of, state_in
from pipeline.targets.docker.spec import is_here

LAUNCH = {"format_version": 1, "template": "vllm", "model": "/models", "served_name": "m", "host": "0.0.0.0"}
LAUNCH |= {"port": 8000, "argv": ["--a=1"], "env": {}, "secrets": {"K": "/run/secrets/mp/K"}}
BOUND = {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}
LABELS = {
    "dev.mp.project": "acme",
    "dev.mp.environment": "default",
    "dev.mp.address": "m/docker:box",
    "dev.mp.secrets": '{"K":"key"}',
}


def seen(
    config: dict[str, Any] | None = None, host: dict[str, Any] | None = None, **top: Any
) -> dict[str, Any]:
    """As the engine says it; Any: its JSON."""
    return {
        "Id": "f" * 64,
        "Name": "/acme-m",
        "Config": {
            "Image": "127.0.0.1:5000/acme/vllm.engine:mp-0123456789ab@sha256:" + "c" * 64,
            "Entrypoint": ["python3"],
            "Cmd": ["/opt/mp/serve.py"],
            "Env": [f"MP_LAUNCH={json.dumps(LAUNCH)}", "PATH=/bin"],
            "Labels": LABELS,
            **(config or {}),
        },
        "HostConfig": {
            "Memory": 0,
            "NanoCpus": 1500000000,
            "ShmSize": 2**26,
            "PortBindings": BOUND,
            **(host or {}),
        },
        "State": {"Running": True, "ExitCode": 0},
        "Mounts": [{"Source": "/c/views/abc", "Destination": "/models", "RW": False}],
        "NetworkSettings": {"Ports": {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "49153"}]}},
        **top,
    }


def test_every_field_is_read_from_what_the_engine_says() -> None:
    state = state_in(container_of(seen()))
    assert (state.image, state.weights, state.content) == ("mp-0123456789ab", "mount", "abc")
    assert state.command == ("python3", "/opt/mp/serve.py")
    assert state.launch == {
        "template": "vllm",
        "served_name": "m",
        "argv": ["--a=1"],
        "env": {},
        "secrets": {"K": "key"},
    }
    assert (state.memory_bytes, state.cpus, state.gpus, state.shm_bytes) == (None, 1.5, 0, 2**26)
    assert (state.bind, state.port, state.restart, state.running) == ("127.0.0.1", "auto", "no", True)


@pytest.mark.parametrize(
    ("host", "gpus"),
    [
        ({"DeviceRequests": [{"Count": 2, "Capabilities": [["gpu"]]}]}, 2),
        (
            {"DeviceRequests": [{"DeviceIDs": ["0", "3"], "Count": 0, "Capabilities": [["gpu", "utility"]]}]},
            2,
        ),
        ({"DeviceRequests": [{"Count": 1, "Capabilities": [["tpu"]]}]}, 0),
        ({"DeviceRequests": None}, 0),
    ],
)
def test_gpus_are_counted_however_they_were_asked_for(host: dict[str, Any], gpus: int) -> None:
    assert state_in(container_of(seen(host=host))).gpus == gpus


def test_image_without_our_tag_is_shown_as_it_is() -> None:
    assert state_in(container_of(seen({"Image": "nginx:latest"}))).image == "nginx:latest"


@pytest.mark.parametrize("environ", [["MP_LAUNCH={"], ["MP_LAUNCH=[]"], [], None])
def test_container_without_a_launch_that_can_be_read_has_an_empty_one(environ: list[str] | None) -> None:
    assert state_in(container_of(seen({"Env": environ}))).launch == {"secrets": {}}


def test_weights_that_can_be_written_or_are_not_mounted_are_told_apart() -> None:
    writable = seen(Mounts=[{"Source": "/c/views/abc", "Destination": "/models", "RW": True}])
    assert state_in(container_of(writable)).weights == "mount, writable"
    assert state_in(container_of(seen(Mounts=[]))).weights == "baked"


@pytest.mark.parametrize("state", [{"Restarting": True}, {"Paused": True}])
def test_restarting_and_paused_containers_do_not_run(state: dict[str, bool]) -> None:
    assert not state_in(container_of(seen(State={"Running": True, **state}))).running


@pytest.mark.parametrize(
    ("bound", "port"),
    [("8080", 8080), ("0", "auto"), ("", "auto")],
)
def test_port_is_the_declared_one_or_auto(bound: str, port: int | str) -> None:
    host = {"PortBindings": {"8000/tcp": [{"HostIp": "", "HostPort": bound}]}}
    state = state_in(container_of(seen(host=host)))
    assert (state.bind, state.port) == ("0.0.0.0", port)


def test_container_that_publishes_nothing_has_no_port() -> None:
    assert state_in(container_of(seen(host={"PortBindings": None}))).port == "none"


def test_mark_needs_all_three_labels() -> None:
    assert mark_in(LABELS) == Mark("acme", "default", "m/docker:box")  # type: ignore[arg-type]
    assert mark_in({"dev.mp.project": "acme"}) is None


@pytest.mark.parametrize(
    ("host", "address", "endpoint"),
    [
        ("", "127.0.0.1", "http://127.0.0.1:49153"),
        ("unix:///var/run/docker.sock", "0.0.0.0", "http://127.0.0.1:49153"),
        ("tcp://10.0.0.7:2376", "0.0.0.0", "http://10.0.0.7:49153"),
        ("ssh://gpu1", "10.0.0.8", "http://10.0.0.8:49153"),
    ],
)
def test_endpoint_is_where_this_machine_reaches_it(host: str, address: str, endpoint: str) -> None:
    ports = {"Ports": {"8000/tcp": [{"HostIp": address, "HostPort": "49153"}]}}
    assert endpoint_of(host, container_of(seen(NetworkSettings=ports))) == endpoint


def test_stopped_container_answers_nowhere() -> None:
    assert endpoint_of("", container_of(seen(State={"Running": False}))) is None


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("unix:///x", True),
        ("tcp://127.0.0.1:1", True),
        ("tcp://gpu1:1", False),
        ("ssh://127.0.0.1", False),
    ],
)
def test_engine_on_another_machine_is_known_by_its_address(host: str, here: bool) -> None:
    assert is_here(host) is here
