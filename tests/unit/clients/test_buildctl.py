"""Building through buildctl: what the program is told and given, what comes back, what is left behind. The program here writes down what it got."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from pipeline.clients.buildctl import RemoteBuilder, unusable
from pipeline.clients.buildkit import Instructions, context_tar
from pipeline.core.diagnostic import Severity
from pipeline.core.errors import BackendError, Denied, Missing, Unreachable

PROGRAM = """\
#!/usr/bin/env python3
import json, os, pathlib, sys
told = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[1:] if word.startswith("--local=dockerfile"))
context = pathlib.Path(told["local"].partition("=")[2])
seen = {"argv": sys.argv[1:], "files": sorted(str(p.relative_to(context)) for p in context.rglob("*")),
        "dockerfile": (context / "Dockerfile").read_text()}
pathlib.Path(os.environ["SEEN"]).write_text(json.dumps(seen))
print("#1 [1/2] FROM base", file=sys.stderr)
if failure := os.environ.get("FAILS"):
    sys.exit(failure)
output = next(word for word in sys.argv if word.startswith("--output="))
pathlib.Path(output.partition("dest=")[2]).write_bytes(b"the image" * 200_000)
"""
WANTED = Instructions(
    "mp-build/vllm.engine:mp-0123456789ab", "linux/arm64", {"BASE": "b@sha256:1"}, {"a": "c"}
)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """A PATH with our program first, and a folder of its own for what is temporary."""
    program = tmp_path / "bin" / "buildctl"
    program.parent.mkdir()
    program.write_text(PROGRAM)
    program.chmod(0o755)
    (tmp_path / "temporary").mkdir()
    return {"PATH": f"{program.parent}:{os.environ['PATH']}", "SEEN": str(tmp_path / "seen.json")}


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environ: Mapping[str, str]) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("PATH", environ["PATH"])
    return tmp_path / "temporary"


def built(
    environ: Mapping[str, str],
    folder: Path,
    lines: list[str] | None = None,
    address: str = "tcp://builder:1234",
) -> RemoteBuilder:
    dockerfile = folder / "source"
    dockerfile.write_text("ARG BASE\nFROM ${BASE}\n")
    builder = RemoteBuilder(address, environ)
    files = [("Dockerfile", dockerfile), ("mp/serve.py", dockerfile), ("app/", folder)]
    builder.build(WANTED, lambda: context_tar(files), (lines if lines is not None else []).append)
    return builder


def test_the_builder_gets_the_context_and_every_instruction(
    environ: dict[str, str], tmp_path: Path, temporary: Path
) -> None:
    lines: list[str] = []
    builder = built(environ, tmp_path, lines)

    seen = json.loads(Path(environ["SEEN"]).read_text())
    assert seen["files"] == ["Dockerfile", "app", "mp", "mp/serve.py"]
    assert seen["dockerfile"].startswith("ARG BASE")
    expected = {
        "--addr=tcp://builder:1234",
        "--frontend=dockerfile.v0",
        "--opt=platform=linux/arm64",
        "--opt=force-network-mode=none",
        "--opt=build-arg:BASE=b@sha256:1",
        "--opt=label:a=c",
    }
    assert expected < set(seen["argv"])
    assert lines == ["#1 [1/2] FROM base"]
    assert b"".join(builder.export(WANTED.name)) == b"the image" * 200_000
    builder.remove(WANTED.name)
    builder.remove(WANTED.name)
    assert not list(temporary.iterdir())


def test_a_builder_of_buildx_gets_its_certificates_by_their_paths(
    environ: dict[str, str], tmp_path: Path, temporary: Path
) -> None:
    instances = tmp_path / "buildx" / "instances"
    instances.mkdir(parents=True)
    options = {"cacert": "/c/ca.pem", "cert": "/c/cert.pem", "key": "/c/key.pem", "servername": "b.test"}
    node = {"Name": "far0", "Endpoint": "tcp://b:1", "DriverOpts": options}
    (instances / "far").write_text(json.dumps({"Name": "far", "Driver": "remote", "Nodes": [node]}))

    built({**environ, "BUILDX_CONFIG": str(tmp_path / "buildx")}, tmp_path, address="buildx://far")

    told = json.loads(Path(environ["SEEN"]).read_text())["argv"][:5]
    assert told == [
        "--addr=tcp://b:1",
        "--tlscacert=/c/ca.pem",
        "--tlscert=/c/cert.pem",
        "--tlskey=/c/key.pem",
        "--tlsservername=b.test",
    ]


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        ("error: dial tcp: connection refused", Unreachable, "the builder at tcp://builder:1234"),
        (
            'listing workers for Build: Unavailable: desc = "error reading server preface: EOF"',
            Denied,
            "ends the connection",
        ),
        ("process /bin/sh did not complete: exit code 1", BackendError, "exit code 1"),
    ],
)
def test_a_build_that_fails_says_why_and_leaves_nothing(
    said: str, kind: type[BackendError], words: str, environ: dict[str, str], tmp_path: Path, temporary: Path
) -> None:
    with pytest.raises(kind, match=words):
        built({**environ, "FAILS": said}, tmp_path)
    assert not list(temporary.iterdir())


def test_without_the_program_the_way_out_is_named(
    environ: dict[str, str], tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(Missing) as refused:
        built({**environ, "PATH": str(tmp_path / "nothing")}, tmp_path)
    assert "unset BUILDKIT_HOST" in str(refused.value.hint)


@pytest.mark.parametrize(
    ("driver", "options", "path", "why"),
    [
        ("remote", {}, True, None),
        ("remote", {}, False, "buildctl is not on PATH"),
        ("remote", {"cacert": "/nonexistent/ca.pem"}, True, 'ca "/nonexistent/ca.pem" is not there'),
        ("kubernetes", {}, True, 'its driver is "kubernetes"'),
        (None, {}, True, 'no builder "far"'),
    ],
)
def test_why_the_builder_of_the_environment_cannot_be_used(
    driver: str | None, options: Mapping[str, str], path: bool, why: str | None, environ: dict[str, str]
) -> None:
    home = Path(environ["SEEN"]).parent
    instances = home / "buildx" / "instances"
    instances.mkdir(parents=True)
    if driver:
        node = {"Name": "far0", "Endpoint": "tcp://b:1", "DriverOpts": options}
        (instances / "far").write_text(json.dumps({"Name": "far", "Driver": driver, "Nodes": [node]}))
    named = {**environ, "BUILDX_CONFIG": str(home / "buildx"), **({} if path else {"PATH": str(home)})}

    said = unusable("far", "linux/amd64", named)

    if why is None:
        assert said is None
    else:
        assert said is not None and why in said.summary
        assert said.severity is Severity.WARNING
