"""uv, the real one, against a small package index on loopback."""

import base64
import hashlib
import io
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from pipeline.clients import uv
from pipeline.clients.process import run
from pipeline.core.errors import BackendError, Corrupt, Unreachable
from pipeline.core.frozen import frozen
from pipeline.core.image import Engine, Variant

PLATFORM = "linux/amd64"


def wheel(name: str, version: str, requires: tuple[str, ...] = ()) -> bytes:
    """A pure wheel with one module that knows its version."""
    folder = f"{name}-{version}.dist-info"
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"]
    metadata += [f"Requires-Dist: {requirement}\n" for requirement in requires]
    files = {
        f"{name}.py": f"VERSION = {version!r}\n",
        f"{folder}/METADATA": "".join(metadata),
        f"{folder}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},{_record_hash(text)},{len(text)}\n" for path, text in files.items())
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, text in {**files, f"{folder}/RECORD": f"{record}{folder}/RECORD,,\n"}.items():
            archive.writestr(zipfile.ZipInfo(path), text)
    return buffer.getvalue()


def _record_hash(text: str) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


@frozen
class Index:
    """A package index that serves what it was given."""

    url: str
    wheels: Mapping[str, bytes]

    def hash_of(self, file: str) -> str:
        return hashlib.sha256(self.wheels[file]).hexdigest()


