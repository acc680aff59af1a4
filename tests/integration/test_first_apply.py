"""From models.yaml to answering deployments on the real parts, through the real command line.

One project is applied once: both CPU engines are built and pushed, where nobody has done so in this run, two containers
and a process are started. Every test uses that one and leaves it as it was.
"""

import contextlib
import copy
import fcntl
import itertools
import json
import shutil
import stat
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.errors import DockerException
from docker.models.containers import Container

from pipeline.core.frozen import frozen
from pipeline.manifest.lock import write_lock
from tests.parts import capability
from tests.parts.base_image import BaseImage
from tests.parts.engines import ANSWER, CHECKPOINT, PROMPT, locked_engines
from tests.parts.project import Manifest, Project, Result, chat
from tests.parts.registry import RealRegistry

pytestmark = [
    pytest.mark.docker,
    pytest.mark.registry,
    pytest.mark.transformers,
    pytest.mark.vllm,
]

TEST = [{"prompt": PROMPT, "expect": {"contains": "models.yaml"}}]
OCI = "application/vnd.oci.image.manifest.v1+json"
KEY = "correct-horse-battery"
GIB = 2**30


def manifest_of(project: str, host: str, base: BaseImage) -> Manifest:
    return {
        "version": 1,
        "project": project,
        "defaults": {"template": "transformers", "hardware": "cpu", "registry": "main"},
        "hardware": {"cpu": {"gpus": 0, "cpu": 2, "memory": "6Gi"}},
        "registries": {"main": {"url": f"{host}/acme"}},
        "engines": {"transformers": {"base": base.reference}, "vllm": {"base": base.reference}},
        "targets": {"laptop": {"kind": "local"}, "box": {"kind": "docker"}},
        "models": {
            "tiny-tf": {
                "source": "./tiny-tf",
                "test": TEST,
                "targets": {"laptop": {}, "box": {"weights": "baked"}},
            },
            "tiny-vllm": {
                "source": "./tiny-vllm",
                "template": "vllm",
                "serve": {"max_model_len": 256},
                "test": TEST,
                "targets": {"box": {"weights": "mount"}},
            },
        },
    }


@frozen
class Acme:
    """The project, what its first apply said, and the world it is in."""

    project: Project
    first: Result
    name: str
    registry: RealRegistry
    client: docker.DockerClient

    def mp(self, *words: str) -> Result:
        return self.project.mp(*words)

    def with_model(self, name: str, **changes: Any) -> Manifest:  # Any: as models.yaml has it
        manifest = copy.deepcopy(self.project.manifest)
        manifest["models"][name].update(changes)
        return manifest

    def without_model(self, name: str) -> Manifest:
        manifest = copy.deepcopy(self.project.manifest)
        del manifest["models"][name]
        return manifest

    def container(self, model: str) -> Container:
        return self.client.containers.get(f"{self.name}-{model}")

    def containers(self) -> list[Container]:
        return self.client.containers.list(all=True, filters={"label": f"dev.mp.project={self.name}"})

    def answer(self, model: str, target: str, api_key: str | None = None) -> str:
        return chat(self.project.url(model, target), model, PROMPT, api_key)

    def image(self, model: str) -> tuple[str, dict[str, Any]]:
        """Tag and image manifest of what a container runs."""
        reference = self.container(model).attrs["Config"]["Image"]
        repository, _, tag = reference.partition("@")[0].rpartition(":")
        return tag, self.manifest(repository.rpartition("/")[2], tag)

    def manifest(self, repository: str, tag: str) -> dict[str, Any]:
        url = f"http://{self.registry.host}/v2/acme/{repository}/manifests/{tag}"
        with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": OCI}), timeout=10) as got:
            found: dict[str, Any] = json.load(got)
        return found

    def move(self, model: str, tag: str, manifest: dict[str, Any]) -> None:
        """Let a tag name another image."""
        url = f"http://{self.registry.host}/v2/acme/{model}/manifests/{tag}"
        put = urllib.request.Request(url, json.dumps(manifest).encode(), {"Content-Type": OCI}, method="PUT")
        urllib.request.urlopen(put, timeout=10).close()

    def sent_by(self, act: Callable[[], Result]) -> tuple[Result, list[str]]:
        """What a run sent to the registry: blobs and image manifests that were stored."""
        before = len(self.registry.requests())
        result = act()
        return result, [line for line in self.registry.requests()[before:] if line.startswith("PUT ")]


