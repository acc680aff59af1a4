"""What is known of registries by their hosts, what a manifest says instead, and where base images are read."""

import datetime

import pytest
import yaml

from pipeline.clients.oci.limits import DATA, Limits, limits, limits_of
from pipeline.clients.oci.pools import proxy_of
from pipeline.clients.oci.repositories import Repositories, parse_image
from pipeline.core.image import Registry
from pipeline.core.size import size_bytes

KEYS = {
    "name",
    "hosts",
    "max_layer",
    "window_s",
    "max_part",
    "patch",
    "mounts",
    "referrers",
    "sources",
    "seen",
}


@pytest.mark.parametrize(
    ("host", "registry", "max_layer"),
    [
        ("ghcr.io", "GitHub Container Registry", "10GB"),
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", "Amazon ECR", "52000MiB"),
        ("public.ecr.aws", "Amazon ECR Public", "10000MiB"),
        ("acme.azurecr.io", "Azure Container Registry", "200GiB"),
        ("quay.io", "Quay.io", "20GiB"),
    ],
)
def test_a_public_registry_is_known_by_its_host(host: str, registry: str, max_layer: str) -> None:
    assert (limits(host).registry, limits(host).max_layer_bytes) == (registry, size_bytes(max_layer))


@pytest.mark.parametrize(
    "host", ["harbor.acme.com", "127.0.0.1:5000", "docker.io", "ghcr.io.acme.com", "xpkg.dev"]
)
def test_of_any_other_host_nothing_is_presumed(host: str) -> None:
    assert limits(host) == Limits()


def test_artifact_registry_gets_whole_layers() -> None:
    assert not limits("europe-docker.pkg.dev").patch


def test_a_manifest_says_it_better() -> None:
    named = Registry("main", url="ghcr.io/acme", max_layer_bytes=5, max_request_bytes=3)

    assert (limits_of(named).max_layer_bytes, limits_of(named).max_request_bytes) == (5, 3)
    assert limits_of(named).window_s == 600
    assert limits_of(Registry("here", layout="/x")) == Limits()


def test_every_fact_has_a_source_and_a_day() -> None:
    for entry in yaml.safe_load(DATA.read_bytes()):
        assert entry["sources"] and all(source.startswith("https://") for source in entry["sources"])
        assert isinstance(entry["seen"], datetime.date)
        assert entry.keys() <= KEYS


def test_a_base_is_read_from_the_mirrors_of_its_host_in_order_and_then_from_itself() -> None:
    hub = Registry("hub", url="docker.io", mirrors=("mirror.local/hub", "other.local:5000"))
    repositories = Repositories({}, [hub, Registry("main", url="ghcr.io/acme")])

    found = repositories.places(parse_image("python:3.11-slim"))

    assert [(one.name, one.tag) for one in found] == [
        ("mirror.local/hub/library/python", "3.11-slim"),
        ("other.local:5000/library/python", "3.11-slim"),
        ("docker.io/library/python", "3.11-slim"),
    ]
    assert [one.name for one in repositories.places(parse_image("ghcr.io/acme/base"))] == [
        "ghcr.io/acme/base"
    ]


@pytest.mark.parametrize(
    ("url", "environ", "proxy"),
    [
        ("https://ghcr.io/v2/", {"HTTPS_PROXY": "http://p:3128"}, "http://p:3128"),
        ("https://ghcr.io/v2/", {"https_proxy": "p:3128"}, "http://p:3128"),
        ("https://ghcr.io/v2/", {"HTTP_PROXY": "http://p:3128"}, None),
        ("https://ghcr.io/v2/", {"ALL_PROXY": "http://p:3128"}, "http://p:3128"),
        ("http://main.local:5000/v2/", {"HTTP_PROXY": "http://p:3128"}, "http://p:3128"),
        ("http://127.0.0.1:5000/v2/", {"HTTP_PROXY": "http://p:3128"}, None),
        ("https://a.ghcr.io/v2/", {"HTTPS_PROXY": "p", "NO_PROXY": "ghcr.io"}, None),
        ("https://notghcr.io/v2/", {"HTTPS_PROXY": "http://p", "NO_PROXY": "ghcr.io"}, "http://p"),
        ("https://10.1.2.3:5000/v2/", {"HTTPS_PROXY": "p", "NO_PROXY": "x,10.0.0.0/8"}, None),
        ("https://10.1.2.3/v2/", {"HTTPS_PROXY": "http://p", "NO_PROXY": "10.1.2.4"}, "http://p"),
        ("https://ghcr.io:444/v2/", {"HTTPS_PROXY": "http://p", "NO_PROXY": "ghcr.io:443"}, "http://p"),
        ("https://ghcr.io/v2/", {"HTTPS_PROXY": "", "NO_PROXY": ""}, None),
    ],
)
def test_the_environment_names_the_proxy(url: str, environ: dict[str, str], proxy: str | None) -> None:
    assert proxy_of(url, environ) == proxy
