"""What the pushes work with: weights, a registry, and mp's projects with one cache. Used by benchmarks/push."""

import json
import os
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import MP, Sample, environ, measure
from benchmarks.pushers import Weights
from tests.parts.registry import RealRegistry

MIB = 2**20

MANIFEST = """\
version: 1
project: bench
defaults: {{template: transformers, hardware: cpu}}
hardware:
  cpu: {{gpus: 0}}
registries:
  main: {{{registry}}}
targets:
  main: {{kind: registry, registry: main, publish: [weights]}}
models:
  {name}:
    source: {weights}
    targets: {{main: {{}}}}
"""


@dataclass
class Yard:
    """Where everything is: weights, registry, and mp's projects with one cache."""

    folder: Path
    registry: RealRegistry
    weights: Weights

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    def project(self, name: str, weights: Path, registry: str = "", model: str = "big") -> "Project":
        where = registry or f'url: "{self.registry.host}/bench"'
        folder = self.folder / name
        folder.mkdir()
        (folder / "models.yaml").write_text(MANIFEST.format(registry=where, weights=weights, name=model))
        project = Project(folder, self.cache, model)
        project.run("lock")
        project.run("pull", model)
        return project

    def empty(self, reads: Path | None = None) -> None:
        """A registry that has nothing; what was written before is on the disk, not in the way.

        `reads`: what the next contender sends. All begin with it in memory, whatever the one before pushed out of there.
        """
        shutil.rmtree(self.registry.storage / "docker", ignore_errors=True)
        os.sync()
        for path in reads.rglob("*") if reads else ():
            if path.is_file():
                with path.open("rb") as file:
                    while file.read(MIB):
                        pass


@dataclass
class Project:
    """One models.yaml."""

    folder: Path
    cache: Path
    model: str

    def run(self, *words: str) -> Sample:
        return measure([*MP, *words], self.folder, environ(MP_CACHE=str(self.cache)))

    def apply(self) -> Sample:
        return self.run("apply", "--yes")

    def forget(self, *, layers: bool) -> None:
        """As if nothing was ever applied here; with `layers`, nor any layer made."""
        shutil.rmtree(self.folder / ".mp", ignore_errors=True)
        if layers:
            (self.cache / "layers").unlink(missing_ok=True)

    def chat(self, text: str) -> None:
        """Lay a chat template over the model's own, or none."""
        (self.folder / "chat.jinja").write_text(text)
        manifest, line = self.folder / "models.yaml", "    chat: {template: chat.jinja}\n"
        manifest.write_text(manifest.read_text().replace(line, "") + (line if text else ""))


def made_weights(folder: Path, shard_bytes: int) -> Weights:
    """Four shards that nothing compresses, and a fifth one that takes the place of the last."""
    first, changed = folder / "weights", folder / "changed"
    for each in (first, changed):
        each.mkdir()
        (each / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    for number in range(1, 5):
        name = f"model-{number:05}-of-00004.safetensors"
        _write_shard(first / name, shard_bytes)
        if number < 4:
            os.link(first / name, changed / name)
        else:
            _write_shard(changed / name, shard_bytes)
    return Weights(first, changed, 4)


def _write_shard(path: Path, size_bytes: int) -> None:
    count = size_bytes - 128
    text = json.dumps({"w": {"dtype": "U8", "shape": [count], "data_offsets": [0, count]}}).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 120) + text.ljust(120))
        while left := size_bytes - file.tell():
            file.write(os.urandom(min(MIB, left)))


class Layouts:
    """OCI layouts for those who copy them, made by mp: nobody here writes one in less time."""

    def __init__(self, yard: Yard) -> None:
        self._yard = yard
        self._made: dict[tuple[Path, str], Path] = {}
        self._projects: dict[Path, Project] = {}

    def of(self, weights: Path, text: str) -> tuple[str, Sample]:
        took = Sample(0, 0, 0, 0)
        if (weights, text) not in self._made:
            self.drop()
            project = self._project(weights)
            project.chat(text)
            took = project.apply()
            layout = project.folder / "images" / "big.weights"
            _only_image(layout)
            self._made[weights, text] = layout
        return str(self._made[weights, text]), took

    def drop(self) -> None:
        for layout in self._made.values():
            shutil.rmtree(layout)
        self._made.clear()

    def _project(self, weights: Path) -> Project:
        if weights not in self._projects:
            name = f"layout-of-{weights.name}"
            self._projects[weights] = self._yard.project(name, weights, "layout: images")
        project = self._projects[weights]
        project.forget(layers=True)
        return project


def _only_image(layout: Path) -> None:
    """Leave the image alone in the index: what is said of it beside it is not what is compared."""
    index = json.loads((layout / "index.json").read_bytes())
    name = "org.opencontainers.image.ref.name"
    index["manifests"] = [one for one in index["manifests"] if one["annotations"][name].startswith("mp-")]
    (layout / "index.json").write_text(json.dumps(index))
