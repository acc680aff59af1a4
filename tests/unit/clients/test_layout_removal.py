"""Removing images from a layout: the bytes that come free, what stays, and kills in the middle."""

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.clients.oci import unlinking
from pipeline.clients.oci.closure import closure
from pipeline.clients.oci.layout import LayoutRepository
from pipeline.clients.oci.repository import CONFIG, LAYER, MANIFEST, ImageManifest, held
from pipeline.core.digest import Digest, digest
from pipeline.core.errors import Corrupt

SHARED, OLD, NEW = (name * 40_000 for name in (b"s", b"o", b"n"))


def put(repository: LayoutRepository, tag: str, *layers: bytes) -> ImageManifest:
    config = json.dumps({"os": "linux", "tag": tag}).encode()
    for content in (config, *layers):
        if not repository.has(digest(content), len(content)):
            repository.push(None, len(content), held(content))
    described = [{"mediaType": LAYER, "digest": digest(each), "size": len(each)} for each in layers]
    body = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": digest(config), "size": len(config)},
        "layers": described,
    }
    made = ImageManifest(json.dumps(body).encode(), MANIFEST)
    repository.put_manifest(tag, made)
    return made


def used_bytes(folder: Path) -> int:
    """Of blobs; each file once, whatever its names."""
    looks = [path.stat() for path in folder.rglob("blobs/sha256/*")]
    return sum({look.st_ino: look.st_blocks * unlinking.BLOCK_BYTES for look in looks}.values())


def killed_while_removing(repository: LayoutRepository, images: Sequence[Digest], removed: int) -> None:
    """In a process of its own, which ends without a word when it is about to unlink one blob more."""
    left = removed

    def end(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if event == "os.remove" and "/blobs/" in str(arguments[0]):
            if not left:
                os._exit(9)
            left -= 1

    child = os.fork()
    if not child:
        sys.addaudithook(end)
        repository.remove(images)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.fixture
def repository(tmp_path: Path) -> LayoutRepository:
    return LayoutRepository(str(tmp_path), "tiny")


def test_the_bytes_announced_come_free_and_what_is_shared_stays(
    repository: LayoutRepository, tmp_path: Path
) -> None:
    old, new = put(repository, "mp-1", SHARED, OLD), put(repository, "mp-2", SHARED, NEW)
    found = closure(repository, old.digest)
    going = set(found.sizes) - set(closure(repository, new.digest).sizes)
    announced = unlinking.freed_bytes(repository.paths(going))
    before = used_bytes(tmp_path)

    assert repository.remove(found.manifests) == announced == before - used_bytes(tmp_path)
    assert repository.tags() == ("mp-2",)
    assert repository.has(digest(SHARED), len(SHARED))
    assert not repository.has(digest(OLD))


def test_a_blob_that_another_repository_has_too_frees_nothing_until_the_last_name_goes(
    repository: LayoutRepository, tmp_path: Path
) -> None:
    sibling = LayoutRepository(str(tmp_path), "tiny.weights")
    one = put(repository, "mp-1", SHARED)
    sibling.mount(digest(SHARED), "tiny", len(SHARED))
    other = put(sibling, "mp-2", SHARED)

    small = repository.remove([one.digest])
    assert small < len(SHARED)
    assert sibling.has(digest(SHARED), len(SHARED))
    assert sibling.remove([other.digest]) > len(SHARED)
    assert used_bytes(tmp_path) == 0


@pytest.mark.parametrize("removed", [0, 1, 2])
def test_a_kill_after_the_names_went_leaves_blobs_that_the_next_call_frees(
    repository: LayoutRepository, tmp_path: Path, removed: int
) -> None:
    old, new = put(repository, "mp-1", SHARED, OLD), put(repository, "mp-2", SHARED, NEW)
    killed_while_removing(repository, [old.digest], removed)

    assert repository.tags() == ("mp-2",)
    loose = repository.loose()
    assert loose, "what was about to go is written down"
    announced = unlinking.freed_bytes(repository.paths(loose))
    before = used_bytes(tmp_path)
    assert repository.remove(()) == announced == before - used_bytes(tmp_path)
    assert repository.loose() == ()
    assert repository.manifest(new.digest) == new
    assert sorted(path.name for path in (tmp_path / "tiny").iterdir()) == [
        "blobs",
        "index.json",
        "oci-layout",
    ]


def test_what_was_about_to_go_stays_when_an_image_names_it_again(repository: LayoutRepository) -> None:
    old = put(repository, "mp-1", OLD)
    (Path(repository.location) / ".pruning").write_text(json.dumps([old.digest, digest(OLD)]))
    assert repository.loose() == ()
    assert repository.remove(()) == 0
    assert repository.manifest("mp-1") == old


def test_a_blob_without_a_name_is_loose_after_a_day(repository: LayoutRepository, tmp_path: Path) -> None:
    put(repository, "mp-1", SHARED)
    stray = repository.push(None, len(OLD), held(OLD))
    assert repository.loose() == (), "somebody may be about to name it"
    later = LayoutRepository(str(tmp_path), "tiny", now=lambda: time.time() + 90_000)
    assert later.loose() == (stray,)


def test_nothing_is_removed_while_an_image_that_stays_cannot_be_read(repository: LayoutRepository) -> None:
    old, new = put(repository, "mp-1", OLD), put(repository, "mp-2", NEW)
    path = Path(repository.location, "blobs", "sha256", new.digest[7:])
    path.chmod(0o644)
    path.write_bytes(b"x" + path.read_bytes()[1:])

    with pytest.raises(Corrupt):
        repository.remove([old.digest])

    assert repository.manifest("mp-1") == old
    assert repository.has(digest(OLD), len(OLD))


def test_a_repository_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    nowhere = LayoutRepository(str(tmp_path), "nobody")
    assert nowhere.remove([Digest("sha256:" + "0" * 64)]) == 0
    assert nowhere.loose() == nowhere.untagged() == ()
    assert not os.path.lexists(tmp_path / "nobody")