@pytest.fixture(scope="module")
def acme(
    engine_registry: RealRegistry,
    engine_base: BaseImage,
    docker_host: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Acme]:
    client = docker.DockerClient(base_url=docker_host)
    name = f"mp-test-{uuid.uuid4().hex[:6]}"
    folder = tmp_path_factory.mktemp("acme")
    for model in ("tiny-tf", "tiny-vllm"):
        shutil.copytree(CHECKPOINT, folder / model)
    project = Project(folder, capability.CACHE)
    project.write(manifest_of(name, engine_registry.host, engine_base))
    write_lock(folder / "models.lock", locked_engines(engine_base))
    try:
        yield Acme(project, project.mp("apply", "--yes"), name, engine_registry, client)
    finally:
        clean(project, client, name, engine_registry.host)


def clean(project: Project, client: docker.DockerClient, name: str, host: str) -> None:
    """Leave nothing running and no image behind, whatever a test did."""
    project.mp("destroy", "--all", "--yes")
    for left in client.containers.list(all=True, filters={"name": f"^/{name}-"}):
        left.remove(force=True)
    for image in client.images.list():
        digests = [str(digest) for digest in image.attrs.get("RepoDigests") or ()]
        for reference in [r for r in (*image.tags, *digests) if r.startswith(f"{host}/")]:
            try:
                client.images.remove(reference, force=True)
            except DockerException as problem:  # gone with its other name
                print(f"{reference}: {problem}")
    client.close()


@pytest.fixture
def restored(acme: Acme) -> Iterator[Acme]:
    """The project as it was first applied, also after a test that changed it."""
    manifest = acme.project.manifest
    yield acme
    acme.project.write(manifest)
    acme.project.applied()


def test_first_apply_builds_pushes_starts_and_proves(acme: Acme) -> None:
    assert acme.first.code == 0, acme.first.text
    print(acme.first.err)

    assert "failed 0, skipped 0, unknown 0" in acme.first.out.splitlines()[-1]
    assert {c.status for c in acme.containers()} == {"running"}
    assert len(acme.containers()) == 2


def test_engines_share_the_layers_of_what_both_hold(acme: Acme) -> None:
    one, other = (acme.image(model)[1]["layers"] for model in ("tiny-tf", "tiny-vllm"))

    shared = list(itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))

    assert sum(layer["size"] for layer, _ in shared) > 3 * GIB, "torch and what it needs, pulled once"


def test_greedy_text_is_the_same_everywhere(acme: Acme) -> None:
    places = (("tiny-tf", "laptop"), ("tiny-tf", "box"), ("tiny-vllm", "box"))

    said = {place: acme.answer(*place) for place in places}

    assert said == dict.fromkeys(places, ANSWER)


def test_second_plan_says_that_nothing_changes(acme: Acme) -> None:
    before = len(acme.registry.requests())

    result = acme.mp("plan", "--detailed-exitcode")

    assert result.code == 0, result.text
    assert "No changes." in result.out
    moved = [r for r in acme.registry.requests()[before:] if not r.startswith("HEAD") and "/blobs/" in r]
    assert all(r.startswith("GET") for r in moved), "reading sends nothing"


def test_list_and_show_name_where_models_answer(acme: Acme) -> None:
    url = acme.project.url("tiny-vllm", "box")

    assert url in acme.mp("list").out
    shown = acme.mp("show", "tiny-vllm")

    assert (shown.code, url in shown.out) == (0, True)


def test_killed_container_is_drift_and_comes_back(restored: Acme) -> None:
    restored.container("tiny-tf").kill()

    drift = restored.mp("drift")
    assert drift.code == 2
    assert "tiny-tf/docker:box" in drift.out and "running" in drift.out

    restored.project.applied()
    assert restored.answer("tiny-tf", "box") == ANSWER
    assert restored.mp("drift").code == 0


def test_memory_changed_by_hand_is_named_and_put_back(restored: Acme) -> None:
    before = restored.container("tiny-tf")
    before.update(mem_limit=5 * GIB, memswap_limit=5 * GIB)

    drift = restored.mp("drift")
    assert drift.code == 2
    assert "memory" in drift.out and "6 GiB" in drift.out and "5 GiB" in drift.out

    restored.project.applied()
    after = restored.container("tiny-tf")
    assert (after.id, after.attrs["HostConfig"]["Memory"]) == (before.id, 6 * GIB)


