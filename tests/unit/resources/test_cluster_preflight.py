"""What is asked of servers and nodes that are older than those of the tests with a real one: from what they say of themselves."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytest

from pipeline.core.change import Action, Change
from pipeline.core.diagnostic import Diagnostic
from pipeline.resources.cluster.preflight.kinds import image_volumes, runtimes
from pipeline.resources.cluster.preflight.steps import Step, steps_in
from pipeline.resources.cluster.rotation import revision
from tests.parts.deployments import deployment


@dataclass
class Server:
    """A server of some version."""

    minor: int
    system: str = "kubernetes prod"

    def version(self) -> tuple[int, int]:
        return (1, self.minor)


def steps(**options: Any) -> list[Step]:
    made = deployment(**options)
    (found,) = steps_in([Change(made.address, made.kind, Action.CREATE, made, None, None)]).values()
    return found


def node(kubelet: str, runtime: str) -> dict[str, Any]:
    said = {"kubeletVersion": kubelet, "containerRuntimeVersion": runtime}
    return {"metadata": {"name": "node-1"}, "status": {"nodeInfo": said}}


def said(found: Iterable[Diagnostic]) -> list[tuple[str, str]]:
    return [(str(one.severity), one.summary) for one in found]


@pytest.mark.parametrize(
    ("minor", "severity", "words"),
    [(32, "error", "mounts no images"), (34, "warning", "feature gate ImageVolume"), (36, "", "")],
)
def test_server_that_is_too_old_for_image_volumes(minor: int, severity: str, words: str) -> None:
    found = said(image_volumes(Server(minor), steps(weights="volume")))  # type: ignore[arg-type]
    assert [one for one, _ in found] == ([severity] if severity else [])
    assert all(words in text for _, text in found)
    assert not list(image_volumes(Server(minor), steps()))  # type: ignore[arg-type]


def test_nodes_that_mount_no_images_are_counted() -> None:
    old, new = node("v1.34.2", "containerd://1.7.27"), node("v1.36.1", "containerd://2.4.2")
    strange = node("kwok-v0.8.0", "")

    def ask(*nodes: dict[str, Any]) -> list[tuple[str, str]]:
        return said(runtimes(Server(36), list(nodes), steps(weights="volume")))  # type: ignore[arg-type]

    assert ask(new, strange, node("v1.36.1", "cri-o://1.36.0")) == []
    ((severity, text),) = ask(old, new)
    assert severity == "warning"
    assert "1 of 2 nodes" in text
    ((severity, _),) = ask(old, node("v1.32.0", "containerd://2.1.0"))
    assert severity == "error"


def test_revision_of_a_secret_is_that_of_its_value_and_not_to_be_guessed_without_the_uid() -> None:
    assert revision("a", b"hush") == revision("a", b"hush")
    assert revision("a", b"hush") != revision("a", b"quiet")
    assert revision("a", b"hush") != revision("b", b"hush")
