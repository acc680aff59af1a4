"""The program that fills claims, run from the very layer that the filler image has: no other module is there."""

import hashlib
import io
import json
import os
import socket
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.cli.filling import AGAIN, FILLED, NEVER
from pipeline.clients.oci.repositories import Repositories
from pipeline.core.image import Registry
from pipeline.resources.filler.content import MODULE, ROOT, layer
from tests.parts.packages import image_layer, put_image
from tests.parts.registry import PASSWORD, USER, RealRegistry

pytestmark = pytest.mark.registry

FILES = {"config.json": b"{}", "deep/model.safetensors": os.urandom(3_000_000)}


@dataclass
class Claim:
    """A folder that stands for a claim, the program, and what it is to bring."""

    folder: Path
    program: Path
    document: Path

    @property
    def model(self) -> Path:
        return self.folder / "models"

    def want(self, host: str, files: Mapping[str, bytes] = FILES, repository: str = "tiny.weights") -> None:
        listed = [[path, len(body), hashlib.sha256(body).hexdigest()] for path, body in files.items()]
        wanted = {
            "registry": f"{host}/fill",
            "insecure": False,
            "ca": None,
            "repository": repository,
            "tag": "v1",
            "folder": "models",
            "files": listed,
        }
        self.document.write_text(json.dumps(wanted))

    def start(self, **environ: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "-S", "-m", MODULE, str(self.document), str(self.folder)]
        return subprocess.Popen(
            argv,
            cwd=self.folder,
            env={"PYTHONPATH": str(self.program), "PATH": os.environ["PATH"], **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, **environ: str) -> tuple[int, str]:
        """Exit code, and all that it said."""
        process = self.start(**environ)
        said, _ = process.communicate(timeout=120)
        return process.returncode, said

    def holds(self, files: Mapping[str, bytes] = FILES) -> None:
        found = {
            path.relative_to(self.model).as_posix(): path.read_bytes()
            for path in self.model.rglob("*")
            if path.is_file()
        }
        assert found == dict(files)


@pytest.fixture
def claim(tmp_path: Path) -> Claim:
    program = tmp_path / "program"
    with tarfile.open(fileobj=io.BytesIO(layer())) as archive:
        archive.extractall(program, filter="data")
    (tmp_path / "claim").mkdir()
    return Claim(tmp_path / "claim", program / ROOT, tmp_path / "fill.json")


def publish(registry: RealRegistry, repository: str, files: Mapping[str, bytes] = FILES) -> None:
    opened = Repositories({})(Registry("main", url=f"{registry.host}/fill"), repository)
    put_image(opened, [image_layer(*((f"models/{path}", body) for path, body in files.items()))])


def test_every_file_is_there_and_a_second_time_nothing_is_read(registry: RealRegistry, claim: Claim) -> None:
    publish(registry, "tiny.weights")
    claim.want(registry.host)
    code, said = claim.run()
    assert code == FILLED, said
    claim.holds()
    assert "2 files" in said.splitlines()[-1]
    before = len([one for one in registry.requests() if "/blobs/" in one])
    code, said = claim.run()
    assert code == FILLED, said
    assert len([one for one in registry.requests() if "/blobs/" in one]) == before


def test_volume_that_is_filled_needs_no_registry(registry: RealRegistry, claim: Claim) -> None:
    publish(registry, "tiny.weights")
    claim.want(registry.host)
    code, said = claim.run()
    assert code == FILLED, said
    claim.want("127.0.0.1:1")
    code, said = claim.run()
    assert code == FILLED, said
    claim.holds()


def test_other_versions_in_a_volume_of_its_own_make_room(registry: RealRegistry, claim: Claim) -> None:
    publish(registry, "tiny.weights")
    for name in ("models-000000000000", "lost+found"):
        (claim.folder / name).mkdir()
        (claim.folder / name / "model.safetensors").write_bytes(b"old")
    claim.want(registry.host)
    document = json.loads(claim.document.read_text())
    claim.document.write_text(json.dumps({**document, "folder": "models-111111111111", "alone": True}))
    code, said = claim.run()
    assert code == FILLED, said
    assert {one.name for one in claim.folder.iterdir()} == {"models-111111111111", "lost+found"}


def test_wrong_file_is_named_gets_no_name_and_is_not_tried_again(
    registry: RealRegistry, claim: Claim
) -> None:
    publish(registry, "wrong.weights", {**FILES, "config.json": b"[]"})
    claim.want(registry.host, repository="wrong.weights")
    code, said = claim.run()
    assert code == NEVER, said
    assert '"config.json" has sha256' in said.splitlines()[-1]
    assert not (claim.model / "config.json").exists()


def test_image_that_is_not_there_is_named(registry: RealRegistry, claim: Claim) -> None:
    claim.want(registry.host, repository="none.weights")
    code, said = claim.run()
    assert code == NEVER, said
    assert "none.weights: has no v1" in said.splitlines()[-1]


def test_registry_that_does_not_answer_may_do_so_later(claim: Claim) -> None:
    claim.want("127.0.0.1:1")
    code, said = claim.run()
    assert code == AGAIN, said
    assert "127.0.0.1:1" in said.splitlines()[-1]


def test_login_of_the_pull_secret_is_used_and_a_wrong_one_is_named(
    locked_registry: RealRegistry, claim: Claim, tmp_path: Path
) -> None:
    auths = {"auths": {locked_registry.host: {"username": USER, "password": PASSWORD}}}
    (tmp_path / "config.json").write_text(json.dumps(auths))
    environ = {"DOCKER_CONFIG": str(tmp_path)}
    opened = Repositories(environ)(Registry("main", url=f"{locked_registry.host}/fill"), "tiny.weights")
    put_image(opened, [image_layer(*((f"models/{path}", body) for path, body in FILES.items()))])
    claim.want(locked_registry.host)
    code, said = claim.run()
    assert code == NEVER, said
    code, said = claim.run(**environ)
    assert code == FILLED, said
    claim.holds()


def test_what_a_killed_pod_left_is_gone_on_with(registry: RealRegistry, claim: Claim) -> None:
    """The part that is there is not asked for again: it is damaged here, and that is noticed by its hash."""
    publish(registry, "tiny.weights")
    claim.want(registry.host)
    assert claim.run()[0] == FILLED
    whole = claim.model / "deep" / "model.safetensors"
    name = f".mp-part-{hashlib.sha256(whole.name.encode()).hexdigest()[:12]}"
    body = FILES["deep/model.safetensors"]
    whole.with_name(name).write_bytes(body[:1_000_000])
    whole.unlink()
    code, said = claim.run()
    assert code == FILLED, said
    claim.holds()
    whole.with_name(name).write_bytes(bytes(1_000_000))
    whole.unlink()
    code, said = claim.run()
    assert code == NEVER, said
    assert claim.run()[0] == FILLED
    claim.holds()


def test_it_ends_at_once_when_its_pod_has_to_go(claim: Claim) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        claim.want(f"127.0.0.1:{silent.getsockname()[1]}")
        process = claim.start()
        connection, _ = silent.accept()
        with connection:  # it was asked, and never answers
            assert connection.recv(1)
            process.terminate()
            assert process.wait(timeout=5) == 128 + 15
