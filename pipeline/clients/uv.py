"""uv: requirements resolved with hashes, environments made from them. Used by engine/resolve, environments and images."""

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipeline.clients.process import run
from pipeline.core.errors import BackendError, Corrupt, Exhausted, Unreachable
from pipeline.core.image import Engine, Variant

PYPI = "https://pypi.org/simple"
PYTORCH = "https://download.pytorch.org/whl/"  # + torch backend: "cpu", "cu130"
COMPILING = "compiling byte code"  # the line that begins what uv does for up to a minute without a word

_RESOLVE_TIMEOUT_S = 300
_INSTALL_TIMEOUT_S = 3600
# glibc 2.35 is what Ubuntu 22.04 and everything newer has, Debian 12 included
_PLATFORMS = {"linux/amd64": "x86_64-manylinux_2_35", "linux/arm64": "aarch64-manylinux_2_35"}
_NO_ANSWER = ("dns error", "error sending request", "client error (Connect)", "operation timed out")
_WRONG_HASH = "Hash mismatch"
_INSTALLED = re.compile(r"Installed \d+ packages? ")
_DISK_FULL = ("No space left on device", "os error 28")

OnLine = Callable[[str], None]


def resolve(variant: Variant, platform: str, on_line: OnLine) -> tuple[str, tuple[str, ...]]:
    """Pin a variant's requirements: the package index they come from and "name==version --hash=…" lines, sorted.

    PyTorch's own index is asked first where the variant names one (its CPU builds are a tenth of the size); where it
    does not answer, everything comes from PyPI, and `on_line` is told. The index is PyPI's logical address, whatever
    mirror uv is configured to use. Raises Unreachable, BackendError.
    """
    if variant.torch_backend is not None:
        try:
            return PYTORCH + variant.torch_backend, _compile(
                variant, platform, variant.torch_backend, on_line
            )
        except Unreachable:
            on_line(f"{PYTORCH}{variant.torch_backend} does not answer: torch comes from PyPI")
    return PYPI, _compile(variant, platform, None, on_line)


def create_environment(engine: Engine, folder: Path, on_line: OnLine) -> None:
    """A virtual environment at `folder` (bin/python) with exactly the locked requirements, byte-compiled.

    An environment that is there is made anew. Every wheel is checked against its hash. Raises Unreachable, Corrupt,
    Exhausted, BackendError.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _uv(
        ["venv", "--no-project", "--python", engine.python, str(folder)],
        on_line,
        _RESOLVE_TIMEOUT_S,
    )
    _install(engine, ["--python", str(folder / "bin" / "python")], on_line)


def install_into(engine: Engine, folder: Path, on_line: OnLine) -> None:
    """The locked requirements as a folder for PYTHONPATH, for the engine's platform and Python, byte-compiled.

    Raises Unreachable, Corrupt, Exhausted, BackendError.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    target = [
        "--target",
        str(folder),
        "--python",
        engine.python,
        "--python-platform",
        _platform(engine.platform),
    ]
    # wheels only: what is built here would be built for this machine, not for the image
    _install(engine, [*target, "--only-binary", ":all:"], on_line)


def _install(engine: Engine, where: Sequence[str], on_line: OnLine) -> None:
    with _folder({"requirements.txt": engine.requirements}) as lists:
        argv = ["pip", "install", *where, "--no-deps", "--require-hashes", "--compile-bytecode"]
        argv += [*_backend(_backend_of(engine.index)), "-r", str(lists / "requirements.txt")]
        _uv(argv, lambda text: _tell(text, on_line), _INSTALL_TIMEOUT_S)


def _tell(text: str, on_line: OnLine) -> None:
    """uv's lines, and the one that it leaves out: what it does after installing."""
    on_line(text)
    if _INSTALLED.match(text):
        on_line(COMPILING)


def _compile(variant: Variant, platform: str, backend: str | None, on_line: OnLine) -> tuple[str, ...]:
    with _folder({"requirements.in": variant.requirements, "overrides.txt": variant.overrides}) as lists:
        argv = ["pip", "compile", str(lists / "requirements.in"), "--override", str(lists / "overrides.txt")]
        argv += [
            "--python-version",
            variant.python,
            "--python-platform",
            _platform(platform),
            *_backend(backend),
        ]
        argv += ["--generate-hashes", "--no-annotate", "--no-header"]
        return requirement_lines(_uv(argv, on_line, _RESOLVE_TIMEOUT_S, quiet=True))


def requirement_lines(text: str) -> tuple[str, ...]:
    """One line a requirement from uv's output, where each hash is on a line of its own; sorted."""
    joined = text.replace("\\\n", " ").splitlines()
    lines = (" ".join(line.split()) for line in joined if not line.lstrip().startswith("#"))
    return tuple(sorted(line for line in lines if line))


def _platform(platform: str) -> str:
    try:
        return _PLATFORMS[platform]
    except KeyError:
        known = ", ".join(_PLATFORMS)
        raise BackendError("uv", f'platform "{platform}" is not known', f"known platforms: {known}") from None


def _backend(backend: str | None) -> list[str]:
    return [] if backend is None else ["--torch-backend", backend]


def _backend_of(index: str) -> str | None:
    return index.removeprefix(PYTORCH) if index.startswith(PYTORCH) else None


def _uv(arguments: Sequence[str], on_line: OnLine, timeout_s: float, *, quiet: bool = False) -> str:
    """Run uv outside any project, so that only the user's own uv settings (mirrors, certificates) count."""
    # imported late: the package looks at the interpreter's layout
    from uv import find_uv_bin

    argv = [find_uv_bin(), *arguments, "--quiet" if quiet else "--no-progress"]
    try:
        with tempfile.TemporaryDirectory(prefix="mp-uv-") as empty:
            return run(
                argv,
                cwd=Path(empty),
                env=_environ(),
                timeout_s=timeout_s,
                on_line=None if quiet else on_line,
                system="uv",
            )
    except BackendError as error:
        raise _named(error) from error


def _environ() -> dict[str, str]:
    """This process's environment without an active virtual environment, which uv would take for the target."""
    dropped = ("VIRTUAL_ENV", "UV_PROJECT", "UV_PYTHON", "UV_TORCH_BACKEND", "CONDA_PREFIX")
    return {key: value for key, value in os.environ.items() if key not in dropped}


def _named(error: BackendError) -> BackendError:
    message = error.message.removeprefix("uv: ")
    if any(sign in message for sign in _DISK_FULL):
        return Exhausted("uv", message, "free some disk space and run the command again")
    if _WRONG_HASH in message:
        return Corrupt(
            "uv", message, "the package index has other files than models.lock: run mp lock --upgrade"
        )
    if any(sign in message for sign in _NO_ANSWER):
        return Unreachable(
            "uv", message, "check the network and uv's index settings (UV_DEFAULT_INDEX, uv.toml)"
        )
    return error


@contextmanager
def _folder(files: dict[str, tuple[str, ...]]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mp-requirements-") as name:
        for file, lines in files.items():
            (Path(name) / file).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        yield Path(name)
