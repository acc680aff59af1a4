"""Room on the disk and what dead runs left there, when several downloads work in one cache."""

import shutil
from pathlib import Path

import pytest

from pipeline.core.errors import Exhausted
from pipeline.resources.cache.blobs import Blobs


def test_bytes_that_have_landed_are_not_counted_a_second_time(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    most_bytes = shutil.disk_usage(tmp_path).free * 6 // 10

    with blobs.reserved(most_bytes) as landed:
        with pytest.raises(Exhausted), blobs.reserved(most_bytes):
            pass
        landed(most_bytes)
        with blobs.reserved(most_bytes):
            pass


def test_room_is_given_back_once_whatever_landed(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    most_bytes = shutil.disk_usage(tmp_path).free * 6 // 10

    for _ in range(2):
        with blobs.reserved(most_bytes) as landed:
            landed(most_bytes // 3)
    with blobs.reserved(most_bytes), pytest.raises(Exhausted), blobs.reserved(most_bytes):
        pass
