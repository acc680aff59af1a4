"""Real signatures: keys and certificates made on the spot, folders signed by model-signing, key pairs made by cosign."""

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from model_signing import hashing, signing

from pipeline.core.frozen import frozen
from tests.parts import cosign

PASSWORD = "open sesame"


@frozen
class Key:
    """An elliptic key pair as two files."""

    private: Path
    public: Path


def key(folder: Path, name: str = "acme") -> Key:
    made = ec.generate_private_key(ec.SECP256R1())
    pair = Key(folder / f"{name}.key", folder / f"{name}.pub")
    pair.private.write_bytes(_private(made))
    pair.public.write_bytes(
        made.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return pair


def sign_folder(folder: Path, signer: Key, how: hashing.Config | None = None) -> Path:
    """Sign every file of a folder; the signature lies among them."""
    config = signing.Config().use_elliptic_key_signer(private_key=signer.private)
    return _signed(folder, config, how)


@frozen
class Authority:
    """A root, and a key with a certificate under it."""

    root: Path
    certificate: Path
    key: Path

    def sign(self, folder: Path) -> Path:
        config = signing.Config().use_certificate_signer(
            private_key=self.key, signing_certificate=self.certificate, certificate_chain=[self.root]
        )
        return _signed(folder, config, None)


def authority(folder: Path, name: str = "root") -> Authority:
    root_key, own_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name, own_name = _name(f"{name} of trust"), _name("signer")
    root = _certificate(root_name, root_key, root_name, root_key, is_root=True)
    own = _certificate(own_name, own_key, root_name, root_key, is_root=False)
    files = {
        f"{name}.crt": root.public_bytes(serialization.Encoding.PEM),
        f"{name}-signer.crt": own.public_bytes(serialization.Encoding.PEM),
        f"{name}-signer.key": _private(own_key),
    }
    for file, body in files.items():
        (folder / file).write_bytes(body)
    paths = [folder / file for file in files]
    return Authority(paths[0], paths[1], paths[2])


def cosign_key(folder: Path, name: str = "cosign") -> Key:
    """A key pair as cosign makes it, with PASSWORD."""
    prefix = str(folder / name)
    cosign.run("generate-key-pair", "--output-key-prefix", prefix, environ={"COSIGN_PASSWORD": PASSWORD})
    return Key(folder / f"{name}.key", folder / f"{name}.pub")


def _signed(folder: Path, config: signing.Config, how: hashing.Config | None) -> Path:
    signature = folder / "model.sig"
    config.set_hashing_config((how or hashing.Config()).set_ignored_paths(paths=[signature]))
    config.sign(folder, signature)
    return signature


def _private(made: ec.EllipticCurvePrivateKey) -> bytes:
    return made.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(
    subject: x509.Name,
    own: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    signer: ec.EllipticCurvePrivateKey,
    *,
    is_root: bool,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    usage = x509.KeyUsage(
        digital_signature=not is_root,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_root,
        crl_sign=is_root,
        encipher_only=False,
        decipher_only=False,
    )
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=is_root, path_length=None), critical=True)
        .add_extension(usage, critical=True)
    )
    if not is_root:
        made = made.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
    return made.sign(signer, hashes.SHA256())
