"""What cosign is told, and what its words come to. The real program is in tests/integration/test_trust.py."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.clients.cosign import Authority, Cosign, Signer
from pipeline.core.errors import BackendError, Denied, Missing, MpError, Refused, Unreachable
from pipeline.core.image import Registry

REGISTRY = Registry("main", url="registry.local/acme")
IMAGE = "registry.local/acme/tiny@sha256:" + "a" * 64
KEY = (
    "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nc2VjcmV0\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n"
)


@dataclass
class Desk:
    """A program of that name on PATH, which writes down what it is told and ends as it is asked to."""

    folder: Path

    def program(self, says: str = "", code: int = 0) -> Cosign:
        script = self.folder / "cosign"
        script.write_text(
            "#!/bin/sh\n"
            f'printf "%s\\n" "$@" > {self.folder}/arguments\n'
            f"env -0 > {self.folder}/environment\n"
            f"cat >&2 <<'END'\n{says}\nEND\nexit {code}\n"
        )
        script.chmod(0o755)
        return Cosign({"PATH": f"{self.folder}:/usr/bin:/bin", "HOME": "/home/somebody"})

    @property
    def arguments(self) -> list[str]:
        return (self.folder / "arguments").read_text().splitlines()

    @property
    def environment(self) -> dict[str, str]:
        pairs = (self.folder / "environment").read_text().split("\0")
        return dict(pair.split("=", 1) for pair in pairs if pair)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_key_is_in_the_environment_and_in_no_argument(desk: Desk) -> None:
    desk.program().sign([IMAGE], Signer(KEY, "open sesame"), REGISTRY)
    assert "c2VjcmV0" not in json.dumps(desk.arguments)
    assert "open sesame" not in json.dumps(desk.arguments)
    assert desk.environment["MP_COSIGN_KEY"] == KEY
    assert desk.environment["COSIGN_PASSWORD"] == "open sesame"
    assert "--tlog-upload=false" in desk.arguments
    assert desk.arguments[-1] == IMAGE


def test_a_signature_is_logged_where_that_is_asked_for(desk: Desk) -> None:
    desk.program().sign([IMAGE], Signer(KEY, log=True), REGISTRY)
    assert "--tlog-upload=false" not in desk.arguments


def test_without_a_key_cosign_keeps_its_own_ways(desk: Desk) -> None:
    desk.program().sign([IMAGE], Signer(), REGISTRY)
    assert desk.arguments == ["sign", "--yes", "--new-bundle-format", IMAGE]
    assert desk.environment["HOME"] == "/home/somebody"


def test_a_signer_shows_no_secret() -> None:
    assert "c2VjcmV0" not in repr(Signer(KEY, "open sesame"))
    assert "sesame" not in repr(Signer(KEY, "open sesame"))


def test_a_registry_is_reached_as_it_is_declared(desk: Desk) -> None:
    registry = Registry("main", url="registry.local", insecure=True, ca="/etc/acme.pem")
    desk.program().verify(
        IMAGE, Authority(identity="a@acme.example", issuer="https://acme.example"), registry
    )
    assert "--allow-http-registry" in desk.arguments
    assert "--registry-cacert=/etc/acme.pem" in desk.arguments
    assert "--certificate-identity=a@acme.example" in desk.arguments
    assert "--certificate-oidc-issuer=https://acme.example" in desk.arguments


@pytest.mark.parametrize("log", [True, False])
def test_a_key_alone_asks_nobody_else(desk: Desk, log: bool) -> None:
    desk.program().verify(IMAGE, Authority("acme.pub", log=log), REGISTRY)
    assert ("--insecure-ignore-tlog=true" in desk.arguments) is not log
    assert any(word.startswith("--trusted-root=") for word in desk.arguments) is not log


@pytest.mark.parametrize(
    ("says", "error"),
    [
        ("error during command execution: no signatures found", Refused),
        ("error during command execution: no matching signatures: invalid signature", Refused),
        (
            "error during command execution: Get: dial tcp 10.0.0.1:443: connect: connection refused",
            Unreachable,
        ),
        ("error during command execution: dial tcp: lookup registry.local: no such host", Unreachable),
        ("error during command execution: GET: UNAUTHORIZED: authentication required", Denied),
        ("", Refused),
    ],
)
def test_what_is_said_of_a_signature(desk: Desk, says: str, error: type[MpError]) -> None:
    with pytest.raises(error) as found:
        desk.program(f"WARNING: something\n{says}", 1).verify(IMAGE, Authority("acme.pub"), REGISTRY)
    assert "error during command execution" not in found.value.message


def test_signing_that_fails_is_no_refusal_and_says_the_reason_alone(desk: Desk) -> None:
    says = f"error during command execution: signing [{IMAGE} {IMAGE}]: reading key: decryption failed"
    with pytest.raises(BackendError) as found:
        desk.program(says, 1).sign([IMAGE], Signer(KEY), REGISTRY)
    assert found.value.message == "cosign: reading key: decryption failed"
    assert "password" in (found.value.hint or "")


def test_without_the_program_nothing_is_tried() -> None:
    with pytest.raises(Missing, match="not on PATH") as missing:
        Cosign({"PATH": "/nowhere"}).verify(IMAGE, Authority("acme.pub"), REGISTRY)
    assert "install cosign" in str(missing.value.hint)
