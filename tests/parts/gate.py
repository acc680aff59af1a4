"""A way to a real server that can be shut and opened again, as a network that breaks does. TLS passes through as it is."""

import contextlib
import socket
import threading
from collections.abc import Iterator


class Gate:
    """Open when made. Shut: connections that were there are broken, new ones are refused."""

    def __init__(self, host: str) -> None:
        name, _, port = host.rpartition(":")
        self._target = (name, int(port))
        self._guard = threading.Lock()
        self._ends: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port = int(self._listener.getsockname()[1])
        self._listen()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._port}"

    def open(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self._listen()

    def shut(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._guard:
            ends, self._ends = self._ends, []
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _listen(self) -> None:
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:  # shut
                return
            far = socket.create_connection(self._target)
            with self._guard:
                self._ends += (near, far)
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=_pump, args=(source, sink), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while block := source.recv(2**16):
            sink.sendall(block)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def gate(host: str) -> Iterator[Gate]:
    made = Gate(host)
    try:
        yield made
    finally:
        made.shut()
