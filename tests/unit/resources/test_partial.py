"""Partial files: ours alone while they grow, kept when their writer dies, and swept when nobody goes on with them."""

import fcntl
import os
import time
from pathlib import Path

import pytest

from pipeline.resources.cache.partial import growing, size_bytes, sweep

NAME = "a" * 64
DAY_S = 86400


def aged(path: Path, days: float) -> Path:
    before = time.time() - days * DAY_S
    os.utime(path, (before, before))
    return path


def test_what_was_written_stays_when_its_writer_fails(tmp_path: Path) -> None:
    path = tmp_path / NAME
    with pytest.raises(RuntimeError), growing(str(path)) as file:
        assert file is not None
        file.write(b"half")
        raise RuntimeError

    with growing(str(path)) as file:
        assert file is not None
        assert file.read() == b"half"


def test_nothing_has_come_where_no_partial_file_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()  # MP_CACHE may name one: what is written there says so
    assert size_bytes(str(tmp_path / "file" / NAME)) == 0
    assert size_bytes(str(tmp_path / NAME)) == 0


def test_who_comes_second_gets_none_and_sees_it_grow(tmp_path: Path) -> None:
    path = str(tmp_path / NAME)
    with growing(path) as first, growing(path) as second:
        assert first is not None
        assert second is None
        first.write(b"half")
        assert size_bytes(path) == 4
    with growing(path) as third:
        assert third is not None


def test_nothing_and_what_became_a_blob_leave_no_partial_file(tmp_path: Path) -> None:
    path, blob = tmp_path / NAME, tmp_path / "blob"
    with growing(str(path)):
        pass
    assert not path.exists()

    with growing(str(path)) as file:
        assert file is not None
        file.write(b"whole")
        os.link(path, blob)

    assert (path.exists(), blob.read_bytes()) == (False, b"whole")


def test_partial_file_that_is_a_blob_already_is_never_written_to(tmp_path: Path) -> None:
    path, blob = tmp_path / NAME, tmp_path / "blob"
    path.write_bytes(b"whole")
    os.link(path, blob)  # killed before the partial name went

    with growing(str(path)) as file:
        assert file is not None
        file.write(b"anew!")

    assert blob.read_bytes() == b"whole"
    assert path.read_bytes() == b"anew!"


def test_only_what_nobody_goes_on_with_is_swept(tmp_path: Path) -> None:
    stays = [tmp_path / ("1" * 64), tmp_path / ("2" * 64), tmp_path / "link.1.0"]
    goes = [tmp_path / ("3" * 64), tmp_path / ("4" * 64)]
    for path in (*stays, *goes):
        path.write_bytes(b"x")
    aged(stays[0], 6.9)
    aged(goes[0], 7.1)
    os.link(goes[1], tmp_path / "blob")
    with aged(stays[1], 30).open("rb") as living:
        fcntl.flock(living, fcntl.LOCK_EX)

        sweep(tmp_path)

    assert sorted(path for path in tmp_path.iterdir() if path.name != "blob") == stays


def test_partial_folder_may_be_swept_by_many_at_once(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    for number in range(200):
        path = tmp_path / f"{number:064x}"
        path.touch()
        aged(path, 8)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: sweep(tmp_path), range(4)))
    assert list(tmp_path.iterdir()) == []
