"""A layer that is larger than its registry takes is told with file, size, limit and way out, before anything moves."""

import pytest

from pipeline.core.image import Registry
from pipeline.core.model import Artifact, FileEntry, Model
from pipeline.resources.image.fitting import too_large
from pipeline.resources.image.resource import weights_image
from tests.fakes import engine

GB = 10**9


def model(**sizes: int) -> Model:
    files = tuple(FileEntry(f"{name}.safetensors", size, name[0] * 64) for name, size in sizes.items())
    artifact = Artifact("hf://acme/big", "main", "c" * 40, files)
    return Model("big", artifact, engine.CPU, engine.ENGINE.template, engine.ENGINE)


def said(registry: Registry, of: Model) -> list[str]:
    return [problem.summary for problem in too_large([weights_image(of, registry, "acme")] * 2)]


def test_each_file_that_is_too_large_is_told_once_with_numbers() -> None:
    registry = Registry("main", url="ghcr.io/acme")

    assert said(registry, model(a=12 * GB, b=9 * GB, c=11 * GB)) == [
        f'big: "{name}.safetensors" makes a layer of {size} GB, '
        "and ghcr.io/acme (GitHub Container Registry) takes 10.00 GB at most"
        for name, size in (("a", "12.00"), ("c", "11.00"))
    ]


def test_the_way_out_is_named() -> None:
    (problem,) = too_large([weights_image(model(a=12 * GB), Registry("main", url="ghcr.io/acme"), "acme")])

    assert problem.hint is not None
    for way in ("another registry", "weights: mount", "smaller shards", "registries: {main: {max_layer: …}}"):
        assert way in problem.hint


@pytest.mark.parametrize(
    "registry",
    [
        Registry("main", url="ghcr.io/acme", max_layer_bytes=50 * GB),
        Registry("main", url="harbor.acme.com/models"),
        Registry("here", layout="/layouts"),
    ],
)
def test_where_more_is_taken_nothing_is_said(registry: Registry) -> None:
    assert said(registry, model(a=12 * GB)) == []


def test_a_limit_of_ones_own_is_told_without_a_name() -> None:
    registry = Registry("main", url="harbor.acme.com/models", max_layer_bytes=100 * 10**6)

    assert said(registry, model(a=10**8)) == [
        'big: "a.safetensors" makes a layer of 100.00 MB, and harbor.acme.com/models takes 100.00 MB at most'
    ]
