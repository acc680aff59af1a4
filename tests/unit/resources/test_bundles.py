"""Environments as layers: what is alone, what engines share, and tars of exactly the size that was said."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from pipeline.core.errors import Corrupt
from pipeline.resources.engine.bundles import Bundle
from pipeline.resources.engine.bundles import bundles as every_bundle

LARGE_BYTES = 2**16


def bundles(folder: Path) -> tuple[Bundle, ...]:
    return every_bundle(folder, LARGE_BYTES)


def environment(folder: Path, word: str) -> Path:
    """A small package, a large one (sparse), byte code of both, a program and a link."""
    (folder / "six" / "__pycache__").mkdir(parents=True)
    (folder / "torch" / "lib").mkdir(parents=True)
    (folder / "bin").mkdir()
    (folder / "six" / "six.py").write_text(word)
    (folder / "six" / "__pycache__" / "six.pyc").write_text(f"compiled in {folder}")
    (folder / "bin" / "tool").write_text("#!/bin/sh\n")
    (folder / "bin" / "tool").chmod(0o755)
    with (folder / "torch" / "lib" / "libtorch.so").open("wb") as library:
        library.truncate(LARGE_BYTES)
    (folder / "torch" / "lib" / "libtorch.so.1").symlink_to("libtorch.so")
    return folder


def sharing(folder: Path, other: Path) -> Path:
    """A second environment whose large package is linked from the first one's, as uv links from its cache."""
    environment(folder, "another six")
    library = Path("torch", "lib", "libtorch.so")
    (folder / library).unlink()
    os.link(other / library, folder / library)
    return folder


def read(bundle: Bundle) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(b"".join(bundle.blocks())))


def test_large_packages_are_alone_and_byte_code_is_last(tmp_path: Path) -> None:
    made = bundles(environment(tmp_path, "six"))
    assert [bundle.title for bundle in made] == ["torch", "other packages", "byte code"]
    assert [m.path for m in made[2].members] == ["six/__pycache__/six.pyc"]
    assert [m.path for m in made[1].members] == ["bin/tool", "six/six.py"]


def test_tar_has_exactly_the_size_that_was_said_and_keeps_times_modes_and_links(tmp_path: Path) -> None:
    os.utime(environment(tmp_path, "six") / "six" / "six.py", (1_700_000_000, 1_700_000_000))
    large, small, _ = bundles(tmp_path)
    assert [sum(map(len, bundle.blocks())) for bundle in (large, small)] == [
        large.size_bytes,
        small.size_bytes,
    ]
    with read(small) as tar:
        assert tar.getmember("opt/app/six/six.py").mtime == 1_700_000_000
        assert (tar.getmember("opt/app/bin/tool").mode, tar.getmember("opt/app").isdir()) == (0o755, True)
    with read(large) as tar:
        assert tar.getmember("opt/app/torch/lib/libtorch.so.1").linkname == "libtorch.so"


def test_a_bundle_begins_at_any_offset(tmp_path: Path) -> None:
    for bundle in bundles(environment(tmp_path, "six")):
        whole = b"".join(bundle.blocks())
        for start in (
            0,
            1,
            511,
            512,
            513,
            1500,
            2048,
            2050,
            len(whole) // 2,
            len(whole) - 1024,
            len(whole) - 1,
        ):
            assert b"".join(bundle.blocks(start)) == whole[start:]


def test_equal_packages_of_two_environments_are_equal_layers(tmp_path: Path) -> None:
    one = bundles(environment(tmp_path / "one", "six"))
    other = bundles(sharing(tmp_path / "other", tmp_path / "one"))
    assert [a.key == b.key for a, b in zip(one, other, strict=True)] == [True, False, False]
    assert b"".join(one[0].blocks()) == b"".join(other[0].blocks())


def test_the_largest_come_first(tmp_path: Path) -> None:
    for name, size_bytes in (("a", 1), ("b", 2), ("c", 3)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "library.so").write_bytes(bytes(size_bytes * LARGE_BYTES))
    assert [bundle.title for bundle in bundles(tmp_path)] == ["c", "b", "a"]


def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    small = bundles(environment(tmp_path, "six"))[1]
    (tmp_path / "six" / "six.py").write_text("longer than before")
    with pytest.raises(Corrupt, match="changed while it was read"):
        list(small.blocks())


def test_an_empty_environment_has_no_layers(tmp_path: Path) -> None:
    assert bundles(tmp_path) == ()
