"""What takes long to resolve is named on stderr; what is quick is not."""

import io
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.cli.options import options_from
from pipeline.cli.resolving import telling
from pipeline.cli.session import open_session
from pipeline.cli.views.waiting import Waiting
from pipeline.core.image import Engine, Variant
from pipeline.core.model import Hardware
from pipeline.core.protocols import SourceSpec
from pipeline.core.reference import parse
from pipeline.engine.world import World
from pipeline.resources.engine.pin import unpinned
from pipeline.templates import TEMPLATES

MANIFEST = """\
version: 1
project: acme
registries: {here: {layout: registry}}
targets: {shelf: {kind: registry, publish: [weights]}}
models:
  tiny: {source: ./weights, template: transformers, targets: {shelf: {}}}
"""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def world(tmp_path: Path) -> World:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "config.json").write_text("{}")
    (tmp_path / "weights" / "model.safetensors").write_bytes(bytes(8) + b"{}")
    (tmp_path / "models.yaml").write_text(MANIFEST)
    return open_session(options_from(tmp_path, "default", colour=False)).world


def recorded(world: World, named: list[str]) -> World:
    @contextmanager
    def slow(doing: str) -> Iterator[None]:
        named.append(doing)
        yield

    def pin(variant: Variant, platform: str, base: str | None) -> Engine:
        return unpinned(variant, platform, base)

    return telling(replace(world, pin_engine=pin), slow)


def test_sources_and_engines_are_named_as_people_know_them(world: World, tmp_path: Path) -> None:
    named: list[str] = []
    told = recorded(world, named)

    found = told.sources["file"].resolve(SourceSpec(parse("./weights", tmp_path).source, ""), None)
    told.pin_engine(TEMPLATES["vllm"].variant("0.32.0", Hardware("cpu", 0)), "linux/amd64", None)

    assert named == ["resolving ./weights", "resolving vllm-0.32.0-cpu"]
    with told.sources["file"].open(found, found.files[0], 0) as stream:
        assert stream.read() == b"{}"


def wait_for(stream: io.StringIO, text: str) -> None:
    for _ in range(2000):
        if text in stream.getvalue():
            return
        time.sleep(0.001)


@pytest.mark.parametrize(
    ("stream", "said"),
    [
        (io.StringIO(), "resolving vllm-0.32.0-cpu…\n"),
        (Terminal(), "Reading …\r\x1b[Kresolving vllm-0.32.0-cpu …\r\x1b[K"),
    ],
)
def test_what_takes_long_is_said_once(
    stream: io.StringIO, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)

    waiting = Waiting(after_s=0.001, tick_s=0.001)
    with waiting.word("Reading"), waiting.named("resolving vllm-0.32.0-cpu"):
        wait_for(stream, "…\n" if not stream.isatty() else "cpu …")

    assert stream.getvalue() == said


def test_what_is_quick_is_not_mentioned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream := io.StringIO())

    waiting = Waiting(after_s=0.02, tick_s=0.001)
    with waiting.word("Reading"):
        with waiting.named("resolving vllm-0.32.0-cpu"):
            pass
        time.sleep(0.03)

    assert stream.getvalue() == ""
