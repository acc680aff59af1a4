"""The same weights as an image in the same registry, by the tools that people have. Used by benchmarks/push."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from benchmarks.measure import Sample, environ, measure
from pipeline.core.frozen import frozen

TEMPLATE = "chat_template.jinja"
DOCKERD_PID = Path("/var/run/docker.pid")
TICKS = os.sysconf("SC_CLK_TCK")


@frozen
class Weights:
    """Folders with the same file names; they share files by hard link."""

    first: Path
    changed: Path  # one shard of them is another
    count: int


class Pusher(Protocol):
    """One way to push. `weights` is the folder as it is now, `text` the template laid over it, "" for none."""

    @property
    def name(self) -> str: ...

    def push(self, weights: Path, text: str) -> Sample: ...

    def clean(self) -> None:
        """Leave nothing of it on this machine."""
        ...


@dataclass
class Docker:
    """`docker build` and `docker push`, with one of the two builders."""

    program: str
    buildkit: bool
    folder: Path
    host: str

    @property
    def name(self) -> str:
        return f"docker build + push, {'BuildKit' if self.buildkit else 'classic builder'}"

    @property
    def _image(self) -> str:
        return f"{self.host}/bench/docker-{int(self.buildkit)}:latest"

    def push(self, weights: Path, text: str) -> Sample:
        context = self.folder / "context"
        _linked(weights, context / "models")
        lines = ["FROM scratch", "COPY models /models"]
        if text:
            (context / TEMPLATE).write_text(text)
            lines.append(f"COPY {TEMPLATE} /models/{TEMPLATE}")
        (context / "Dockerfile").write_text("\n".join(lines) + "\n")
        before_s = _daemon_cpu_s()
        built = self._run("build", "--quiet", "--tag", self._image, str(context))
        pushed = self._run("push", "--quiet", self._image)
        shutil.rmtree(context)
        return built + pushed + Sample(_daemon_cpu_s() - before_s, 0, 0, 0)

    def clean(self) -> None:
        self._run("image", "rm", "--force", self._image, accept=(0, 1))
        if self.buildkit:
            self._run("builder", "prune", "--all", "--force")

    def _run(self, *words: str, accept: tuple[int, ...] = (0,)) -> Sample:
        env = environ(DOCKER_BUILDKIT=str(int(self.buildkit)))
        return measure([self.program, *words], self.folder, env, accept)


@dataclass
class CraneAppend:
    """One tar a file, and `crane append`."""

    program: str
    folder: Path
    host: str
    name: str = "tar + crane append"

    def push(self, weights: Path, text: str) -> Sample:
        tars = self.folder / "tars"
        tars.mkdir()
        total = Sample(0, 0, 0, 0)
        if text:
            (self.folder / TEMPLATE).write_text(text)
            total += self._tar(self.folder, TEMPLATE, tars)
        for file in sorted(weights.iterdir()):
            total += self._tar(weights, file.name, tars)
        words = ["append", "--insecure", "--new_tag", f"{self.host}/bench/crane:latest"]
        words += [f"--new_layer={tar}" for tar in sorted(tars.iterdir())]
        total += measure([self.program, *words], self.folder, environ())
        shutil.rmtree(tars)
        return total

    def clean(self) -> None:
        shutil.rmtree(self.folder / "tars", ignore_errors=True)

    def _tar(self, folder: Path, name: str, tars: Path) -> Sample:
        fixed = ("--owner=0", "--group=0", "--mtime=@0", "--transform=s,^,models/,")
        argv = ["tar", "--create", f"--file={tars / name}.tar", *fixed, "-C", str(folder), name]
        return measure(argv, self.folder, environ())


@dataclass
class FromLayout:
    """A tool that copies an OCI image layout. What it takes to make one is counted, unless the last push left it."""

    name: str
    argv: Callable[[str], list[str]]  # the path of the layout → the command
    layouts: "Layouts"
    folder: Path

    def push(self, weights: Path, text: str) -> Sample:
        layout, made = self.layouts.of(weights, text)
        return made + measure(self.argv(layout), self.folder, environ())

    def clean(self) -> None:
        self.layouts.drop()


class Layouts(Protocol):
    """Makes the layouts, one at a time: each is as large as the weights."""

    def of(self, weights: Path, text: str) -> tuple[str, Sample]:
        """A layout's path, and what it took to make it now."""
        ...

    def drop(self) -> None: ...


