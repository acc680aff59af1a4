"""Models of the fake Hub, and what tests of `mp pull` and `mp cache …` say and look at."""

import json
import os
import random
from pathlib import Path

import jsonschema

from pipeline.cli.views.schema import SCHEMAS
from tests.parts.project import Project, Result

CONFIG = json.dumps({"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2}).encode()
WEIGHTS = random.Random(1).randbytes(3 << 20)
FILES = {"config.json": CONFIG, "model.safetensors": WEIGHTS, "tokenizer.json": b"{}"}
ADAPTER = {
    "adapter_config.json": b'{"r": 4}',
    "adapter_model.safetensors": random.Random(2).randbytes(1 << 20),
}


def ok(result: Result) -> Result:
    assert result.code == 0, result.text
    return result


def said(result: Result, name: str) -> dict[str, list[dict[str, object]]]:
    """JSON of a result that keeps to its schema."""
    found = result.json()
    jsonschema.validate(found, SCHEMAS[name]())
    assert isinstance(found, dict)
    return found


def path_of(user: Project, *words: str) -> Path:
    return Path(ok(user.mp("cache", "path", *words)).out.strip())


def rot(file: Path) -> None:
    """Flip a byte so that nobody sees it without reading."""
    look = file.stat()
    file.chmod(0o644)
    with file.open("r+b") as stream:
        stream.seek(1000)
        stream.write(bytes([WEIGHTS[1000] ^ 1]))
    os.utime(file, ns=(look.st_atime_ns, look.st_mtime_ns))
    file.chmod(0o444)
