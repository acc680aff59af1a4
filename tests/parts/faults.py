"""Runs of `mp` that meet a fault: started, killed or interrupted, on full disks; and what must be true of images then."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.clients.oci.repositories import Repositories
from pipeline.clients.oci.repository import Repository, contents
from pipeline.core.digest import Digest
from pipeline.core.image import Registry
from tests.parts.capability import in_ci
from tests.parts.project import MP, Manifest, Project, Result

PATIENCE_S = 60
MIB = 2**20


def manifest_of(sources: Mapping[str, str], registries: Mapping[str, Mapping[str, str]]) -> Manifest:
    """Every model's weights, published to every registry; a source of the Hub is followed at "main"."""
    return {
        "version": 1,
        "project": "faults",
        "defaults": {"template": "transformers", "hardware": "cpu"},
        "hardware": {"cpu": {"gpus": 0}},
        "registries": {name: dict(where) for name, where in registries.items()},
        "targets": {
            name: {"kind": "registry", "registry": name, "publish": ["weights"]} for name in registries
        },
        "models": {
            name: {
                "source": source,
                **({"version": "main"} if source.startswith("hf://") else {}),
                "targets": {registry: {} for registry in registries},
            }
            for name, source in sources.items()
        },
    }


def project_of(
    folder: Path,
    sources: Mapping[str, str],
    registries: Mapping[str, Mapping[str, str]],
    cache: Path | None = None,
    **environ: str,
) -> Project:
    """A project in a folder of its own."""
    (folder / "project").mkdir()
    environ = {"NO_COLOR": "1", "COLUMNS": "200", "HF_HOME": str(folder / "hf"), **environ}
    project = Project(folder / "project", cache or folder / "cache", environ)
    project.write(manifest_of(sources, registries))
    return project


def weights(seed: str, size_bytes: int) -> bytes:
    """Incompressible bytes, quickly: a MiB is drawn, the rest repeats it."""
    return (hashlib.shake_256(seed.encode()).digest(min(MIB, size_bytes)) * (size_bytes // MIB + 1))[
        :size_bytes
    ]


def write_model(project: Project, name: str, **files: bytes) -> str:
    """A model's folder beside models.yaml; "config__json" is config.json. Returns its source."""
    (project.folder / name).mkdir(exist_ok=True)
    for file, content in files.items():
        (project.folder / name / file.replace("__", ".")).write_bytes(content)
    return f"./{name}"


@dataclass
class Started:
    """`mp` while it runs, in a process group of its own, as a shell gives it one."""

    process: subprocess.Popen[bytes]
    out: Path
    err: Path

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        os.killpg(self.process.pid, signal.SIGINT)

    def wait_until_it_says(self, text: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while text not in self.err.read_text():
            assert self.process.poll() is None, self.result().text
            assert time.monotonic() < deadline, f"never said {text!r}: {self.err.read_text()}"
            time.sleep(0.01)

    def result(self) -> Result:
        code = self.process.wait(PATIENCE_S)
        return Result(code, self.out.read_text(), self.err.read_text())


@contextlib.contextmanager
def started(project: Project, *words: str, logs: Path | None = None) -> Iterator[Started]:
    """`mp` with these words; whatever is left of it at the end is killed. `logs`: where what it says is kept."""
    folder = logs or project.folder
    out, err = folder / f".{words[0]}.out", folder / f".{words[0]}.err"
    with out.open("wb") as out_file, err.open("wb") as err_file:
        process = subprocess.Popen(
            [str(MP), *words],
            cwd=project.folder,
            env={**os.environ, "MP_CACHE": str(project.cache), **project.environ},
            stdin=subprocess.DEVNULL,
            stdout=out_file,
            stderr=err_file,
            start_new_session=True,
        )
    run = Started(process, out, err)
    try:
        yield run
    finally:
        run.kill()


@contextlib.contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[Path]:
    """A file system of its own, as small as asked."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        why = f"this machine may not mount a tmpfs: {mounted.stderr.decode(errors='replace').strip()}"
        if in_ci():
            pytest.fail(f"{why} (in CI nothing may be missing)", pytrace=False)
        pytest.skip(why)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def flip_a_byte(file: Path, *, quietly: bool) -> None:
    """Damage in place; quietly is what a failing disk does: no time stamp tells of it."""
    before = file.stat()
    file.chmod(0o644)
    with file.open("r+b") as stream:
        stream.seek(before.st_size // 2)
        byte = stream.read(1)
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte[0] ^ 1]))
    file.chmod(before.st_mode)
    if quietly:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def hashed_as_named(folder: Path) -> int:
    """How many blobs there are below a folder: each one's content hashes to its name, or this fails."""
    count = 0
    for file in folder.rglob("*"):
        if file.is_file() and len(file.name) == 64:
            assert hashlib.sha256(file.read_bytes()).hexdigest() == file.name, f"{file} is damaged"
            count += 1
    return count


def whole_images(registry: Registry) -> dict[str, dict[str, Digest]]:
    """Repository → tag → digest of everything a registry holds; a tag whose image is not whole fails."""
    found: dict[str, dict[str, Digest]] = {}
    for name in _repositories(registry):
        repository = Repositories({})(registry, name)
        found[name] = {tag: _whole(repository, tag) for tag in repository.tags()}
    return {name: tags for name, tags in found.items() if tags}


def _repositories(registry: Registry) -> list[str]:
    if registry.layout is not None:
        folder = Path(registry.layout)
        return sorted(each.name for each in folder.iterdir()) if folder.is_dir() else []
    host, _, prefix = str(registry.url).partition("/")
    with urllib.request.urlopen(f"http://{host}/v2/_catalog?n=1000", timeout=10) as answer:
        names: list[str] = json.load(answer)["repositories"]
    return [name.removeprefix(f"{prefix}/") for name in names if name.startswith(f"{prefix}/")]


def _whole(repository: Repository, tag: str) -> Digest:
    image = repository.manifest(tag)
    assert image is not None, f"{repository.location}:{tag} names nothing"
    config, layers = contents(image)
    for blob in (config, *(layer for layer, _ in layers)):
        with repository.open_blob(blob) as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
        assert f"sha256:{found}" == blob, f"{repository.location}:{tag}: {blob} is damaged"
    return image.digest


def layout(project: Project, name: str = "registry") -> Registry:
    return Registry("here", layout=str(project.folder / name))


def nothing_is_left_to_do(project: Project) -> None:
    planned = project.mp("plan", "--detailed-exitcode")
    assert planned.code == 0, planned.text
    assert project.mp("drift").code == 0


def one_image_each(registry: Registry, models: Sequence[str]) -> None:
    """Each repository has our tag, beside the version's where there is one, and both name one whole image."""
    found = whole_images(registry)
    assert sorted(found) == [f"{model}.weights" for model in sorted(models)]
    for tags in found.values():
        assert len([tag for tag in tags if tag.startswith("mp-")]) == 1
        assert {tag for tag in tags if not tag.startswith("mp-")} <= {"main"}
        assert len(set(tags.values())) == 1