@dataclass
class FromFolder:
    """A tool that makes an artifact of the files in a folder, by one command after the other."""

    name: str
    commands: Callable[[list[str]], list[list[str]]]  # names of files → commands
    folder: Path
    extra: Mapping[str, str] = field(default_factory=dict)  # files that the tool wants beside the weights

    def push(self, weights: Path, text: str) -> Sample:
        work = self.folder / "artifact"
        _linked(weights, work)
        for name, body in {**self.extra, **({TEMPLATE: text} if text else {})}.items():
            (work / name).write_text(body)
        names = sorted(file.name for file in work.iterdir() if file.name not in self.extra)
        total = Sample(0, 0, 0, 0)
        for argv in self.commands(names):
            total += measure(argv, work, environ(KITOPS_HOME=str(self.folder / "kitops")))
        shutil.rmtree(work)
        return total

    def clean(self) -> None:
        shutil.rmtree(self.folder / "artifact", ignore_errors=True)
        shutil.rmtree(self.folder / "kitops", ignore_errors=True)


def dockers(folder: Path, host: str) -> Iterator[Pusher]:
    """Both builders, each with the first `docker` on PATH that can (a newer one needs a plugin for BuildKit)."""
    for buildkit in (False, True):
        for program in _programs("docker"):
            contender = Docker(program, buildkit, folder, host)
            empty = folder / "probe"
            empty.mkdir(exist_ok=True)
            (empty / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
            env = environ(DOCKER_BUILDKIT=str(int(buildkit)))
            argv = [program, "build", "--quiet", "--tag", "bench-probe", str(empty)]
            done = subprocess.run(argv, env=env, capture_output=True, check=False)
            if done.returncode == 0:
                subprocess.run([program, "image", "rm", "bench-probe"], capture_output=True, check=False)
                yield contender
                break


def pushers(folder: Path, host: str, layouts: Layouts) -> Iterator[Pusher]:
    """Every other tool that is on PATH."""
    if crane := shutil.which("crane"):
        yield CraneAppend(crane, folder, host)
        target = f"{host}/bench/crane-layout:latest"
        yield FromLayout(
            "crane push of a layout", lambda path: [crane, "push", path, target], layouts, folder
        )
    if skopeo := shutil.which("skopeo"):
        words = ["copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false"]
        there = f"docker://{host}/bench/skopeo:latest"
        yield FromLayout(
            "skopeo copy of a layout",
            lambda path: [skopeo, *words, f"oci:{path}", there],
            layouts,
            folder,
        )
    if oras := shutil.which("oras"):
        push = [oras, "push", "--plain-http", f"{host}/bench/oras:latest"]
        yield FromFolder("oras push", lambda names: [[*push, *names]], folder)
    if kit := shutil.which("kit"):
        image = f"{host}/bench/kit:latest"
        yield FromFolder(
            "kit pack + push",
            lambda names: [[kit, "pack", ".", "--tag", image], [kit, "push", "--plain-http", image]],
            folder,
            {"Kitfile": "manifestVersion: 1.0.0\npackage: {name: bench}\nmodel: {name: bench, path: .}\n"},
        )


def _programs(name: str) -> list[str]:
    found = (shutil.which(name, path=folder) for folder in os.environ["PATH"].split(os.pathsep))
    return list(dict.fromkeys(filter(None, found)))


def _linked(source: Path, target: Path) -> None:
    """A folder of hard links."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for file in source.iterdir():
        os.link(file, target / file.name)


def _daemon_cpu_s() -> float:
    """User and system time of the Docker daemon so far; its containers are not in it."""
    try:
        pid = DOCKERD_PID.read_text().strip()
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS
