"""The same work for both sides: N tiny models published as weights images to three layouts, and as many terraform_data."""

import hashlib
import json
import struct
from pathlib import Path

from benchmarks.measure import MP, TERRAFORM, Sample, environ, measure

HEAD = """\
version: 1
project: bench
defaults: {template: transformers, hardware: cpu}
hardware:
  cpu: {gpus: 0, cpu: 1, memory: 1Gi}
registries:
  a: {layout: registries/a}
  b: {layout: registries/b}
  c: {layout: registries/c}
targets:
  a: {kind: registry, registry: a, publish: [weights]}
  b: {kind: registry, registry: b, publish: [weights]}
  c: {kind: registry, registry: c, publish: [weights]}
models:
"""


def checkpoint(folder: Path, number: int) -> None:
    """A valid safetensors file of 1 KiB whose bytes no other model has."""
    folder.mkdir(parents=True)
    header = json.dumps({"weight": {"dtype": "F32", "shape": [224], "data_offsets": [0, 896]}}).encode()
    header = header.ljust(120)
    seed = hashlib.sha256(str(number).encode()).digest()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + seed * 28)


class MpWorld:
    """A folder with models.yaml, its sources, and a cache and registries of its own."""

    def __init__(self, folder: Path, models: int) -> None:
        self.folder = folder
        self.environ = environ(MP_CACHE=str(folder / "cache"))
        text = [HEAD]
        for number in range(models):
            name = f"model-{number:04}"
            checkpoint(folder / "weights" / name, number)
            text.append(
                f"  {name}:\n    source: ./weights/{name}\n    targets: {{a: {{}}, b: {{}}, c: {{}}}}\n"
            )
        (folder / "models.yaml").write_text("".join(text))

    def run(self, *arguments: str, accept: tuple[int, ...] = (0,)) -> Sample:
        return measure([*MP, *arguments], self.folder, self.environ, accept)

    def lock(self) -> Sample:
        return self.run("lock")

    def apply(self) -> Sample:
        return self.run("apply", "--yes")

    def plan(self) -> Sample:
        """A no-op plan; anything else is a defect and ends the benchmark."""
        return self.run("plan", "--detailed-exitcode")


class TerraformWorld:
    """As many flat terraform_data, four to a model, chained as weights → image → push → deploy."""

    def __init__(self, folder: Path, resources: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        (folder / "empty.tfrc").write_text("")
        self.environ = environ(
            CHECKPOINT_DISABLE="1", TF_CLI_CONFIG_FILE=str(folder / "empty.tfrc"), TF_IN_AUTOMATION="1"
        )
        (folder / "main.tf").write_text("".join(_model(number) for number in range(resources // 4)))
        self.run("init", "-backend=false")

    def run(self, *arguments: str, accept: tuple[int, ...] = (0,)) -> Sample:
        assert TERRAFORM is not None
        return measure([TERRAFORM, arguments[0], *arguments[1:]], self.folder, self.environ, accept)

    def apply(self) -> Sample:
        return self.run("apply", "-auto-approve", "-input=false", "-no-color")

    def plan(self) -> Sample:
        return self.run("plan", "-refresh=false", "-detailed-exitcode", "-input=false", "-no-color")


def _model(number: int) -> str:
    pin = hashlib.sha256(str(number).encode()).hexdigest()
    blocks = []
    before = "null"
    for step in ("weights", "image", "push", "deploy"):
        blocks.append(
            f'resource "terraform_data" "{step}_{number:04}" {{\n  input = {{\n'
            f'    name = "model-{number:04}"\n    pin = "{pin}"\n    needs = {before}\n'
            f'    labels = {{ project = "bench", step = "{step}" }}\n    files = ["config.json", "model.safetensors"]\n'
            f"  }}\n}}\n"
        )
        before = f"terraform_data.{step}_{number:04}.id"
    return "".join(blocks)
