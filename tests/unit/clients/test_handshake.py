"""What is said of a builder that does not do its part of TLS. The builders here answer with bytes that were chosen."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from pipeline.clients import handshake
from pipeline.clients.buildctl import RemoteBuilder
from pipeline.clients.handshake import Certificates
from pipeline.core.diagnostic import Diagnostic, Severity, Where
from tests.parts.certificates import CLIENT, Authority, authority

HOST = "127.0.0.1"
Answering = Callable[[bytes | None], int]


def alert(code: int) -> bytes:
    """A fatal alert in plain: RFC 8446, 5.1 and 6."""
    return bytes((21, 3, 3, 0, 2, 2, code))


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def answering() -> Iterator[Answering]:
    """Starts a server that hears the client's first words, says something and closes; None: it says nothing at all."""
    with ExitStack() as until_the_end:
        over = threading.Event()
        until_the_end.callback(over.set)

        def serve(listening: socket.socket, said: bytes | None) -> None:
            accepted, _ = listening.accept()
            with accepted:
                accepted.recv(65536)
                if said is None:
                    over.wait(10)
                else:
                    accepted.sendall(said)

        def start(said: bytes | None) -> int:
            listening = until_the_end.enter_context(socket.create_server((HOST, 0)))
            threading.Thread(target=serve, args=(listening, said), daemon=True).start()
            return int(listening.getsockname()[1])

        yield start


def said_of(address: str, certificates: Certificates) -> Diagnostic:
    """The one remark, at line 1 of its part's file."""
    (remark,) = RemoteBuilder(address, {}, certificates, lambda part: Where(part, 1, 1)).check("linux/amd64")
    return remark


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (alert(70), "TLS with it fails: tlsv1 alert protocol version"),
        (alert(120), "no application protocol"),
        (alert(80), "internal error"),
        (b"", "TLS with it fails: unexpected eof"),
        (alert(40), "it wants a certificate of its clients"),
        (alert(42), "it wants a certificate of its clients"),
        (alert(116), "it wants a certificate of its clients"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "it does not speak TLS"),
    ],
)
def test_a_certificate_is_asked_for_only_where_the_builder_asks(
    own: Authority, answering: Answering, said: bytes, words: str
) -> None:
    remark = said_of(f"tcp://{HOST}:{answering(said)}", Certificates(str(own.certificate.file)))

    assert words in remark.summary
    assert (remark.severity, remark.where) == (Severity.ERROR, Where("builder", 1, 1))


@pytest.mark.parametrize(
    ("said", "part", "words"),
    [
        (alert(48), "cert", "it refuses the certificate in"),
        (alert(46), "cert", "it refuses the certificate in"),
        (alert(45), "cert", "has expired"),
        (alert(70), "builder", "TLS with it fails"),
    ],
)
def test_a_certificate_is_blamed_only_where_the_builder_does(
    own: Authority, answering: Answering, said: bytes, part: str, words: str
) -> None:
    client = own.sign("client", "client.test", usage=CLIENT)
    shown = Certificates(str(own.certificate.file), str(client.file), str(client.key))

    remark = said_of(f"tcp://{HOST}:{answering(said)}", shown)

    assert words in remark.summary
    assert remark.where == Where(part, 1, 1)


def test_a_builder_that_says_nothing_is_not_fine(
    own: Authority, answering: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshake, "TIMEOUT_S", 0.3)

    remark = said_of(f"tcp://{HOST}:{answering(None)}", Certificates(str(own.certificate.file)))

    assert remark.severity is Severity.WARNING
    assert "does not answer: it says nothing for 0.3 s" in remark.summary


@pytest.mark.parametrize("name", [".builder.test", f"{'b' * 64}.test"])
def test_a_name_that_no_host_has_is_told_as_one(own: Authority, name: str) -> None:
    ca = str(own.certificate.file)

    shown = said_of("tcp://builder.test:1234", Certificates(ca, server_name=name))
    address = said_of(f"tcp://{name}:1234", Certificates(ca))

    assert f'"{name}" is no name that a host can have' in shown.summary
    assert shown.where == Where("server_name", 1, 1)
    assert f'"{name}" is no name that a host can have' in address.summary
    assert address.where == Where("builder", 1, 1)


@pytest.mark.parametrize(
    "address", ["tcp://builder.test", "tcp://builder.test:0", "tcp://[::1", "tcp://b:99999"]
)
def test_an_address_without_a_port_is_told_as_one(own: Authority, address: str) -> None:
    remark = said_of(address, Certificates(str(own.certificate.file)))
    assert f'"{address}" names no port' in remark.summary