def test_container_made_anew_by_hand_is_not_touched(restored: Acme) -> None:
    ours = restored.container("tiny-tf")
    name, image = f"{restored.name}-tiny-tf", ours.attrs["Config"]["Image"]
    ours.remove(force=True)
    theirs = restored.client.containers.create(image, command=["--other"], name=name)
    try:
        drift = restored.mp("drift")
        assert drift.code == 2
        assert "tiny-tf/docker:box" in drift.out

        applied = restored.mp("apply", "--yes")
        assert applied.code == 4
        assert "is not ours" in applied.out + applied.err
        assert [c.id for c in restored.client.containers.list(all=True, filters={"name": name})] == [
            theirs.id
        ]
    finally:
        theirs.remove(force=True)


def test_moved_tag_is_drift_and_is_put_back(restored: Acme) -> None:
    tag, manifest = restored.image("tiny-tf")
    other = {**manifest, "annotations": {**manifest["annotations"], "moved.by": "somebody"}}
    restored.move("tiny-tf", tag, other)

    drift = restored.mp("drift")
    assert drift.code == 2
    assert "tiny-tf/image:main" in drift.out and "digest" in drift.out

    restored.project.applied()
    assert restored.manifest("tiny-tf", tag) == manifest
    assert restored.mp("drift").code == 0


def test_hardware_within_its_variant_rebuilds_nothing(restored: Acme) -> None:
    before = restored.image("tiny-tf")[0]
    manifest = restored.with_model("tiny-tf", hardware="small")
    manifest["hardware"]["small"] = {"gpus": 0, "cpu": 2, "memory": "5Gi"}
    with restored.project.changed(manifest):
        planned = restored.mp("plan")
        applied, sent = restored.sent_by(restored.project.applied)

        assert "memory 6 GiB → 5 GiB" in planned.out
        assert "image" not in planned.out and "push" not in planned.out
        assert "docker:box" in applied.out
        assert sent == []
        assert restored.image("tiny-tf")[0] == before
        assert restored.container("tiny-tf").attrs["HostConfig"]["Memory"] == 5 * GIB


def test_launch_argument_makes_another_container_of_the_same_image(restored: Acme) -> None:
    before, image = restored.container("tiny-tf"), restored.image("tiny-tf")[0]
    with restored.project.changed(restored.with_model("tiny-tf", serve={"max_model_len": 128})):
        planned = restored.mp("plan")
        _, sent = restored.sent_by(restored.project.applied)

        assert "128" in planned.out and "push" not in planned.out
        assert sent == []
        after = restored.container("tiny-tf")
        assert (after.id != before.id, restored.image("tiny-tf")[0]) == (True, image)
        assert restored.answer("tiny-tf", "box") == ANSWER


def test_chat_template_pushes_one_small_layer(restored: Acme) -> None:
    template = (CHECKPOINT / "chat_template.jinja").read_text()
    (restored.project.folder / "chat.jinja").write_text("{# ours #}" + template)
    _, before = restored.image("tiny-tf")
    with restored.project.changed(restored.with_model("tiny-tf", chat={"template": "chat.jinja"})):
        assert restored.mp("drift").code == 0, "a change that was declared is no drift"
        planned = restored.mp("plan", "--json").json()
        _, sent = restored.sent_by(restored.project.applied)
        _, after = restored.image("tiny-tf")

        assert 0 < planned["transfer"]["push_bytes"] < 10_000
        old, new = ([layer["digest"] for layer in m["layers"]] for m in (before, after))
        assert new[:-1] == old
        assert after["layers"][-1]["size"] == planned["transfer"]["push_bytes"]
        stored = [line.split("/v2/")[1].split("?")[0].rpartition("/")[0] for line in sent]
        # blobs: layer, config, SBOM, statement; manifests: the image, those two, their list, and the tag last
        assert Counter(stored) == {"acme/tiny-tf/blobs/uploads": 4, "acme/tiny-tf/manifests": 5}
        assert restored.answer("tiny-tf", "box") == restored.answer("tiny-tf", "laptop") == ANSWER


def test_removed_model_is_a_planned_delete_and_protection_outlives_it(restored: Acme) -> None:
    with restored.project.changed(restored.without_model("tiny-vllm")):
        planned = restored.mp("plan", "--detailed-exitcode")
        assert planned.code == 2
        assert "1 to delete" in planned.out
    restored.project.write(restored.with_model("tiny-vllm", lifecycle={"protect": True}))
    restored.project.applied()
    with restored.project.changed(restored.without_model("tiny-vllm")):
        planned, applied = restored.mp("plan"), restored.mp("apply", "--yes")

    assert (planned.code, applied.code) == (4, 4)
    assert "tiny-vllm/docker:box" in planned.out and "protected" in planned.out
    assert restored.container("tiny-vllm").status == "running"


