"""Other caches, made by the programs they belong to, are read as they are, verified, and left without dangling links."""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.core.digest import fingerprint
from pipeline.core.errors import Corrupt, Refused
from pipeline.core.model import Artifact, FileEntry
from pipeline.core.protocols import SourceSpec
from pipeline.core.report import Event, Progress
from pipeline.resources.cache.adopt import Found, find, huggingface, instructlab, missing, take
from pipeline.resources.cache.entries import choice_of
from pipeline.resources.cache.shelf import Shelf
from pipeline.resources.cache.store import Cache
from pipeline.sources.local import LocalSource
from tests.fakes.hub import FakeHub

WEIGHTS = random.Random(1).randbytes(300_000)
FILES = {
    "config.json": b'{"num_hidden_layers": 2}',
    "model.safetensors": WEIGHTS,
    "sub/tokenizer.json": b"[1]",
    ".gitattributes": b"*.safetensors filter=lfs",
}
KEPT = {path: content for path, content in FILES.items() if not path.startswith(".")}
DOWNLOAD = "import sys; from huggingface_hub import snapshot_download; snapshot_download(**eval(sys.argv[1]))"


def silent(event: Event) -> None:
    pass


def nothing(count: int) -> None:
    pass


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as running:
        commit = running.commit("acme/tiny", FILES)
        running.repositories["acme/tiny"].tags["v1"] = commit
        yield running


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "hf"


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    return tmp_path / "instructlab"


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def download(hub: FakeHub, home: Path, **arguments: object) -> None:
    """The real client, in a process of its own: it reads its settings when it is imported."""
    environ = {**os.environ, "HF_HOME": str(home), "HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_XET": "1"}
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN", "HF_HUB_OFFLINE"):
        environ.pop(name, None)
    command = [sys.executable, "-c", DOWNLOAD, repr({"repo_id": "acme/tiny", **arguments})]
    subprocess.run(command, env=environ, check=True, capture_output=True, timeout=60)


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


def dangling(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_symlink() and not path.exists()]


def files_of(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir())


def content_of(cache: Cache, found: Found) -> dict[str, bytes]:
    """What the cache serves of a model that was taken over, verified again."""
    (entry,) = (each for each in Shelf(cache.root).list() if each.source == found.source)
    assert entry.complete
    assert Shelf(cache.root).verify([entry], nothing) == ()
    return {file.path: (entry.path / file.path).read_bytes() for file in entry.files}


