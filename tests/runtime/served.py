"""The real engines started as a local target starts them: `python runtime/<template>/serve.py launch.json`."""

import contextlib
import json
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.core.frozen import frozen
from pipeline.core.image import Engine
from pipeline.core.model import Artifact, Hardware, Model, Secret
from pipeline.templates import TEMPLATES
from pipeline.templates.files import runtime_root
from pipeline.templates.launch import document
from tests.parts.ports import free_port
from tests.parts.processes import running

CHECKPOINT = Path(__file__).parents[2] / "examples" / "quickstart" / "checkpoint"
CPU = Hardware("cpu", 0, cpus=2)
START_S = 300


@frozen
class Served:
    """A server that answers, and the process behind it."""

    endpoint: str
    process: subprocess.Popen[bytes]
    log: Path
    api_key: str | None = None

    def ask(
        self, path: str, body: object = None, *, key: str | None = None, timeout_s: float = 60
    ) -> tuple[int, Any]:  # Any: JSON
        """Status and JSON of a GET, or of a POST when there is a body."""
        status, text = self.text(path, body, key=key, timeout_s=timeout_s)
        return status, json.loads(text)

    def text(
        self, path: str, body: object = None, *, key: str | None = None, timeout_s: float = 60
    ) -> tuple[int, str]:
        try:
            with self.open(path, body, key=key, timeout_s=timeout_s) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as problem:
            return problem.code, problem.read().decode()

    def open(self, path: str, body: object = None, *, key: str | None = None, timeout_s: float = 60) -> Any:
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.endpoint + path, content, {"Content-Type": "application/json"})
        if given := key or self.api_key:
            request.add_header("Authorization", f"Bearer {given}")
        return urllib.request.urlopen(request, timeout=timeout_s)

    def events(self, path: str, body: Mapping[str, Any]) -> list[Any]:
        """The data of a stream, which must end with [DONE]."""
        _, text = self.text(path, {**body, "stream": True})
        lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
        assert lines[-1] == "[DONE]"
        return [json.loads(line) for line in lines[:-1]]

    def chat(self, question: str, **more: object) -> str:
        """Greedy answer to one question."""
        body = {"messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 48}
        status, answer = self.ask("/v1/chat/completions", {**body, **more})
        assert status == 200, answer
        return str(answer["choices"][0]["message"]["content"])

    def complete(self, prompt: str, **more: object) -> str:
        body = {"prompt": prompt, "temperature": 0, "max_tokens": 32}
        status, answer = self.ask("/v1/completions", {**body, **more})
        assert status == 200, answer
        return str(answer["choices"][0]["text"])


@contextlib.contextmanager
def served(
    template: str,
    python: Path,
    folder: Path,
    *,
    api_key: str | None = None,
    max_model_len: int | None = None,
    serve: Path | None = None,
    faces: tuple[str, ...] = (),
) -> Iterator[Served]:
    """The quickstart's checkpoint, served by a template as the product launches it; `serve` is another serve.py."""
    chosen = TEMPLATES[template]
    variant = chosen.variant(None, CPU)
    engine = Engine(template, variant.version, "cpu", "linux/amd64", "3.11", "", None, "", ())
    model = Model(
        "tiny",
        Artifact(f"file://{CHECKPOINT}", "", "", ()),
        CPU,
        template,
        engine,
        max_model_len=max_model_len,
        api_key=Secret("key", "KEY") if api_key else None,
        faces=faces,
    )
    launch = chosen.launch(model, variant)
    port = free_port()
    secrets = {name: str(folder / name) for name in launch.secrets}
    for file in secrets.values():
        Path(file).write_text(api_key or "")
    launch_json = folder / "launch.json"
    launch_json.write_text(
        json.dumps(document(launch, model=str(CHECKPOINT), host="127.0.0.1", port=port, secrets=secrets))
    )
    log = folder / "log"
    argv = [str(python), str(serve or runtime_root() / template / "serve.py"), str(launch_json)]
    endpoint = f"http://127.0.0.1:{port}"
    kept = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTHONPATH")}
    with running(argv, log, f"{endpoint}/health", kept, START_S) as process:
        yield Served(endpoint, process, log, api_key)
