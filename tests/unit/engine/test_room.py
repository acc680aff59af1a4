"""Whether disks have room for a plan."""

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.core.change import Action, Change
from pipeline.core.diagnostic import Severity
from pipeline.core.image import Registry
from pipeline.core.model import Artifact, FileEntry, Model
from pipeline.core.resource import Address, Resource, State, Transfer
from pipeline.engine.room import short_of_room
from pipeline.resources.cache.artifact import ArtifactState
from pipeline.resources.image import resource as image
from pipeline.resources.image.publish import UPLOADS
from tests.fakes.engine import CPU, ENGINE

TOO_MUCH = 1 << 60


def fetched(size_bytes: int, name: str = "m") -> Change[ArtifactState]:
    artifact = Artifact(
        "hf://acme/m", "main", "c" * 40, (FileEntry("model.safetensors", size_bytes, "a" * 64),)
    )
    where = Address(f"{name}/artifact")
    resource = Resource(where, "artifact", {}, ArtifactState("", artifact))
    return Change(
        where, "artifact", Action.CREATE, resource, None, None, transfer=Transfer(download_bytes=size_bytes)
    )


def pushed(size_bytes: int, place: str, action: Action = Action.CREATE) -> Change[State]:
    where = Address("m/image:main")
    resource = Resource(where, "image", {"registry": place, "repository": "m"}, State())
    return Change(where, "image", action, resource, None, None, transfer=Transfer(push_bytes=size_bytes))


def said(changes: Iterable[Change[Any]], cache: Path) -> list[str]:
    found = short_of_room(changes, cache)
    assert all(one.severity is Severity.ERROR for one in found)
    return [one.summary for one in found]


def test_a_download_that_does_not_fit_names_folder_needed_and_free_bytes(tmp_path: Path) -> None:
    cache = tmp_path / "not" / "there" / "yet"

    (summary,) = said([fetched(TOO_MUCH)], cache)

    assert summary.startswith(f"the disk of {cache} is full: {TOO_MUCH:,} bytes are needed and ")
    free_bytes = int(summary.split()[-3].replace(",", ""))
    assert abs(free_bytes - shutil.disk_usage(tmp_path).free) < 10 * 2**30


def test_downloads_and_images_on_one_disk_are_added_up(tmp_path: Path) -> None:
    half = shutil.disk_usage(tmp_path).free * 2 // 3
    layout = tmp_path / "images"

    (summary,) = said([fetched(half), pushed(half, f"layout:{layout}")], tmp_path / "cache")

    assert f"{tmp_path / 'cache'} and {layout} is full: {2 * half:,} bytes" in summary
    assert said([fetched(half)], tmp_path / "cache") == []
    assert said([pushed(half, f"layout:{layout}")], tmp_path / "cache") == []


def test_a_file_of_two_artifacts_takes_room_once(tmp_path: Path) -> None:
    most = shutil.disk_usage(tmp_path).free * 2 // 3

    assert said([fetched(most), fetched(most, "twin")], tmp_path) == []


def test_what_is_pushed_elsewhere_or_not_at_all_takes_no_room(tmp_path: Path) -> None:
    away = pushed(TOO_MUCH, "ghcr.io/acme")
    straight = replace(away, transfer=Transfer(download_bytes=TOO_MUCH, push_bytes=TOO_MUCH))
    standing = pushed(TOO_MUCH, f"layout:{tmp_path}", Action.NOOP)

    assert said([away, straight, standing], tmp_path) == []


def test_layers_that_are_compressed_take_room_as_many_at_a_time_as_are_sent(tmp_path: Path) -> None:
    share = shutil.disk_usage(tmp_path).free // (UPLOADS + 1)

    def packed(count: int, compression: str) -> Change[image.ImageState]:
        files = tuple(FileEntry(f"{n}.safetensors", share, f"{n}" * 64) for n in range(count))
        model = Model("m", Artifact("hf://acme/m", "main", "c" * 40, files), CPU, "vllm", ENGINE)
        registry = Registry("main", url="ghcr.io/acme", compression=compression)
        wanted = image.weights_image(model, registry, "acme")
        moves = Transfer(push_bytes=count * share)
        return Change(wanted.address, "image", Action.CREATE, wanted, None, None, transfer=moves)

    assert said([packed(9, "gzip")], tmp_path) == []
    assert said([packed(9, "")], tmp_path) == []
    (summary,) = said([packed(9, "gzip"), fetched(share + share // 10)], tmp_path)
    assert str(tmp_path) in summary
