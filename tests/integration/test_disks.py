"""Disks that lose a bit, and disks that are full: `mp` says so, and the next apply puts everything right."""

import shutil
from pathlib import Path

import pytest

from pipeline.core.image import Registry
from tests.parts.faults import (
    MIB,
    flip_a_byte,
    hashed_as_named,
    layout,
    manifest_of,
    nothing_is_left_to_do,
    one_image_each,
    project_of,
    small_disk,
    started,
    weights,
    whole_images,
    write_model,
)

LAYOUT = {"here": {"layout": "registry"}}
CHANGES, PARTLY = 2, 5


def flat(text: str) -> str:
    """Without the line breaks that long paths get."""
    return "".join(text.split())


@pytest.mark.parametrize("quietly", [True, False], ids=["the time stamp is as before", "it shows"])
def test_a_damaged_file_of_the_cache_is_fetched_again_before_it_is_pushed(
    tmp_path: Path, quietly: bool
) -> None:
    project = project_of(tmp_path, {}, LAYOUT)
    content = weights("one", 2 * MIB)
    source = write_model(project, "tiny", config__json=b"{}", model__safetensors=content)
    project.write(manifest_of({"tiny": source}, LAYOUT))
    project.applied()
    right = whole_images(layout(project))
    (blob,) = (b for b in (project.cache / "blobs").rglob("*") if b.is_file() and b.stat().st_size > MIB)
    flip_a_byte(blob, quietly=quietly)
    shutil.rmtree(project.folder / "registry")

    project.applied()

    assert whole_images(layout(project)) == right
    assert blob.read_bytes() == content
    nothing_is_left_to_do(project)


def test_a_damaged_image_of_a_layout_is_put_right_when_its_size_tells(tmp_path: Path) -> None:
    project = project_of(tmp_path, {}, LAYOUT)
    source = write_model(project, "tiny", model__safetensors=weights("one", MIB))
    project.write(manifest_of({"tiny": source}, LAYOUT))
    project.applied()
    (digest,) = set(whole_images(layout(project))["tiny.weights"].values())
    blob = project.folder / "registry" / "tiny.weights" / "blobs" / "sha256" / digest.removeprefix("sha256:")
    blob.write_bytes(blob.read_bytes()[:-1])

    assert project.mp("drift").code == CHANGES
    project.applied()

    assert set(whole_images(layout(project))["tiny.weights"].values()) == {digest}
    nothing_is_left_to_do(project)


def test_a_full_disk_of_the_cache_is_said_before_anything_is_fetched(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 8 * MIB) as disk:
        project = project_of(tmp_path, {}, LAYOUT, cache=disk / "cache")
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(6 * MIB))
        source = write_model(project, "tiny", model__safetensors=weights("one", 4 * MIB))
        project.write(manifest_of({"tiny": source}, LAYOUT))

        failed = project.mp("apply", "--yes")

        assert failed.code == 1, failed.text
        text = f"the disk of {disk / 'cache'} is full: {4 * MIB:,} bytes are needed and 2,"
        assert flat(text) in flat(failed.out), failed.text
        assert "Traceback" not in failed.text
        assert whole_images(layout(project)) == {}
        ballast.unlink()
        project.applied()
        one_image_each(layout(project), ["tiny"])
        nothing_is_left_to_do(project)


def test_a_full_disk_of_a_layout_is_said_before_anything_moves(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 8 * MIB) as disk:
        place = {"here": {"layout": str(disk / "registry")}}
        project = project_of(tmp_path, {}, place)
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(6 * MIB))
        source = write_model(project, "tiny", model__safetensors=weights("one", 4 * MIB))
        project.write(manifest_of({"tiny": source}, place))

        failed = project.mp("apply", "--yes")

        assert failed.code == 1, failed.text
        folder = disk / "registry" / "tiny.weights"
        text = f"the disk of {disk / 'registry'} is full: {4 * MIB + 2048:,} bytes are needed and 2,"
        assert flat(text) in flat(failed.out), failed.text
        assert "Traceback" not in failed.text
        assert list(disk.iterdir()) == [ballast]
        assert not (project.cache / "blobs").exists()
        ballast.unlink()
        project.applied()
        one_image_each(Registry("here", layout=str(disk / "registry")), ["tiny"])
        assert hashed_as_named(folder)
        nothing_is_left_to_do(project)


@pytest.mark.parametrize(
    ("left_bytes", "said"), [(0, "models.lock: cannot be written"), (8192, "inventory: cannot write")]
)
def test_a_full_disk_of_the_project_is_an_error_with_a_next_step(
    tmp_path: Path, left_bytes: int, said: str
) -> None:
    place = {"here": {"layout": str(tmp_path / "registry")}}
    with small_disk(tmp_path / "small", MIB) as disk:
        project = project_of(disk, {}, place, cache=tmp_path / "cache")
        names = [f"model-{number:02}" for number in range(20)]
        sources = {name: write_model(project, name, model__safetensors=name.encode() * 50) for name in names}
        project.write(manifest_of(sources, place))
        if left_bytes:  # the lock is there: it is the journal that has no room
            assert project.mp("lock").code == 0
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(shutil.disk_usage(disk).free - left_bytes))

        with started(project, "apply", "--yes", logs=tmp_path) as run:
            failed = run.result()

        assert failed.code in (1, PARTLY), failed.text
        assert flat(said) in flat(failed.text), failed.text
        assert "Traceback" not in failed.text
        ballast.unlink()
        project.applied()
        one_image_each(Registry("here", layout=str(tmp_path / "registry")), names)
        nothing_is_left_to_do(project)
