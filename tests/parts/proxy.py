"""A TCP proxy in front of a real server: it counts what clients send through it, and holds it back when asked to."""

import contextlib
import socket
import threading
from collections.abc import Iterator


class CountingProxy:
    """Forwards both ways; `sent_bytes` is what went to the server, headers included.

    A connection that sent `hold_after_bytes` sends nothing more until `release`; `held` says that one came so far.
    """

    def __init__(self, host: str) -> None:
        name, _, port = host.rpartition(":")
        self._target = (name, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._guard = threading.Lock()
        self.sent_bytes = 0
        self.hold_after_bytes: int | None = None
        self.held = threading.Event()
        self._released = threading.Event()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            try:
                server = socket.create_connection(self._target)
            except OSError:  # nobody is there: what a client sees is a connection that ends
                client.close()
                continue
            for source, sink in ((client, server), (server, client)):
                threading.Thread(
                    target=self._pump, args=(source, sink, source is client), daemon=True
                ).start()

    def release(self) -> None:
        """Let everything through again."""
        self.hold_after_bytes = None
        self._released.set()

    def close(self) -> None:
        self.release()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _pump(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        with contextlib.suppress(OSError):
            passed_bytes = 0
            while block := source.recv(2**18):
                if up:
                    self._hold(passed_bytes)
                sink.sendall(block)
                passed_bytes += len(block)
                if up:
                    with self._guard:
                        self.sent_bytes += len(block)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _hold(self, passed_bytes: int) -> None:
        if self.hold_after_bytes is not None and passed_bytes >= self.hold_after_bytes:
            self.held.set()
            self._released.wait()


class TunnelProxy(CountingProxy):
    """What HTTPS_PROXY names: CONNECT to any name leads to one server. `tunnels`: what was asked for, with its login."""

    def __init__(self, host: str) -> None:
        super().__init__(host)
        self.tunnels: list[tuple[str, str | None]] = []

    def serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += client.recv(1)
            first, *rest = head.decode().splitlines()
            login = next(
                (line.partition(": ")[2] for line in rest if line.lower().startswith("proxy-auth")), None
            )
            self.tunnels.append((first.split()[1], login))
            server = socket.create_connection(self._target)
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            for source, sink in ((client, server), (server, client)):
                threading.Thread(
                    target=self._pump, args=(source, sink, source is client), daemon=True
                ).start()


@contextlib.contextmanager
def tunnelling(host: str) -> Iterator[TunnelProxy]:
    proxy = TunnelProxy(host)
    threading.Thread(target=proxy.serve, daemon=True).start()
    try:
        yield proxy
    finally:
        proxy.close()


@contextlib.contextmanager
def counting(host: str) -> Iterator[CountingProxy]:
    proxy = CountingProxy(host)
    threading.Thread(target=proxy.serve, daemon=True).start()
    try:
        yield proxy
    finally:
        proxy.close()
