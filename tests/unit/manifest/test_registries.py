"""`registries:`: what may be said of one with an address, and not of a folder."""

from pathlib import Path

import pytest

from pipeline.core.image import Registry
from pipeline.manifest.read import Document, read
from pipeline.manifest.stated import declared_registries

TEXT = "version: 1\nproject: acme\nregistries:\n  main: {%s}\nmodels: {}\n"


def document(folder: Path, entry: str) -> Document:
    file = folder / "models.yaml"
    file.write_text(TEXT % entry)
    return read(file)


def test_files_and_folders_are_beside_the_manifest_and_sizes_are_bytes(tmp_path: Path) -> None:
    said = (
        "url: docker.io, ca: certs/ca.pem, mirrors: [mirror.local/hub], max_layer: 10GB, max_request: 64MiB"
    )

    manifest = document(tmp_path, said).manifest

    assert manifest is not None
    assert declared_registries(manifest, tmp_path) == {
        "main": Registry(
            "main",
            url="docker.io",
            ca=str(tmp_path / "certs" / "ca.pem"),
            mirrors=("mirror.local/hub",),
            max_layer_bytes=10**10,
            max_request_bytes=64 * 2**20,
        )
    }


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("layout: images, ca: ca.pem", '"ca" is for "url" only'),
        ("layout: images, max_layer: 10GB", '"max_layer" is for "url" only'),
        ("layout: images, mirrors: [mirror.local]", '"mirrors" is for "url" only'),
        ("url: ghcr.io/acme, max_layer: 10", "needs a unit"),
        ("url: ghcr.io/acme, mirrors: ['https://mirror.local']", "without https://"),
        ("url: ghcr.io/acme, limit: 10GB", 'unknown key "limit"'),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, entry: str, said: str) -> None:
    assert said in " ".join(f"{one.summary} {one.hint}" for one in document(tmp_path, entry).diagnostics)
