"""A pod's port on this machine: a listener on loopback whose connections travel through the API server. Used by clients/kube."""

import contextlib
import socket
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

BLOCK_BYTES = 64 << 10


class Forward:
    """Use as a context manager; each connection is a port-forward of its own, as kubectl makes them."""

    def __init__(self, client: "ApiClient", namespace: str, pod: str, port: int) -> None:
        self._client = client
        self._pod = (namespace, pod, port)
        self._listener = socket.create_server(("127.0.0.1", 0))

    def __enter__(self) -> str:
        threading.Thread(target=self._accept, name="port-forward", daemon=True).start()
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._serve, args=(near,), name="port-forward", daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        """Pump both ways until either side ends. A pod that does not answer closes the connection: the caller sees that."""
        from kubernetes.client import ApiException, CoreV1Api
        from kubernetes.stream import portforward

        namespace, pod, port = self._pod
        with near:
            try:
                api = CoreV1Api(self._client)
                tunnel = portforward(
                    api.connect_get_namespaced_pod_portforward, pod, namespace, ports=str(port)
                )
            except (ApiException, OSError):
                return
            far = tunnel.socket(port)
            with contextlib.closing(far):
                back = threading.Thread(target=_pump, args=(far, near), daemon=True)
                back.start()
                _pump(near, far)
                back.join(timeout=60)


def _pump(source: Any, sink: Any) -> None:  # Any: the client's port has a socket's methods, not its type
    with contextlib.suppress(OSError):
        while block := source.recv(BLOCK_BYTES):
            sink.sendall(block)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