@pytest.fixture(scope="module")
def index() -> Iterator[Index]:
    wheels = {
        "apple-1.0-py3-none-any.whl": wheel("apple", "1.0", ("pear>=1",)),
        "apple-2.0-py3-none-any.whl": wheel("apple", "2.0", ("pear>=1",)),
        "pear-1.5-py3-none-any.whl": wheel("pear", "1.5"),
        "torch-1.0-py3-none-any.whl": wheel("torch", "1.0"),
    }

    class Pages(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self.wfile.write(self._answer())

        def _answer(self) -> bytes:
            parts = self.path.strip("/").split("/")
            body = wheels.get(parts[-1]) if parts[0] == "files" else self._page(parts[-1])
            self.send_response(200 if body else 404)
            self.send_header("Content-Length", str(len(body or b"")))
            self.send_header("Content-Type", "text/html" if parts[0] == "simple" else "application/zip")
            self.end_headers()
            return body or b""

        def _page(self, project: str) -> bytes:
            links = [
                f'<a href="/files/{file}#sha256={hashlib.sha256(content).hexdigest()}">{file}</a>'
                for file, content in wheels.items()
                if file.startswith(f"{project}-")
            ]
            return "<br>".join(links).encode()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    Thread(target=server.serve_forever, daemon=True).start()
    yield Index(f"http://127.0.0.1:{server.server_port}/simple", wheels)
    server.shutdown()
    server.server_close()


@pytest.fixture
def with_index(index: Index, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Index:
    """uv's own settings, as a user with a mirror has them; PyTorch's index does not answer."""
    monkeypatch.setenv("UV_DEFAULT_INDEX", index.url)
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return index


def variant(*requirements: str, overrides: tuple[str, ...] = (), torch_backend: str | None = None) -> Variant:
    return Variant(
        "test", "1", "cpu", "3.11", "base", requirements, overrides=overrides, torch_backend=torch_backend
    )


def engine(*requirements: str) -> Engine:
    return Engine("test", "1", "cpu", PLATFORM, "3.11", "base", None, uv.PYPI, requirements)


def locked(index: Index, *names: str) -> tuple[str, ...]:
    return tuple(
        f"{name.replace('-', '==')} --hash=sha256:{index.hash_of(f'{name}-py3-none-any.whl')}"
        for name in names
    )


def test_requirement_lines_are_joined_stripped_of_remarks_and_sorted() -> None:
    text = "# made by uv\npear==1 \\\n    --hash=sha256:b \\\n    --hash=sha256:c\n    # via apple\napple==2 \\\n    --hash=sha256:a\n"
    assert uv.requirement_lines(text) == (
        "apple==2 --hash=sha256:a",
        "pear==1 --hash=sha256:b --hash=sha256:c",
    )


def test_resolve_pins_everything_with_hashes_under_the_logical_index(with_index: Index) -> None:
    index, requirements = uv.resolve(variant("apple"), PLATFORM, print)
    assert index == "https://pypi.org/simple"
    assert requirements == locked(with_index, "apple-2.0", "pear-1.5")


def test_overrides_win_and_drop(with_index: Index) -> None:
    overrides = ("apple==1.0", 'pear ; sys_platform == "never"')
    _, requirements = uv.resolve(variant("apple==2.0", overrides=overrides), PLATFORM, print)
    assert requirements == locked(with_index, "apple-1.0")


def test_torch_comes_from_pypi_and_says_so_where_its_own_index_does_not_answer(with_index: Index) -> None:
    lines: list[str] = []
    index, requirements = uv.resolve(variant("torch", torch_backend="cpu"), PLATFORM, lines.append)
    assert index == "https://pypi.org/simple"
    assert requirements == locked(with_index, "torch-1.0")
    assert "download.pytorch.org/whl/cpu does not answer" in lines[-1]


def test_what_cannot_be_resolved_is_said_in_uvs_words(with_index: Index) -> None:
    with pytest.raises(BackendError, match=r"apple==3"):
        uv.resolve(variant("apple==3"), PLATFORM, print)


def test_unknown_platform_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BackendError) as caught:
        uv.resolve(variant("apple"), "windows/amd64", print)
    assert caught.value.hint == "known platforms: linux/amd64, linux/arm64"


def test_an_index_that_does_not_answer_is_unreachable(
    with_index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    with pytest.raises(Unreachable) as caught:
        uv.resolve(variant("apple"), PLATFORM, print)
    assert "UV_DEFAULT_INDEX" in (caught.value.hint or "")


def test_environment_has_exactly_the_locked_requirements_compiled(with_index: Index, tmp_path: Path) -> None:
    folder = tmp_path / "environment"
    lines: list[str] = []
    uv.create_environment(engine(*locked(with_index, "apple-1.0", "pear-1.5")), folder, lines.append)
    python = str(folder / "bin" / "python")
    said = run(
        [python, "-c", "import apple, pear; print(apple.VERSION, pear.VERSION)"], timeout_s=20, system="test"
    )
    assert said == "1.0 1.5\n"
    assert list(folder.glob("lib/python3.11/site-packages/__pycache__/apple.*.pyc"))
    assert any("apple" in line for line in lines)
    compiling = lines.index(uv.COMPILING)
    assert lines[compiling - 1].startswith("Installed 2 packages")
    assert lines[compiling + 1].startswith("Bytecode compiled")


def test_environment_is_made_anew_over_a_broken_one(with_index: Index, tmp_path: Path) -> None:
    folder = tmp_path / "environment"
    (folder / "lib").mkdir(parents=True)
    (folder / "lib" / "rubbish").write_text("")
    uv.create_environment(engine(*locked(with_index, "pear-1.5")), folder, print)
    assert (folder / "bin" / "python").exists()
    assert not (folder / "lib" / "rubbish").exists()


def test_a_package_with_another_hash_is_corrupt(with_index: Index, tmp_path: Path) -> None:
    wrong = locked(with_index, "pear-1.5")[0][:-4] + "0000"
    with pytest.raises(Corrupt, match="pear"):
        uv.create_environment(engine(wrong), tmp_path / "environment", print)


def test_folder_for_an_image_is_compiled_and_holds_no_python(with_index: Index, tmp_path: Path) -> None:
    folder = tmp_path / "app"
    uv.install_into(engine(*locked(with_index, "apple-1.0", "pear-1.5")), folder, print)
    assert (folder / "pear.py").is_file()
    assert list(folder.glob("__pycache__/apple.cpython-311.pyc"))
    assert not (folder / "bin" / "python").exists()


def test_folder_for_an_image_of_another_platform(with_index: Index, tmp_path: Path) -> None:
    folder = tmp_path / "app"
    uv.install_into(replace(engine(*locked(with_index, "pear-1.5")), platform="linux/arm64"), folder, print)
    assert (folder / "pear.py").is_file()
