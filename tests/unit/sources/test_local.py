"""Local folders and files: pinned by content, hashed once, never left."""

import os
from pathlib import Path

import pytest

from pipeline.core.errors import Denied, Refused
from pipeline.core.model import Filter
from pipeline.core.protocols import SourceSpec
from pipeline.sources.local import LocalSource

LONG_AGO_NS = 1_700_000_000_000_000_000


def spec(path: Path) -> SourceSpec:
    return SourceSpec(f"file://{path}", "")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    for name, content in {"config.json": "{}", "model.safetensors": "weights"}.items():
        (made / name).write_text(content)
        os.utime(made / name, ns=(LONG_AGO_NS, LONG_AGO_NS))
    return made


def swap_content_unseen(file: Path) -> None:
    """Change bytes and keep size, time and inode: only hashing could tell."""
    before = file.stat()
    with file.open("r+b") as opened:
        opened.write(b"W")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_pin_is_of_the_content_and_not_of_the_place(folder: Path, tmp_path: Path) -> None:
    source = LocalSource(tmp_path / "memo")
    before = source.resolve(spec(folder), None)
    folder.rename(tmp_path / "moved")
    after = source.resolve(spec(tmp_path / "moved"), None)
    assert before.pin == after.pin
    assert before.pin.startswith("sha256-")
    assert len(before.pin) == 71


def test_unchanged_folder_is_not_hashed_again(folder: Path, tmp_path: Path) -> None:
    before = LocalSource(tmp_path / "memo").resolve(spec(folder), None)
    swap_content_unseen(folder / "model.safetensors")
    assert LocalSource(tmp_path / "memo").resolve(spec(folder), None) == before
    assert LocalSource(tmp_path / "other memo").resolve(spec(folder), None) != before


def test_file_that_was_just_written_is_hashed_again(folder: Path, tmp_path: Path) -> None:
    source = LocalSource(tmp_path / "memo", now_ns=lambda: LONG_AGO_NS + 1_000_000)
    before = source.resolve(spec(folder), None)
    swap_content_unseen(folder / "model.safetensors")
    assert source.resolve(spec(folder), None) != before


def test_touched_file_is_hashed_again(folder: Path, tmp_path: Path) -> None:
    source = LocalSource(tmp_path / "memo")
    before = source.resolve(spec(folder), None)
    (folder / "model.safetensors").write_text("WEIGHTS")
    assert source.resolve(spec(folder), None).pin != before.pin


def test_damaged_memory_is_forgotten(folder: Path, tmp_path: Path) -> None:
    before = LocalSource(tmp_path / "memo").resolve(spec(folder), None)
    (memo,) = (tmp_path / "memo").iterdir()
    memo.write_text('{"config.json": [1]}')
    assert LocalSource(tmp_path / "memo").resolve(spec(folder), None) == before


def test_single_file_is_a_model(tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    file.write_text("GGUF")
    source = LocalSource(tmp_path / "memo")
    artifact = source.resolve(spec(file), None)
    assert [entry.path for entry in artifact.files] == ["tiny.gguf"]
    with source.open(artifact, artifact.files[0], 2) as stream:
        assert stream.read() == b"UF"


def test_link_inside_the_folder_is_followed(folder: Path, tmp_path: Path) -> None:
    (folder / "copy.json").symlink_to("config.json")
    artifact = LocalSource(tmp_path / "memo").resolve(spec(folder), None)
    assert "copy.json" in {entry.path for entry in artifact.files}


@pytest.mark.parametrize("target", ["/etc/hostname", "/etc", "../secret"])
def test_link_that_leaves_the_folder_is_refused(folder: Path, tmp_path: Path, target: str) -> None:
    (tmp_path / "secret").write_text("x")
    (folder / "extra.json").symlink_to(target)
    with pytest.raises(Refused, match=r'"extra.json" is a link that leads out'):
        LocalSource(tmp_path / "memo").resolve(spec(folder), None)


def test_link_put_there_after_the_lock_is_refused(folder: Path, tmp_path: Path) -> None:
    source = LocalSource(tmp_path / "memo")
    artifact = source.resolve(spec(folder), None)
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("/etc/hostname")
    with pytest.raises(Refused), source.open(artifact, artifact.files[0], 0):
        pass


def test_pipe_is_refused(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(folder / "pipe.json")
    with pytest.raises(Refused, match="no regular file"):
        LocalSource(tmp_path / "memo").resolve(spec(folder), None)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file_is_denied(folder: Path, tmp_path: Path) -> None:
    (folder / "config.json").chmod(0)
    with pytest.raises(Denied):
        LocalSource(tmp_path / "memo").resolve(spec(folder), None)


def test_a_file_name_that_is_not_utf8_is_refused_by_its_bytes(folder: Path, tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.json")).write_bytes(b"{}")

    with pytest.raises(Refused, match=r'the name "caf\\xe9\.json" is not UTF-8'):
        LocalSource(tmp_path / "memo").resolve(spec(folder), None)

    others = SourceSpec(f"file://{folder}", "", Filter(exclude=("caf*",)))
    assert all(entry.path.isascii() for entry in LocalSource(tmp_path / "memo").resolve(others, None).files)
