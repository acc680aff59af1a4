"""References, archives for Docker, and what an OCI layout does with leftovers and foreign files."""

import io
import json
import os
import tarfile
import threading
from pathlib import Path

import pytest

from pipeline.clients.archive import docker_archive, unpack
from pipeline.clients.buildkit import trace_lines
from pipeline.clients.oci.layout import LayoutRepository
from pipeline.clients.oci.repositories import Repositories, parse_image
from pipeline.clients.oci.repository import CONFIG, LAYER, MANIFEST, ImageManifest, held
from pipeline.core.digest import Digest, digest
from pipeline.core.errors import Corrupt, Denied
from pipeline.core.image import Registry

SHA = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "host", "path", "tag", "pin"),
    [
        ("python", "docker.io", "library/python", None, None),
        ("vllm/vllm-openai:v0.32.0", "docker.io", "vllm/vllm-openai", "v0.32.0", None),
        ("ghcr.io/acme/base:1", "ghcr.io", "acme/base", "1", None),
        (f"127.0.0.1:5000/debian@{SHA}", "127.0.0.1:5000", "debian", None, SHA),
        (f"localhost/x/y:1@{SHA}", "localhost", "x/y", "1", SHA),
    ],
)
def test_references_are_read_as_docker_reads_them(
    text: str, host: str, path: str, tag: str | None, pin: str | None
) -> None:
    found = parse_image(text)

    assert (found.host, found.path, found.tag, found.digest) == (host, path, tag, pin)
    assert found.name == f"{host}/{path}"


def test_a_reference_leads_to_its_repository() -> None:
    registry, name = parse_image("ghcr.io/acme/models/base:1").registry()

    assert (registry.url, name) == ("ghcr.io/acme/models", "base")
    assert Repositories({})(registry, name).location == "ghcr.io/acme/models/base"


def put_image(repository: LayoutRepository, tag: str, *layers: bytes) -> ImageManifest:
    config = json.dumps(
        {"rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]}}
    ).encode()
    for body in (config, *layers):
        repository.push(digest(body), len(body), held(body))
    descriptors = [{"mediaType": LAYER, "digest": digest(layer), "size": len(layer)} for layer in layers]
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": digest(config), "size": len(config)},
        "layers": descriptors,
    }
    manifest = ImageManifest(json.dumps(document).encode(), MANIFEST)
    repository.put_manifest(tag, manifest)
    return manifest


def test_an_archive_for_docker_names_every_layer_once_and_unpacks_to_the_same_layers(tmp_path: Path) -> None:
    repository = LayoutRepository(str(tmp_path), "one")
    layers = (b"l" * 700, b"m" * 1024)
    put_image(repository, "v1", layers[0], layers[1], layers[0])

    archive = b"".join(docker_archive(repository, "v1", "mp/one:v1"))

    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert len(tar.getnames()) == len(set(tar.getnames())) == 4
        listing = tar.extractfile("manifest.json")
        assert listing is not None
        assert json.load(listing)[0]["RepoTags"] == ["mp/one:v1"]
    unpacked = unpack(iter([archive[:1000], archive[1000:]]), LayoutRepository(str(tmp_path), "two"))
    assert [layer.digest for layer in unpacked.layers] == [
        digest(layers[0]),
        digest(layers[1]),
        digest(layers[0]),
    ]
    assert LayoutRepository(str(tmp_path), "two").blob(digest(layers[1])) == layers[1]


def saved(members: dict[str, bytes], links: dict[str, str], diff_ids: list[str]) -> bytes:
    """What `docker save` of an older engine writes: equal layers are symbolic links."""
    contents = [{"Config": "c.json", "Layers": [*members, *links]}]
    files = {**members, "c.json": json.dumps({"rootfs": {"diff_ids": diff_ids}}).encode()}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, body in {**files, "manifest.json": json.dumps(contents).encode()}.items():
            member = tarfile.TarInfo(name)
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))
        for name, target in links.items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return buffer.getvalue()


def test_equal_layers_of_a_saved_image_are_links_of_each_other(tmp_path: Path) -> None:
    one = digest(b"one")
    archive = saved({"a/layer.tar": b"one"}, {"b/layer.tar": "../a/layer.tar"}, [one, one])

    unpacked = unpack(iter([archive]), LayoutRepository(str(tmp_path), "x"))

    assert [layer.digest for layer in unpacked.layers] == [one, one]


@pytest.mark.parametrize("diff_ids", [[SHA], []], ids=["another digest", "another count"])
def test_a_saved_layer_that_is_not_what_its_config_says_is_refused(
    tmp_path: Path, diff_ids: list[str]
) -> None:
    archive = saved({"a/layer.tar": b"one"}, {}, diff_ids)

    with pytest.raises(Corrupt, match="what its config says"):
        unpack(iter([archive]), LayoutRepository(str(tmp_path), "x"))


