"""Certificates for tests, made with openssl: an authority of one's own, and what it signs."""

import subprocess
from pathlib import Path

from pipeline.core.frozen import frozen

DAYS = "2"
PAST = "-1"  # days: of a certificate that ended yesterday
CLIENT = "clientAuth"


@frozen
class Certificate:
    file: Path  # PEM
    key: Path


@frozen
class Authority:
    """A private authority: what it signs is trusted by whoever trusts `certificate.file`."""

    folder: Path
    certificate: Certificate

    def sign(self, name: str, *hosts: str, usage: str = "serverAuth", days: str = DAYS) -> Certificate:
        """A server's certificate for host names and addresses, or a client's."""
        made = Certificate(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        request, extensions = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        names = (f"IP:{host}" if host[0].isdigit() else f"DNS:{host}" for host in hosts)
        extensions.write_text(
            f"subjectAltName={','.join(names)}\nauthorityKeyIdentifier=keyid\nextendedKeyUsage={usage}\n"
        )
        _openssl(
            *("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}"),
            *("-keyout", str(made.key), "-out", str(request)),
        )
        _openssl(
            *("x509", "-req", "-in", str(request), "-out", str(made.file), "-days", days),
            *("-CA", str(self.certificate.file), "-CAkey", str(self.certificate.key), "-CAcreateserial"),
            *("-extfile", str(extensions)),
        )
        return made


def authority(folder: Path, name: str = "mp-test") -> Authority:
    folder.mkdir(parents=True, exist_ok=True)
    made = Certificate(folder / "ca.crt", folder / "ca.key")
    _openssl(
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", DAYS, "-subj", f"/CN={name}"),
        *("-keyout", str(made.key), "-out", str(made.file)),
        *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
    )
    return Authority(folder, made)


def signed(key: Path, content: bytes) -> bytes:
    """RSA with SHA-256 (RS256)."""
    argv = ["openssl", "dgst", "-sha256", "-sign", str(key)]
    return subprocess.run(argv, input=content, capture_output=True, check=True).stdout


def _openssl(*words: str) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True)
