"""The real CPU engine environments (torch, transformers, vLLM): made once with the product's own uv client, then kept."""

import contextlib
import dataclasses
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.clients import uv
from pipeline.core.digest import fingerprint
from pipeline.core.image import Engine, Variant
from pipeline.core.model import Hardware
from pipeline.templates import TEMPLATES
from tests.parts.capability import CACHE

CPU = Hardware(name="cpu", gpus=0)
PLATFORM = "linux/amd64"


def engine_python(template: str) -> Path:
    """bin/python of the environment; MP_TEST_TRANSFORMERS_PYTHON and MP_TEST_VLLM_PYTHON name one that is there."""
    if given := os.environ.get(f"MP_TEST_{template.upper()}_PYTHON"):
        return Path(given)
    variant = TEMPLATES[template].variant(None, CPU)
    folder = CACHE / f"{template}-{fingerprint(dataclasses.asdict(variant))[:12]}"
    pointer = folder.with_suffix(".python")  # written last: the environment is whole
    with _alone(folder.with_suffix(".flock")):
        if not pointer.exists():
            uv.create_environment(_locked(variant, folder.with_suffix(".json")), folder, print)
            pointer.write_text(f"{folder / 'bin' / 'python'}\n")
    return Path(pointer.read_text().strip())


def locked_engine(template: str) -> Engine:
    """The engine as a lock would hold it, without a base image."""
    variant = TEMPLATES[template].variant(None, CPU)
    memory = CACHE / f"{template}-{fingerprint(dataclasses.asdict(variant))[:12]}.json"
    with _alone(memory.with_suffix(".flock")):
        return _locked(variant, memory)


def _locked(variant: Variant, memory: Path) -> Engine:
    """The variant with its requirements resolved; asked of the package index once, then remembered."""
    if memory.exists():
        index, requirements = json.loads(memory.read_text())
    else:
        index, requirements = uv.resolve(variant, PLATFORM, print)
        memory.write_text(json.dumps([index, requirements]))
    return Engine(
        template=variant.template,
        version=variant.version,
        variant=variant.name,
        platform=PLATFORM,
        python=variant.python,
        base=variant.base,
        base_digest=None,
        index=index,
        requirements=tuple(requirements),
    )


@contextlib.contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Two runs at once make one environment."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
