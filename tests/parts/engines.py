"""The real CPU engine environments (torch, transformers, vLLM): made once by the product's own driver, then kept.

A test that runs `mp` may share them: link `<its cache>/environments` to ENVIRONMENTS, and pin `locked_engine(…)`.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.clients import uv
from pipeline.core.change import Action, Change
from pipeline.core.digest import fingerprint
from pipeline.core.image import Engine, Variant
from pipeline.core.model import Hardware
from pipeline.manifest.lock import Lock, engine_key
from pipeline.resources.engine import environment
from pipeline.templates import TEMPLATES
from tests.parts.base_image import BaseImage
from tests.parts.capability import CACHE

CHECKPOINT = Path(__file__).resolve().parents[2] / "examples" / "quickstart" / "checkpoint"
PROMPT = "What is mp?"  # what the checkpoint answers to it, by every engine and in every place
ANSWER = "mp brings the models in models.yaml to life: it plans first, then applies, then proves each one."

CPU = Hardware(name="cpu", gpus=0)
PLATFORM = "linux/amd64"
ENVIRONMENTS = CACHE / "environments"


def engine_python(template: str) -> Path:
    """bin/python of the environment; MP_TEST_TRANSFORMERS_PYTHON and MP_TEST_VLLM_PYTHON name one that is there."""
    if given := os.environ.get(f"MP_TEST_{template.upper()}_PYTHON"):
        return Path(given)
    engine = locked_engine(template)
    driver = environment.EnvironmentDriver(CACHE)
    wanted = environment.resource(engine)
    change = Change(wanted.address, wanted.kind, Action.CREATE, wanted, None, None)
    driver.apply(change, {}, lambda event: None)  # finds a whole one, waits for another run that makes it
    return environment.environment_path(CACHE, engine) / "bin" / "python"


def locked_engine(template: str) -> Engine:
    """The engine as a lock holds it, without a base image; its requirements are resolved once, then remembered."""
    variant = TEMPLATES[template].variant(None, CPU)
    memory = CACHE / f"{template}-{fingerprint(dataclasses.asdict(variant))[:12]}.json"
    with _alone(memory.with_suffix(".flock")):
        if not memory.exists():
            memory.write_text(json.dumps(uv.resolve(variant, PLATFORM, print)))
    index, requirements = json.loads(memory.read_text())
    return _engine(variant, index, requirements)


def locked_engines(base: BaseImage) -> Lock:
    """Both engines upon a base: equal locks make equal images, so a registry that has them is built into no second time."""
    engines = [
        dataclasses.replace(locked_engine(template), base=base.name, base_digest=base.digest)
        for template in ("transformers", "vllm")
    ]
    return Lock({}, {engine_key(engine, PLATFORM): engine for engine in engines})


def _engine(variant: Variant, index: str, requirements: list[str]) -> Engine:
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
    """Two runs at once ask once."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