def test_a_saved_image_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    archive = saved({"a/layer.tar": b"one" * 1000}, {}, [digest(b"one" * 1000)])

    with pytest.raises(Corrupt):
        unpack(iter([archive[:2000]]), LayoutRepository(str(tmp_path), "x"))


def test_what_a_killed_writer_left_is_removed_later_and_a_running_one_is_left_alone(tmp_path: Path) -> None:
    repository = LayoutRepository(str(tmp_path), "x")
    put_image(repository, "v1", b"layer")
    abandoned, running = (tmp_path / "x" / f".partial-{name}" for name in ("abandoned", "running"))
    for leftover in (abandoned, running):
        leftover.write_bytes(b"half")
    os.utime(abandoned, (0, 0))

    put_image(repository, "v2", b"layer")

    assert (abandoned.exists(), running.exists()) == (False, True)


def test_writers_at_once_lose_no_tag(tmp_path: Path) -> None:
    def put(number: int) -> None:
        put_image(LayoutRepository(str(tmp_path), "x"), f"v{number:02}", b"layer %d" % number)

    writers = [threading.Thread(target=put, args=(number,)) for number in range(12)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    assert LayoutRepository(str(tmp_path), "x").tags() == tuple(f"v{number:02}" for number in range(12))


def test_a_tag_whose_image_manifest_is_gone_is_not_there(tmp_path: Path) -> None:
    repository = LayoutRepository(str(tmp_path), "x")
    manifest = put_image(repository, "v1", b"layer")
    (tmp_path / "x" / "blobs" / manifest.digest.replace(":", "/")).unlink()

    assert repository.head("v1") is None
    assert repository.manifest("v1") is None


def test_a_damaged_blob_and_a_foreign_index_are_errors_and_not_absent(tmp_path: Path) -> None:
    repository = LayoutRepository(str(tmp_path), "x")
    put_image(repository, "v1", b"layer")
    (tmp_path / "x" / "blobs" / digest(b"layer").replace(":", "/")).write_bytes(b"lay3r")
    with pytest.raises(Corrupt, match="damaged"):
        repository.blob(digest(b"layer"))

    (tmp_path / "x" / "index.json").write_text("[]")
    with pytest.raises(Corrupt, match=r"index\.json"):
        repository.head("v1")


def test_a_damaged_image_manifest_is_written_again(tmp_path: Path) -> None:
    repository = LayoutRepository(str(tmp_path), "x")
    manifest = put_image(repository, "v1", b"layer")
    blob = tmp_path / "x" / "blobs" / manifest.digest.replace(":", "/")
    blob.write_bytes(blob.read_bytes()[::-1])

    repository.put_manifest("v1", manifest)

    assert repository.manifest("v1") == manifest


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_denied(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(Denied):
        put_image(LayoutRepository(str(tmp_path), "x"), "v1", b"layer")


def test_a_file_in_the_way_of_a_layout_is_named(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("not a folder")
    repository = LayoutRepository(str(tmp_path), "x")

    assert repository.head("v1") is None
    with pytest.raises(Exception, match=str(tmp_path)):
        repository.push(None, 1, held(b"a"))


def test_repositories_of_a_layout_are_opened_by_name(tmp_path: Path) -> None:
    registry = Registry("here", layout=str(tmp_path))
    put_image(LayoutRepository(str(tmp_path), "qwen3"), "v1", b"layer")

    assert Repositories({})(registry, "qwen3").tags() == ("v1",)
    assert Repositories({})(registry, "other").tags() == ()
    assert not Repositories({})(registry, "other").has(Digest(SHA))


def field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2, len(content)]) + content


def test_a_builds_trace_is_told_in_lines() -> None:
    name, began, ended = field(3, b"[2/3] COPY app /opt/app"), field(5, b""), field(6, b"")
    trace = b"".join(
        (
            field(1, name + began),
            field(1, name + began + ended),
            field(1, name + bytes([4 << 3, 1]) + began + ended),
            field(2, field(1, b"a status")),
            field(3, field(1, b"vertex") + field(4, b"one\n\ntwo\n")),
        )
    )

    assert list(trace_lines(trace)) == [
        "[2/3] COPY app /opt/app",
        "[2/3] COPY app /opt/app (cached)",
        "one",
        "two",
    ]


def test_what_makes_a_folder_a_layout_is_written_again_with_the_next_push(tmp_path: Path) -> None:
    put_image(LayoutRepository(str(tmp_path), "tiny"), "v1", b"weights")
    (tmp_path / "tiny" / "oci-layout").unlink()

    put_image(LayoutRepository(str(tmp_path), "tiny"), "v2", b"weights")

    assert "imageLayoutVersion" in (tmp_path / "tiny" / "oci-layout").read_text()