def test_caches_are_looked_for_where_their_programs_would(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    moved = home | {"XDG_CACHE_HOME": str(tmp_path / "x")}
    assert huggingface.default_folder(home) == tmp_path / ".cache/huggingface/hub"
    assert huggingface.default_folder(moved) == tmp_path / "x/huggingface/hub"
    assert huggingface.default_folder(home | {"HF_HOME": f"{tmp_path}/h"}) == tmp_path / "h/hub"
    assert huggingface.default_folder(home | {"HF_HOME": "/h", "HF_HUB_CACHE": "$HOME/c"}) == tmp_path / "c"
    assert instructlab.default_folder(home) == tmp_path / ".cache/instructlab"
    assert instructlab.default_folder(moved) == tmp_path / "x/instructlab"
    assert find(home) == ()


def test_snapshot_of_the_real_client_is_found_with_its_versions(hub: FakeHub, home: Path) -> None:
    download(hub, home)
    download(hub, home, revision="v1")

    (found,) = find({"HF_HOME": str(home), "XDG_CACHE_HOME": str(home / "none")})

    assert (found.source, found.versions) == ("hf://acme/tiny", ("main", "v1"))
    assert found.pin == hub.repositories["acme/tiny"].branches["main"]
    assert {path: file.read_bytes() for path, file in found.files.items()} == KEPT
    assert found.sha256s == {"model.safetensors": sha256(WEIGHTS)}
    assert found.git_sha1s.keys() == {"config.json", "sub/tokenizer.json"}
    assert found.size_bytes == sum(map(len, KEPT.values()))
    assert (found.complete, found.absent) == (True, ())


def test_only_what_the_hubs_list_confirms_is_called_complete(hub: FakeHub, home: Path) -> None:
    download(hub, home, allow_patterns=["*.json"])
    (part,) = huggingface.find(home / "hub")
    assert (part.complete, part.listed, part.absent) == (False, True, ("model.safetensors",))

    download(hub, home)
    shutil.rmtree(home / "hub/models--acme--tiny/trees")
    (whole,) = huggingface.find(home / "hub")
    assert (whole.complete, whole.listed, whole.absent) == (False, False, ())


def test_missing_files_are_told_when_an_artifact_is_given(hub: FakeHub, home: Path) -> None:
    download(hub, home, allow_patterns=["*.json"])
    (found,) = huggingface.find(home / "hub")
    entries = tuple(sorted(FileEntry(path, len(c), sha256(c)) for path, c in KEPT.items()))

    told = missing(found, Artifact(found.source, "main", found.pin, entries))

    assert [entry.path for entry in told] == ["model.safetensors"]


def test_snapshot_is_taken_over_verified_and_left_as_it_was(hub: FakeHub, home: Path, cache: Cache) -> None:
    download(hub, home)
    download(hub, home, revision="v1")
    (found,) = huggingface.find(home / "hub")
    before = files_of(home)

    taken = take(found, cache, silent)

    assert (taken.source, taken.pin, taken.versions) == ("hf://acme/tiny", found.pin, ("main", "v1"))
    assert content_of(cache, found) == KEPT
    assert files_of(home) == before
    for (
        path,
        file,
    ) in found.files.items():  # never an inode of the other cache's: who writes there writes here
        assert not (taken.path / path).samefile(file)


def test_what_was_taken_over_spares_the_download_of_the_locked_artifact(
    hub: FakeHub, home: Path, cache: Cache
) -> None:
    download(hub, home)
    (found,) = huggingface.find(home / "hub")
    entries = tuple(sorted(FileEntry(path, len(c), sha256(c)) for path, c in KEPT.items()))
    artifact = Artifact(found.source, "main", found.pin, entries)
    assert cache.missing_bytes(artifact) == sum(map(len, KEPT.values()))

    take(found, cache, silent)

    assert cache.complete(artifact) and cache.missing_bytes(artifact) == 0


def test_part_of_a_snapshot_is_taken_over_and_does_not_pass_for_a_whole_choice(
    hub: FakeHub, home: Path, cache: Cache
) -> None:
    download(hub, home, allow_patterns=["*.json"])
    (found,) = huggingface.find(home / "hub")

    taken = take(found, cache, silent)

    assert [file.path for file in taken.files] == ["config.json", "sub/tokenizer.json"]
    everything = Artifact(found.source, "main", found.pin, ())
    assert Cache(cache.root).complete(replace(everything, files=taken.files))
    assert choice_of(everything.filter) not in taken.choices


@pytest.mark.parametrize("path", ["model.safetensors", "config.json"])
def test_damaged_file_is_refused_by_name_and_nothing_moves(
    hub: FakeHub, home: Path, cache: Cache, path: str
) -> None:
    download(hub, home)
    (found,) = huggingface.find(home / "hub")
    blob = found.files[path].resolve()
    content = bytearray(blob.read_bytes())
    content[7] ^= 1
    blob.write_bytes(content)
    before = files_of(home)

    with pytest.raises(Corrupt, match=path):
        take(found, cache, silent, move=True)

    assert Shelf(cache.root).list() == ()
    assert files_of(home) == before and blob.read_bytes() == content


def test_link_that_leads_out_of_the_other_cache_is_refused(hub: FakeHub, home: Path, cache: Cache) -> None:
    download(hub, home)
    secret = home.parent / "secret.json"
    secret.write_bytes(b"{}")
    (found,) = huggingface.find(home / "hub")
    link = found.files["config.json"]
    link.unlink()
    link.symlink_to(secret)

    for again in huggingface.find(home / "hub"):
        with pytest.raises(Refused, match=r'"config.json" is a link that leads out'):
            take(again, cache, silent)

    assert Shelf(cache.root).list() == ()


def test_move_of_the_only_snapshot_leaves_nothing_of_the_model(
    hub: FakeHub, home: Path, cache: Cache
) -> None:
    download(hub, home)
    (found,) = huggingface.find(home / "hub")

    take(found, cache, silent, move=True)

    assert content_of(cache, found) == KEPT
    assert not (home / "hub/models--acme--tiny").exists()
    assert huggingface.find(home / "hub") == ()


def test_move_keeps_what_another_snapshot_needs(hub: FakeHub, home: Path, cache: Cache) -> None:
    download(hub, home)
    new = hub.commit("acme/tiny", FILES | {"config.json": b'{"num_hidden_layers": 3}'})
    download(hub, home)
    old = next(each for each in huggingface.find(home / "hub") if each.pin != new)

    take(old, cache, silent, move=True)

    assert dangling(home) == []
    (left,) = huggingface.find(home / "hub")
    assert (left.pin, left.versions, left.complete) == (new, ("main",), True)
    taken = content_of(cache, old)
    assert taken == KEPT
    (entry,) = Shelf(cache.root).list()
    assert not (entry.path / "model.safetensors").samefile(left.files["model.safetensors"])
    left.files["model.safetensors"].resolve().write_bytes(b"edited")
    assert (entry.path / "model.safetensors").read_bytes() == WEIGHTS
    download(hub, home, revision=new, local_files_only=True)  # the real client still finds its own


def test_move_copies_nothing_where_one_file_system_holds_both(hub: FakeHub, home: Path, cache: Cache) -> None:
    download(hub, home)
    (found,) = huggingface.find(home / "hub")
    before = {path: file.stat().st_ino for path, file in found.files.items()}

    taken = take(found, cache, silent, move=True)

    assert {path: (taken.path / path).stat().st_ino for path in found.files} == before
    assert {(taken.path / path).stat().st_mode & 0o777 for path in found.files} == {0o444}
    plan = Shelf(cache.root).unwanted((), forced=True)
    assert plan.freed_bytes > len(WEIGHTS)  # no name is left elsewhere


def test_move_copies_a_file_that_has_another_name_outside(hub: FakeHub, home: Path, cache: Cache) -> None:
    download(hub, home)
    (found,) = huggingface.find(home / "hub")
    other = home.parent / "elsewhere.safetensors"
    os.link(found.files["model.safetensors"].resolve(), other)

    taken = take(found, cache, silent, move=True)

    assert not (taken.path / "model.safetensors").samefile(other)
    other.write_bytes(b"edited")
    assert content_of(cache, found) == KEPT


def test_move_where_the_cache_is_reached_through_a_link(hub: FakeHub, home: Path, cache: Cache) -> None:
    download(hub, home)
    (home.parent / "short").symlink_to(home / "hub")
    new = hub.commit("acme/tiny", FILES | {"config.json": b"{ }"})
    download(hub, home)
    old = next(each for each in huggingface.find(home.parent / "short") if each.pin != new)

    take(old, cache, silent, move=True)

    assert dangling(home) == []
    assert [each.pin for each in huggingface.find(home / "hub")] == [new]
    assert content_of(cache, old) == KEPT


MOVE = """
import itertools, os, pathlib, shutil, signal, sys, traceback
from pipeline.resources.cache.adopt import find, take
from pipeline.resources.cache.store import Cache

start = pathlib.Path(sys.argv[1])

def move(root, steps):
    done = itertools.count()
    def counted(real):
        def step(*arguments, **options):
            if next(done) == steps:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)
        return step
    for name in ("link", "unlink", "rename", "rmdir", "replace"):
        setattr(os, name, counted(getattr(os, name)))
    for found in find({"HF_HOME": str(root / "hf"), "XDG_CACHE_HOME": str(root)}):
        take(found, Cache(root / "cache"), lambda event: None, move=True)

for steps in itertools.count():
    root = start.with_name(f"run-{steps}")
    shutil.copytree(start, root, symlinks=True)
    child = os.fork()
    if not child:
        try:
            move(root, steps)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if ended != -signal.SIGKILL:
        sys.exit(ended)
"""


@pytest.mark.parametrize("origin", ["huggingface", "instructlab"])
def test_killed_move_loses_nothing_and_the_next_one_ends_it(
    hub: FakeHub, tmp_path: Path, origin: str
) -> None:
    start = tmp_path / "start"
    if origin == "huggingface":
        download(hub, start / "hf")
    else:
        write(start / "instructlab/models/acme/tiny", FILES)
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", MOVE, str(start)], env=environ, check=True, timeout=120)

    runs = list(tmp_path.glob("run-*"))

    assert len(runs) > 10
    for root in runs:
        assert dangling(root) == []
        cache = Cache(root / "cache")
        for left in find({"HF_HOME": str(root / "hf"), "XDG_CACHE_HOME": str(root)}):
            # half a model there is a whole one here
            assert left.files.keys() == KEPT.keys() or Shelf(cache.root).list()[0].complete
            take(left, cache, silent, move=True)
        (entry,) = Shelf(cache.root).list()
        assert entry.complete and {file.path for file in entry.files} == KEPT.keys()
        assert Shelf(cache.root).verify([entry], nothing) == ()
        assert find({"HF_HOME": str(root / "hf"), "XDG_CACHE_HOME": str(root)}) == ()


def test_instructlab_folder_has_no_version_and_is_pinned_by_content_as_a_local_folder_is(
    hub: FakeHub, home: Path, lab: Path, cache: Cache
) -> None:
    folder = lab / "models/acme/tiny"
    download(hub, home, local_dir=str(folder))  # as `ilab model download` does
    (found,) = find({"XDG_CACHE_HOME": str(lab.parent), "HF_HOME": str(home)})
    assert (found.source, found.versions, found.pin) == ("hf://acme/tiny", (), "")

    taken = take(found, cache, silent)

    local = LocalSource(lab / "memo").resolve(SourceSpec(f"file://{folder}", ""), None)
    listed = [[path, sha256(content), len(content)] for path, content in sorted(KEPT.items())]
    assert taken.pin == local.pin == f"sha256-{fingerprint(listed)}"
    assert taken.versions == () and content_of(cache, found) == KEPT


@pytest.mark.parametrize("name", [".metadata", "metadata.json"])
def test_instructlab_release_with_metadata_tells_version_and_pin(lab: Path, cache: Cache, name: str) -> None:
    note = {"version": "v1.1", "SHA": "f" * 40, "size": 300_000}
    folder = lab / "models/huggingface.co/acme/tiny/v1.1"
    write(folder, KEPT | {name: json.dumps(note).encode()})
    digest = "e" * 64
    oci = lab / "models/quay.io/ai-lab/models/granite/1.4"
    write(oci, KEPT | {name: json.dumps(note | {"version": "1.4", "SHA": f"sha256:{digest}"}).encode()})

    from_hub, from_registry = instructlab.find(lab)

    assert (from_hub.source, from_hub.versions, from_hub.pin) == ("hf://acme/tiny", ("v1.1",), "f" * 40)
    assert from_registry.source == "oci://quay.io/ai-lab/models/granite"
    assert (from_registry.versions, from_registry.pin) == (("1.4",), f"sha256-{digest}")
    assert from_hub.files.keys() == KEPT.keys()
    take(from_hub, cache, silent, move=True)
    assert content_of(cache, from_hub) == KEPT
    assert files_of(lab / "models/huggingface.co") == []


@pytest.mark.parametrize("text", [b"{", b'{"version": "v1"}', b'{"version": "v1", "SHA": "main", "size": 1}'])
def test_metadata_that_pins_nothing_is_not_believed(lab: Path, text: bytes) -> None:
    write(lab / "models/huggingface.co/acme/tiny/v1", KEPT | {"metadata.json": text})

    (found,) = instructlab.find(lab)

    assert (found.source, found.versions, found.pin) == ("hf://acme/tiny", (), "")


def test_a_models_own_metadata_file_is_one_of_its_files(lab: Path) -> None:
    write(lab / "models/acme/tiny", KEPT | {"metadata.json": b'{"dataset": "x"}'})
    assert "metadata.json" in instructlab.find(lab)[0].files


def test_single_gguf_files_are_models_of_their_own(lab: Path, cache: Cache) -> None:
    write(lab / "models", {"a.gguf": b"GGUF" + b"a" * 999, "b.gguf": b"GGUF" + b"b" * 999, "notes.txt": b"x"})
    first, second = instructlab.find(lab)
    assert first.source == f"file://{lab}/models/a.gguf"
    assert (first.versions, first.pin, list(first.files)) == ((), "", ["a.gguf"])

    taken = take(first, cache, silent, move=True)

    assert (taken.path / "a.gguf").read_bytes() == b"GGUF" + b"a" * 999
    assert files_of(lab / "models") == ["b.gguf", "notes.txt"]
    assert instructlab.find(lab) == (second,)


def test_registry_model_with_links_into_its_layout_is_taken_and_moved(lab: Path, cache: Cache) -> None:
    blobs = lab / "oci/granite/blobs/sha256"
    write(blobs, {sha256(content): content for content in KEPT.values()})
    write(lab / "oci/granite", {"index.json": b"{}", "oci-layout": b"{}"})
    for path, content in KEPT.items():
        name = lab / "models/granite" / path
        name.parent.mkdir(parents=True, exist_ok=True)
        name.symlink_to(blobs / sha256(content))
    (found,) = instructlab.find(lab)
    assert found.source == f"file://{lab}/models/granite"  # nothing tells its registry
    assert found.sha256s == {path: sha256(content) for path, content in KEPT.items()}

    take(found, cache, silent, move=True)

    assert content_of(cache, found) == KEPT
    assert dangling(lab) == [] and files_of(lab) == ["oci/granite/index.json", "oci/granite/oci-layout"]


def test_name_that_is_no_utf_8_is_refused(lab: Path, cache: Cache) -> None:
    write(lab / "models/acme/tiny", KEPT)
    (lab / "models/acme/tiny" / os.fsdecode(b"a\xff.json")).write_bytes(b"{}")

    with pytest.raises(Refused, match=r"a\\xff.json"):
        take(instructlab.find(lab)[0], cache, silent)


def test_hashing_is_shown_in_bytes(lab: Path, cache: Cache) -> None:
    write(lab / "models/acme/tiny", KEPT)
    events: list[Event] = []

    take(instructlab.find(lab)[0], cache, events.append)

    hashed = [event for event in events if isinstance(event, Progress) and event.doing == "hash"]
    assert hashed[-1].done_bytes == hashed[-1].total_bytes == sum(map(len, KEPT.values()))


def test_folders_that_are_no_models_are_not_found(lab: Path, home: Path) -> None:
    write(lab / "models", {"acme/README.md": b"x", ".hidden/a/model.safetensors": b"x"})
    write(home / "hub", {"datasets--acme--d/snapshots/" + "a" * 40 + "/x.json": b"{}"})
    write(home / "hub", {"models--gpt2/snapshots/" + "a" * 40 + "/config.json": b"{}"})
    write(home / "hub", {"models--acme--tiny/snapshots/not-a-commit/config.json": b"{}"})

    assert find({"HF_HOME": str(home), "XDG_CACHE_HOME": str(lab.parent)}) == ()
