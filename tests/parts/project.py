"""A project as a user has it: a folder with models.yaml, a cache, and `mp` run in it as a program of its own."""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pipeline.core.frozen import frozen

MP = Path(sys.executable).with_name("mp")
TIMEOUT_S = 1800

# Any: models.yaml as the user writes it, before mp has checked it
Manifest = dict[str, Any]


@frozen
class Result:
    """What one run of `mp` came to."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return f"exit {self.code}\n{self.out}\n{self.err}"

    def json(self) -> Any:  # Any: each command has a schema of its own
        return json.loads(self.out)


def flat(text: str) -> str:
    """Without the line breaks that long texts get."""
    return " ".join(text.split())


@dataclass
class Project:
    """One folder. `write` puts a models.yaml into it; `changed` does so for as long as a block runs."""

    folder: Path
    cache: Path
    environ: Mapping[str, str] = field(default_factory=dict)
    manifest: Manifest = field(default_factory=dict)

    def write(self, manifest: Manifest) -> None:
        self.manifest = manifest
        (self.folder / "models.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False))

    @contextmanager
    def changed(self, manifest: Manifest) -> Iterator[None]:
        """Another models.yaml; afterwards the one that was there. What was applied meanwhile stays applied."""
        before = self.manifest
        self.write(manifest)
        try:
            yield
        finally:
            self.write(before)

    def mp(self, *words: str, environ: Mapping[str, str] | None = None) -> Result:
        done = subprocess.run(
            [str(MP), *words],
            cwd=self.folder,
            env={**os.environ, "MP_CACHE": str(self.cache), **self.environ, **(environ or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def applied(self, *words: str, environ: Mapping[str, str] | None = None) -> Result:
        """`mp apply --yes`, which must succeed."""
        result = self.mp("apply", "--yes", *words, environ=environ)
        assert result.code == 0, result.text
        return result

    def url(self, model: str, target: str) -> str:
        """Where a deployment answers, as `mp list` says."""
        rows = self.mp("list", "--json").json()["models"]
        (found,) = (row["url"] for row in rows if (row["model"], row["target"]) == (model, target))
        assert isinstance(found, str), f"{model} at {target} has no URL"
        return found


def chat(url: str, model: str, prompt: str, api_key: str | None = None) -> str:
    """The whole greedy answer to one message. A refusal raises urllib's HTTPError."""
    question = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": 64,
        "temperature": 0,
    }
    headers = {"Content-Type": "application/json"}
    if api_key is not None:
        headers["Authorization"] = f"Bearer {api_key}"
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(question).encode(), headers, method="POST"
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        said = json.load(answer)["choices"][0]["message"]["content"]
    assert isinstance(said, str)
    return said
