"""What a kubeconfig says of a cluster's identity, before anything is asked."""

import json
from pathlib import Path

import pytest

from pipeline.clients.kubewire import Line

ONE, OTHER = "-----BEGIN CERTIFICATE-----\nAAAA\n", "-----BEGIN CERTIFICATE-----\nBBBB\n"


def authority(folder: Path, server: str, certificate: str | None) -> str:
    file = folder / "ca.crt"
    trusted: dict[str, str] = {}
    if certificate is not None:
        file.write_text(certificate)
        trusted = {"certificate-authority": str(file)}
    config = {
        "current-context": "prod",
        "contexts": [{"name": "prod", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server, **trusted}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    kubeconfig = folder / "config"
    kubeconfig.write_text(json.dumps(config))
    return Line("prod", {"KUBECONFIG": str(kubeconfig)}).authority()


def test_another_address_of_one_server_is_the_same_authority(tmp_path: Path) -> None:
    found = {authority(tmp_path, server, ONE) for server in ("https://one:6443", "https://10.0.0.1:6443")}
    assert len({*found, authority(tmp_path, "https://one:6443", ONE + "\n")}) == 1


@pytest.mark.parametrize(
    ("server", "certificate"),
    [("https://one:6443", OTHER), ("https://one:6443/k8s/clusters/c-2", ONE), ("https://one:6443", None)],
)
def test_other_certificates_or_another_path_are_another_authority(
    tmp_path: Path, server: str, certificate: str | None
) -> None:
    assert authority(tmp_path, server, certificate) != authority(tmp_path, "https://one:6443", ONE)


def test_without_certificates_the_address_counts(tmp_path: Path) -> None:
    first, second = (authority(tmp_path, f"https://{host}", None) for host in ("one", "two"))
    assert first != second