def test_one_of_two_models_fails_alone(restored: Acme) -> None:
    manifest = restored.with_model(
        "tiny-tf", targets={"laptop": {}, "box": {"weights": "baked", "memory": "5Gi"}}
    )
    wrong = [{"prompt": PROMPT, "expect": {"contains": "a purple whale"}}]
    manifest["models"]["wrong"] = {"source": "./tiny-tf", "test": wrong, "targets": {"laptop": {}}}
    with restored.project.changed(manifest):
        result = restored.mp("apply", "--yes")

    assert result.code == 5, result.text
    assert result.out.splitlines()[-1] == "Applied 1, failed 1, skipped 0, unknown 0."
    assert "a purple whale" in result.out
    assert restored.container("tiny-tf").attrs["HostConfig"]["Memory"] == 5 * GIB


def test_lease_of_another_apply_is_respected(restored: Acme) -> None:
    lease = restored.project.folder / ".mp" / "inventory" / "default" / "lease"
    options = {"laptop": {}, "box": {"weights": "baked", "memory": "5Gi"}}
    with (
        lease.open("a+b") as held,
        restored.project.changed(restored.with_model("tiny-tf", targets=options)),
    ):
        fcntl.flock(held, fcntl.LOCK_EX)
        result = restored.mp("apply", "--yes")

    assert result.code == 6
    assert "another apply is running" in result.err
    assert restored.container("tiny-tf").attrs["HostConfig"]["Memory"] == 6 * GIB


def test_registry_that_does_not_answer_is_named_and_nothing_is_taken_for_gone(restored: Acme) -> None:
    restored.registry.stop()
    try:
        result = restored.mp("plan")
    finally:
        restored.registry.start()

    assert result.code == 1
    assert restored.registry.host in result.out
    assert "0 to create" in result.out and "0 to delete" in result.out


def test_api_key_is_asked_for_and_written_nowhere_else(restored: Acme) -> None:
    manifest = restored.with_model("tiny-tf", serve={"api_key": {"secret": "door"}})
    manifest["secrets"] = {"door": {"env": "DOOR_KEY"}}
    said: list[str] = []
    with restored.project.changed(manifest):
        for words in (("plan",), ("plan", "--json"), ("apply", "--yes", "--json"), ("show", "tiny-tf")):
            result = restored.project.mp(*words, environ={"DOOR_KEY": KEY})
            assert result.code == 0, result.text
            said.append(result.text)

        for target in ("laptop", "box"):
            assert restored.answer("tiny-tf", target, KEY) == ANSWER
            with pytest.raises(urllib.error.HTTPError) as refused:
                restored.answer("tiny-tf", target)
            assert refused.value.code == 401

        said.append(json.dumps(restored.container("tiny-tf").attrs))
        said.append(restored.container("tiny-tf").logs().decode())
        said += seen_in_proc(str(restored.project.folder))
        assert not [text for text in said if KEY in text]
        holding = files_with(restored.project.folder, KEY)
        assert {stat.S_IMODE(file.stat().st_mode) for file in holding} <= {0o400}
        assert {file.parent.name for file in holding} <= {"secrets"}
    restored.project.applied()
    assert files_with(restored.project.folder, KEY) == []


def seen_in_proc(folder: str) -> list[str]:
    """Arguments and environments, as anybody with `ps` reads them, of the processes that serve from a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            arguments = (process / "cmdline").read_text(errors="replace")
            if folder in arguments:
                found += [arguments, (process / "environ").read_text(errors="replace")]
    assert found, "a local process serves from here"
    return found


def files_with(folder: Path, text: str) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file() and text.encode() in file.read_bytes()]


def test_destroy_leaves_nothing_running_and_may_be_repeated(acme: Acme) -> None:
    pid = acme.mp("show", "tiny-tf").out

    first, second = acme.mp("destroy", "--all", "--yes"), acme.mp("destroy", "--all", "--yes")

    assert (first.code, second.code) == (0, 0), first.text + second.text
    assert acme.containers() == []
    assert "url" in pid and "url" not in acme.mp("show", "tiny-tf").out
