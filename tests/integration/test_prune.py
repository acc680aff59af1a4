"""`mp prune` on real layouts and a real docker-registry: what stays is whole and can be pulled, what goes is what was announced."""

import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.clients.oci.closure import closure
from pipeline.clients.oci.repositories import Repositories
from pipeline.clients.oci.repository import ImageManifest, Repository, blobs
from pipeline.core.digest import Digest, digest
from pipeline.core.image import Registry
from pipeline.core.model import Artifact, FileEntry
from pipeline.manifest.lock import Lock, write_lock
from tests.parts.project import MP, Project
from tests.parts.registry import RealRegistry, running_registry

WEIGHTS_BYTES = 200_000
CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}


@dataclass
class Shop(Project):
    """A project that publishes one model's weights, version after version."""

    registry: Registry = Registry("main")

    def version(self, number: int, *, model: str = "tiny", words: tuple[str, ...] = ()) -> str:
        """Apply another version of the weights; its tag."""
        source = self.folder / model
        source.mkdir(exist_ok=True)
        (source / "config.json").write_text(json.dumps({**CONFIG, "number": number}))
        (source / "model.gguf").write_bytes(number.to_bytes(2) * (WEIGHTS_BYTES // 2))
        before = set(self.tags(model))
        self.applied(*words)
        (new,) = set(self.tags(model)) - before or {self.newest(words)}
        return new

    def newest(self, words: tuple[str, ...]) -> str:
        environment = words[words.index("--env") + 1] if "--env" in words else "default"
        return str(next(iter(self.inventory(environment).values()))["made"][0][0])

    def inventory(self, environment: str = "default") -> dict[str, Any]:
        path = self.folder / ".mp" / "inventory" / environment / "inventory.json"
        found: dict[str, Any] = json.loads(path.read_text())["entries"]
        return found

    def repository(self, model: str = "tiny") -> Repository:
        return Repositories({})(self.registry, f"{model}.weights")

    def tags(self, model: str = "tiny") -> tuple[str, ...]:
        return self.repository(model).tags()

    def is_whole(self, tag: str, model: str = "tiny") -> bool:
        """Everything that the image names, and what points at it, is there with its bytes."""
        repository = self.repository(model)
        image = repository.manifest(tag)
        if image is None:
            return False
        pointing = [repository.manifest(each.digest) for each in repository.referrers(image.digest)]
        assert len(pointing) == 2 and all(pointing), "SBOM and provenance"
        named = [blob for each in (image, *pointing) if each for blob, _ in blobs(each)]
        return all(digest(content(repository, blob)) == blob for blob in named)

    def prune(self, *words: str) -> Any:
        result = self.mp("prune", "--json", *words)
        assert result.code == 0, result.text
        return result.json()


def content(repository: Repository, blob: Digest) -> bytes:
    with repository.open_blob(blob) as stream:
        return stream.read()


def used_bytes(folder: Path) -> int:
    """Of all blobs below a folder, as the disk counts; each file once, whatever its names."""
    looks = [path.stat() for path in folder.rglob("blobs/sha256/*") if path.is_file()]
    return sum({look.st_ino: look.st_blocks * 512 for look in looks}.values())


def manifest_of(registry: dict[str, Any], models: tuple[str, ...] = ("tiny",)) -> dict[str, Any]:
    return {
        "version": 1,
        "project": "acme",
        "registries": {"main": registry},
        "targets": {"shelf": {"kind": "registry", "publish": ["weights"]}},
        "defaults": {"template": "vllm"},
        "models": {name: {"source": f"./{name}", "targets": {"shelf": {}}} for name in models},
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "project" / "tiny").mkdir(parents=True)
    return tmp_path / "project"


@pytest.fixture
def shop(folder: Path, tmp_path: Path) -> Shop:
    """Its images are in a folder of layouts."""
    made = Shop(folder, tmp_path / "cache", registry=Registry("main", layout=str(folder / "images")))
    made.write(manifest_of({"layout": "images"}))
    return made


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[RealRegistry]:
    """A registry of its own: its whole storage is weighed."""
    with running_registry(tmp_path / "registry") as started:
        yield started


@pytest.fixture
def remote_shop(folder: Path, tmp_path: Path, remote: RealRegistry) -> Shop:
    made = Shop(folder, tmp_path / "cache", registry=Registry("main", url=f"{remote.host}/acme"))
    made.write(manifest_of({"url": f"{remote.host}/acme"}))
    return made


def test_after_ten_versions_the_freed_bytes_are_the_announced_ones_and_the_last_two_are_whole(
    shop: Shop,
) -> None:
    made = [shop.version(number) for number in range(10)]
    images = shop.folder / "images"
    before = used_bytes(images)
    would = shop.prune("--dry-run")
    assert used_bytes(images) == before, "a dry run changes nothing"
    assert [one["tag"] for one in would["images"] if one["goes"]] == sorted(made[:8])

    done = shop.prune("--yes")

    assert done["freed_bytes"] == would["would_free_bytes"] == before - used_bytes(images) > 8 * WEIGHTS_BYTES
    assert set(shop.tags()) == set(made[8:])
    assert all(shop.is_whole(tag) for tag in made[8:])
    assert [tag for tag, _ in shop.inventory()["tiny/weights:main"]["made"]] == [made[9], made[8]]
    plan = shop.mp("plan", "--detailed-exitcode")
    assert plan.code == 0, plan.text
    again = shop.prune("--yes")
    assert (again["removed"], again["freed_bytes"]) == (0, 0), "nothing to do"


@pytest.mark.registry
def test_a_registry_keeps_what_is_applied_and_its_garbage_collection_frees_what_was_announced(
    remote_shop: Shop, remote: RealRegistry
) -> None:
    made = [remote_shop.version(number) for number in range(10)]
    would = remote_shop.prune("--dry-run")["would_unreference"]

    done = remote_shop.prune("--yes")

    assert done["unreferenced"] == would == [{"registry": f"{remote.host}/acme", "bytes": would[0]["bytes"]}]
    assert set(remote_shop.tags()) == set(made[8:])
    remote.stop()
    before = stored_bytes(remote.storage)
    subprocess.run(
        ["docker-registry", "garbage-collect", str(remote.folder / "config.yml")],
        check=True,
        capture_output=True,
        timeout=120,
    )
    freed = before - stored_bytes(remote.storage)
    remote.start()
    assert freed == would[0]["bytes"] > 8 * WEIGHTS_BYTES
    assert all(remote_shop.is_whole(tag) for tag in made[8:])
    copied = subprocess.run(
        ["skopeo", "inspect", "--tls-verify=false", f"docker://{remote.host}/acme/tiny.weights:{made[9]}"],
        capture_output=True,
        timeout=60,
    )
    assert copied.returncode == 0, copied.stderr


def stored_bytes(storage: Path) -> int:
    """Bytes of all blobs of a docker-registry; what names them is not counted."""
    return sum(path.stat().st_size for path in storage.rglob("blobs/sha256/*/*/data"))


@pytest.mark.registry
def test_a_registry_that_lets_nobody_delete_says_the_way_out_and_keeps_everything(
    remote_shop: Shop, remote: RealRegistry
) -> None:
    made = [remote_shop.version(number) for number in range(4)]
    remote.stop()
    remote.deletes = False
    remote.start()

    result = remote_shop.mp("prune", "--yes")

    assert result.code == 1, result.text
    assert "does not let anybody delete" in result.out and "REGISTRY_STORAGE_DELETE_ENABLED" in result.out
    assert set(remote_shop.tags()) == set(made)


def test_two_environments_keep_each_what_they_applied(shop: Shop) -> None:
    prod = shop.version(0, words=("--env", "prod"))
    made = [shop.version(number) for number in range(1, 6)]

    found = shop.prune("--yes", "--keep", "1")

    assert set(shop.tags()) == {prod, made[-1]}
    rules = {one["tag"]: one["rule"] for one in found["images"]}
    assert rules[prod] == "applied in prod: tiny/weights:main"
    assert shop.is_whole(prod)


def test_the_last_good_one_stays_after_a_worse_one(shop: Shop) -> None:
    made = [shop.version(number) for number in range(5)]
    path = shop.folder / ".mp" / "inventory" / "default" / "inventory.json"
    record = json.loads(path.read_text())
    entry = record["entries"]["tiny/weights:main"]
    # A deployment that was good with the first image, and whose newest attempt is not known to run.
    record["entries"]["tiny/docker:box"] = {
        "kind": "docker",
        "locator": {"host": "unix:///nowhere", "name": "tiny"},
        "applied": {},
        "good": {"image": made[0], "weights": "baked"},
    }
    # Another kind of target names its image by a whole reference.
    record["entries"]["tiny/kubernetes:prod"] = {
        "kind": "kubernetes",
        "locator": {"context": "nowhere", "namespace": "models", "name": "tiny"},
        "applied": {"containers": [{"image": f"127.0.0.1:5000/acme/tiny:{made[1]}@sha256:{'0' * 64}"}]},
    }
    path.write_text(json.dumps(record))
    assert entry["keep"]

    found = shop.prune("--yes")

    assert set(shop.tags()) == {made[0], made[1], *made[3:]}
    assert {one["tag"]: one["rule"] for one in found["images"]}[
        made[0]
    ] == "last good in default: tiny/docker:box"


def test_tags_and_images_of_others_are_untouched(shop: Shop) -> None:
    made = [shop.version(number) for number in range(5)]
    repository = shop.repository()
    theirs = repository.manifest(made[4])
    assert theirs is not None
    document = theirs.document()
    other = {**document, "annotations": {**theirs.annotations(), "dev.mp.project": "umbrella"}}
    foreign = ImageManifest(json.dumps({**document, "annotations": {}}).encode(), theirs.media_type)
    repository.put_manifest("mp-0123456789ab", foreign)  # our pattern, nobody's annotations
    repository.put_manifest("their-own", foreign)
    kept = repository.manifest(made[0])
    assert kept is not None
    repository.put_manifest("release-1", kept)  # somebody wants this one of ours
    umbrella = Repositories({})(shop.registry, "tiny.weights")
    umbrella.put_manifest(made[1], ImageManifest(json.dumps(other).encode(), theirs.media_type))

    found = shop.prune("--yes", "--all")

    assert {"mp-0123456789ab", "their-own", "release-1", made[0]} < set(shop.tags())
    assert found["left_tags"] >= 3
    assert 'tag "release-1" names it' in {one["rule"] for one in found["images"]}


def test_images_that_no_inventory_here_remembers_go_only_when_asked_for(shop: Shop) -> None:
    made = [shop.version(number) for number in range(4)]
    path = shop.folder / ".mp" / "inventory" / "default" / "inventory.json"
    path.unlink()  # as in another checkout of the same project
    shop.applied()

    assert shop.prune("--yes")["removed"] == 0
    assert set(shop.tags()) == set(made)
    assert shop.prune("--yes", "--all")["removed"] == 3
    assert set(shop.tags()) == {made[3]}


def test_what_is_no_longer_declared_is_kept_by_apply_and_freed_by_prune(shop: Shop) -> None:
    shop.write(manifest_of({"layout": "images"}, ("tiny", "other")))
    (shop.folder / "tiny" / "model.gguf").write_bytes(b"t" * WEIGHTS_BYTES)
    (shop.folder / "tiny" / "config.json").write_text(json.dumps(CONFIG))
    other = shop.version(1, model="other")
    shop.write(manifest_of({"layout": "images"}))

    kept = shop.applied()
    assert "Kept, no longer declared: other/weights:main; mp prune frees images" in kept.out
    assert shop.is_whole(other, "other")
    found = shop.prune("--yes")

    assert {one["tag"]: one["rule"] for one in found["images"]}[other] == "no longer declared"
    assert shop.tags("other") == ()
    assert len(shop.tags()) == 1
    assert "Kept" not in shop.mp("plan").out


def test_a_project_without_images_has_nothing_to_prune(folder: Path, tmp_path: Path) -> None:
    project = Project(folder, tmp_path / "cache")
    pin = "sha256-" + "0" * 64
    artifact = Artifact(f"file://{folder}/tiny", "", pin, (FileEntry("model.gguf", 9, "0" * 64),))
    write_lock(folder / "models.lock", Lock({"tiny": {"weights": artifact}}, {}))
    models = {"tiny": {"source": "./tiny", "targets": {"here": None}}}
    targets = {"here": {"kind": "local"}}
    defaults = {"template": "transformers"}
    project.write(
        {"version": 1, "project": "acme", "targets": targets, "defaults": defaults, "models": models}
    )

    result = project.mp("prune", "--yes")

    assert result.code == 0, result.text
    assert "No image to free." in result.out
    assert not (folder / ".mp").exists(), "nothing was done, so nothing is remembered"


def test_nothing_is_removed_while_something_is_applied(shop: Shop) -> None:
    for number in range(4):
        shop.version(number)
    with (shop.folder / ".mp" / "inventory" / "default" / "lease").open("r+b") as lease:
        fcntl.flock(lease, fcntl.LOCK_EX)
        result = shop.mp("prune", "--yes")

    assert result.code == 6, result.text
    assert len(shop.tags()) == 4


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["layout", pytest.param("registry", marks=pytest.mark.registry)])
def test_a_kill_at_any_moment_leaves_wanted_images_whole_and_the_next_run_ends_it(
    kind: str, request: pytest.FixtureRequest
) -> None:
    shop: Shop = request.getfixturevalue("shop" if kind == "layout" else "remote_shop")
    made = [shop.version(number) for number in range(6)]
    environ = {**os.environ, "MP_CACHE": str(shop.cache)}
    for delay_ms in (0, 5, 10, 20, 40, 80):
        made.append(shop.version(100 + delay_ms))
        running = subprocess.Popen(
            [str(MP), "prune", "--yes"], cwd=shop.folder, env=environ, stdout=subprocess.DEVNULL, stderr=2
        )
        _until_it_holds_the_lease(shop, running)
        time.sleep(delay_ms / 1000)
        running.send_signal(signal.SIGKILL)
        running.wait(30)
        tags = [tag for tag in shop.tags() if tag.startswith("mp-")]
        assert set(made[-2:]) <= set(tags)
        assert all(shop.is_whole(tag) for tag in made[-2:])
    shop.prune("--yes")

    assert set(shop.tags()) == set(made[-2:])
    if kind == "layout":
        repository = shop.repository()
        wanted = {blob for tag in shop.tags() for blob in closure(repository, repository.head(tag)[0]).sizes}  # type: ignore[index]
        files = {path.name for path in Path(repository.location, "blobs", "sha256").iterdir()}
        assert files == {blob.removeprefix("sha256:") for blob in wanted}


def _until_it_holds_the_lease(shop: Shop, running: subprocess.Popen[bytes]) -> None:
    lease = shop.folder / ".mp" / "inventory" / "default" / "lease"
    while running.poll() is None:
        if lease.read_text() == f"process {running.pid}":
            return
        time.sleep(0.001)
