"""Bytes of files that the Hub keeps in Xet and does not serve over plain HTTP: those of more than 50 GB. Used by clients/hub."""

import contextlib
import io
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, BinaryIO, cast

from pipeline.core.errors import BackendError, Denied, Missing, Unreachable
from pipeline.core.frozen import frozen

if TYPE_CHECKING:
    from hf_xet import (  # type: ignore[import-untyped]  # it has no stubs
        XetDownloadStream,
        XetDownloadStreamGroup,
    )

LARGEST_HTTP_BYTES = 50_000_000_000  # huggingface_hub 2.4.0, constants.MAX_HTTP_DOWNLOAD_SIZE
# hf_xet 1.8.0 reads ahead without a limit of its own (534 MiB resident for a file of 400 MiB): it is asked for so much.
WINDOW_BYTES = 128 << 20


@frozen
class XetFile:
    """A file by its name in Xet, and where the right to read it is given out."""

    xet_hash: str  # 64 hex; of Xet's own tree of chunks, no sha256
    size_bytes: int
    token_url: str  # on the Hub
    headers: Mapping[str, str]  # for token_url alone: they hold our token


@frozen
class Xet:
    """Which files are read so, and how long a silence may be."""

    above_bytes: int = LARGEST_HTTP_BYTES
    stall_timeout_s: float = 60.0

    @contextlib.contextmanager
    def open(self, file: XetFile, start: int, system: str) -> Iterator[BinaryIO]:
        """The bytes from an offset. Raises Denied, Missing, Unreachable; a stream that ends early is Unreachable."""
        with _mapped(system):
            group = _group(file)
        try:
            yield cast(BinaryIO, _Body(file, start, group, system, self.stall_timeout_s))
        finally:
            group.abort()


class _Body(io.BufferedIOBase):
    """One window of the file after the other; hf_xet ends a failed stream without a word."""

    def __init__(
        self, file: XetFile, start: int, group: "XetDownloadStreamGroup", system: str, stall_timeout_s: float
    ) -> None:
        self._file = file
        self._group = group
        self._system = system
        self._stall_timeout_s = stall_timeout_s
        self._have_bytes = start
        self._stream: XetDownloadStream | None = None
        self._window_end = start
        self._chunk = memoryview(b"")

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            return b"".join(iter(lambda: self.read(WINDOW_BYTES), b""))
        if not self._chunk and self._have_bytes < self._file.size_bytes:
            self._chunk = memoryview(self._next())
        taken, self._chunk = bytes(self._chunk[:size]), self._chunk[size:]
        self._have_bytes += len(taken)
        return taken

    def _next(self) -> bytes:
        """The next bytes of the file; a silence ends the whole group, the only thing that can be done from outside."""
        with _mapped(self._system):
            if self._stream is None or self._have_bytes == self._window_end:
                self._stream = self._window()
            silence = threading.Timer(self._stall_timeout_s, self._group.abort)
            silence.daemon = True
            silence.start()
            try:
                chunk = next(iter(self._stream), b"")
            finally:
                silence.cancel()
        if not chunk:
            raise Unreachable(self._system, "a stream of Xet stalled or ended early", "run it again")
        return bytes(chunk)

    def _window(self) -> "XetDownloadStream":
        from hf_xet import XetFileInfo

        self._window_end = min(self._have_bytes + WINDOW_BYTES, self._file.size_bytes)
        info = XetFileInfo(self._file.xet_hash, self._file.size_bytes)
        return self._group.download_stream(info, start=self._have_bytes, end=self._window_end)


def _group(file: XetFile) -> "XetDownloadStreamGroup":
    from hf_xet import XetSession

    public = {name: value for name, value in file.headers.items() if name.lower() != "authorization"}
    return XetSession().new_download_stream_group(
        token_refresh_url=file.token_url, token_refresh_headers=dict(file.headers), custom_headers=public
    )


@contextlib.contextmanager
def _mapped(system: str) -> Iterator[None]:
    """Foreign errors end here. Their texts are not shown: they may hold signed URLs."""
    try:
        from hf_xet import XetAuthenticationError, XetObjectNotFoundError
    except ImportError as problem:
        hint = "install hf_xet; there are wheels for x86-64 and arm64"
        raise BackendError(system, "files of more than 50 GB come through hf_xet", hint) from problem
    try:
        yield
    except XetAuthenticationError as problem:
        raise Denied(
            system, "Xet does not let us read", "check the token, and that it may read this"
        ) from problem
    except XetObjectNotFoundError as problem:
        raise Missing(system, "Xet does not have this file") from problem
    except (RuntimeError, ValueError, OSError) as problem:
        raise Unreachable(
            system, f"Xet gave no bytes: {type(problem).__name__}", "check the network, then run it again"
        ) from problem
