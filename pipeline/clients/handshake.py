"""TLS with a builder: certificate files are looked at, and the builder is greeted as buildctl will do it. Used by buildctl.

buildctl says "broken pipe" or "EOF" where a builder refuses a certificate; asked this way, the reason is known.
"""

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

from pipeline.core.frozen import frozen

TIMEOUT_S = 5.0  # as long as buildctl waits for a connection: buildkit v0.32.2, cmd/buildctl/main.go
# X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH: OpenSSL 3, x509_vfy.h
_NAMES = (62, 64)
_NOT_YET_VALID, _EXPIRED = 9, 10  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
_PLAIN = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")
# What a builder answers to a client without a certificate, and to one that it refuses: alerts of RFC 8446, 6.2, by the
# names of OpenSSL 3 (sslerr.h). Others are not about certificates of clients.
_NONE_SHOWN = ("CERTIFICATE_REQUIRED", "BAD_CERTIFICATE", "HANDSHAKE_FAILURE")
_NOT_TAKEN = (
    *_NONE_SHOWN,
    "CERTIFICATE_",
    "UNSUPPORTED_CERTIFICATE",
    "UNKNOWN_CA",
    "ACCESS_DENIED",
    "DECRYPT_ERROR",
)


@frozen
class Certificates:
    """PEM files by their absolute paths; what is in them is never kept."""

    ca: str
    cert: str | None = None
    key: str | None = None
    server_name: str | None = None  # where the builder's certificate names another host than its address


@frozen
class Fault:
    """Why no build can begin, and what to do."""

    part: str  # "ca", "cert", "key", "server_name": what it is about; "" when it is the builder
    summary: str
    hint: str


def file_faults(certificates: Certificates) -> tuple[Fault, ...]:
    """What is wrong with the files, as far as this machine knows. Reads them; nobody is asked."""
    parts = {"ca": certificates.ca, "cert": certificates.cert, "key": certificates.key}
    given = {part: path for part, path in parts.items() if path}
    return tuple(_unreadable(given)) or tuple(_unusable(certificates))


def refusal(host: str, port: int, certificates: Certificates) -> Fault | None:
    """Why the builder and this machine do not trust each other. Raises OSError when nobody answers."""
    context, name = _context(certificates), certificates.server_name or host
    if not (_is_host(host) and _is_host(name)):
        part = "server_name" if certificates.server_name and _is_host(host) else ""
        wrong = name if part else host
        return Fault(
            part, f'"{wrong}" is no name that a host can have', 'write one such as "builder.example.com"'
        )
    with socket.create_connection((host, port), TIMEOUT_S) as plain:
        try:
            secure = context.wrap_socket(plain, server_hostname=name)
        except ssl.SSLCertVerificationError as problem:
            return _untrusted(problem.verify_code, certificates, host)
        except ssl.SSLError as problem:
            return _refused(problem.reason or str(problem), certificates)
        except TimeoutError:
            raise TimeoutError(f"it says nothing for {TIMEOUT_S:g} s") from None
        with secure:
            return _second_thoughts(secure, certificates)


def _second_thoughts(secure: ssl.SSLSocket, certificates: Certificates) -> Fault | None:
    """TLS 1.3: a server looks at the client's certificate when the handshake is over for the client."""
    try:
        secure.recv(1)
    except ssl.SSLError as problem:
        return _refused(problem.reason or str(problem), certificates)
    except TimeoutError:  # a server that waits for the first word has taken the certificate
        return None
    return None


def _is_host(name: str) -> bool:
    """Whether this machine can ask for it: labels of 1 to 63 letters (RFC 1035, 2.3.4), after IDNA."""
    try:
        return bool(name.encode("idna")) and "\0" not in name
    except UnicodeError:
        return False


def _unreadable(given: dict[str, str]) -> Iterator[Fault]:
    for part, path in given.items():
        try:
            with Path(path).open("rb") as file:
                file.read(1)
        except FileNotFoundError:
            yield Fault(part, f'{part} "{path}" is not there', "put the file there, or name the one that is")
        except (OSError, ValueError) as problem:  # ValueError: a NUL, which no path has
            why = str(getattr(problem, "strerror", None) or problem).lower()
            yield Fault(
                part,
                f'{part} "{path}" cannot be read: {why}',
                "let the user who runs mp read it, and no other",
            )


def _unusable(certificates: Certificates) -> Iterator[Fault]:
    for part, path in (("ca", certificates.ca), ("cert", certificates.cert)):
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path or certificates.ca)
        except ssl.SSLError:
            yield Fault(part, f'{part} "{path}" holds no certificate in PEM form', "name a PEM file")
            return
    try:
        _context(certificates)
    except _PassphraseNeeded:
        hint = "buildctl asks for none: write it without one (openssl pkey), for this user alone to read"
        yield Fault("key", f'key "{certificates.key}" is locked by a passphrase', hint)
    except ssl.SSLError as problem:
        if problem.reason == "KEY_VALUES_MISMATCH":
            summary = f'key "{certificates.key}" is not the one of cert "{certificates.cert}"'
            yield Fault("key", summary, "name the two files that were made together")
        else:
            yield Fault(
                "key", f'key "{certificates.key}" holds no private key in PEM form', "name a PEM file"
            )


class _PassphraseNeeded(Exception):
    """A key is encrypted."""


def _context(certificates: Certificates) -> ssl.SSLContext:
    """Trusts what buildctl would: the named authorities alone, names of the certificate's list alone, HTTP/2."""

    def passphrase() -> str:
        raise _PassphraseNeeded

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.hostname_checks_common_name = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.set_alpn_protocols(["h2"])
    context.load_verify_locations(certificates.ca)
    if certificates.cert:
        context.load_cert_chain(certificates.cert, certificates.key, passphrase)
    return context


def _untrusted(code: int, certificates: Certificates, host: str) -> Fault:
    """What this machine has against the builder's certificate."""
    if code == _EXPIRED:
        return Fault("", "its certificate has expired", "give the builder a new one, and start it again")
    if code == _NOT_YET_VALID:
        return Fault("", "its certificate is not valid yet", "compare the clocks of both machines")
    if code in _NAMES:
        name = certificates.server_name or host
        hint = 'set "server_name" (of a buildx builder: servername) to a name in it'
        return Fault("", f'its certificate is not for "{name}"', hint)
    summary = f'its certificate is not signed by the authority in "{certificates.ca}"'
    return Fault("", summary, "name the PEM file of the authority that signed it")


def _refused(reason: str, certificates: Certificates) -> Fault:
    """What the builder has against this machine, by the alert that it sends: RFC 8446, 6.2."""
    if reason in _PLAIN:
        hint = "leave the certificates out, or start it with --tlscert and --tlskey"
        return Fault("", "it does not speak TLS", hint)
    word = reason.lower().replace("_", " ")
    if not any(f"ALERT_{alert}" in reason for alert in (_NOT_TAKEN if certificates.cert else _NONE_SHOWN)):
        hint = "see what its log says; it has to speak TLS 1.2 or 1.3, and HTTP/2"
        return Fault("", f"TLS with it fails: {word}", hint)
    if not certificates.cert:
        hint = (
            'name "cert" and "key", signed by the authority that the builder was started with (--tlscacert)'
        )
        return Fault("", "it wants a certificate of its clients, and none is named", hint)
    if "EXPIRED" in reason:
        return Fault("cert", f'the certificate in "{certificates.cert}" has expired', "have a new one made")
    hint = "have it signed by the authority that the builder was started with (--tlscacert), for clientAuth"
    return Fault("cert", f'it refuses the certificate in "{certificates.cert}" ({word})', hint)
