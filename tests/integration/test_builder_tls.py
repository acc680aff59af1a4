"""Builders behind TLS: certificates that models.yaml or a builder of buildx names, and what is said where they do not fit."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.clients.oci.repositories import Repositories
from pipeline.core.frozen import frozen
from pipeline.core.image import Registry
from pipeline.manifest.lock import Lock, engine_key, write_lock
from tests.parts.base_image import BaseImage
from tests.parts.buildkit import RealBuilder, published, running_buildkit
from tests.parts.certificates import CLIENT, PAST, Authority, Certificate, authority
from tests.parts.ports import free_port
from tests.parts.project import Manifest, Project, Result
from tests.parts.registry import RealRegistry
from tests.parts.tiny_image import PLATFORM, tiny_engine

pytestmark = [pytest.mark.docker, pytest.mark.registry, pytest.mark.buildkit]  # Docker makes the base image

PARTLY = 5
HOST = "127.0.0.1"
NAME = "builder.test"  # in the builder's certificate, besides its address


@frozen
class Guarded:
    """A builder that wants certificates of its clients, and some that it takes and does not take."""

    builder: RealBuilder
    own: Authority
    client: Certificate


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    own = authority(tmp_path_factory.mktemp("authority"))
    client = own.sign("client", "client.test", usage=CLIENT)
    with running_buildkit(own.sign("builder", HOST, NAME), own.certificate) as started:
        yield Guarded(started, own, client)


@frozen
class Works:
    """A project of one model whose engine needs no packages: only its Dockerfile is built."""

    project: Project
    place: str  # its registry: "127.0.0.1:5000/name"
    base: str

    def write(self, builder: str | None = None, tls: dict[str, str] | None = None) -> None:
        engine: Manifest = {"base": self.base}
        if builder:
            engine["builder"] = builder
        if tls:
            engine["builder_tls"] = tls
        self.project.write(published(self.place, engine))

    def line(self, key: str) -> str:
        """Where a key of the builder is: "models.yaml:12:5"."""
        lines = (self.project.folder / "models.yaml").read_text().splitlines()
        row, line = next((n, line) for n, line in enumerate(lines, 1) if line.lstrip().startswith(f"{key}:"))
        return f"models.yaml:{row}:{len(line) - len(line.lstrip()) + 1}"

    def tags(self) -> list[str]:
        return list(Repositories({})(Registry("main", url=self.place), "tiny").tags())

    def refused(self, summary: str, key: str, hint: str) -> None:
        """Nothing is begun: one error, at its line, with what to do."""
        result = self.project.mp("apply", "--yes")
        said = unwrapped(result.text)
        assert result.code == 1, result.text
        assert unwrapped(summary) in said, result.text
        assert unwrapped(hint) in said, result.text
        assert self.line(key) in said, result.text
        assert said.count("thebuilderat") == 1, result.text
        assert self.tags() == []
        assert not (self.project.cache / "engine-environments").exists(), "nothing is installed before"


@pytest.fixture
def works(tmp_path: Path, registry: RealRegistry, base_image: BaseImage, buildkit: RealBuilder) -> Works:
    folder = tmp_path / "project"
    (folder / "weights").mkdir(parents=True)
    (folder / "weights" / "config.json").write_text("{}")
    (folder / "weights" / "model.safetensors").write_bytes(tmp_path.name.encode())
    engine = replace(tiny_engine(), base=base_image.name, base_digest=base_image.digest)
    write_lock(folder / "models.lock", Lock({}, {engine_key(engine, PLATFORM): engine}))
    environ = {
        **buildkit.environ,
        "DOCKER_HOST": "unix:///nonexistent/docker.sock",
        "BUILDX_CONFIG": str(tmp_path / "buildx"),
        "NO_COLOR": "1",
        "COLUMNS": "300",
    }
    name = "".join(letter if letter.isalnum() else "-" for letter in tmp_path.name.lower()).strip("-")
    place = f"{registry.host}/{'-'.join(filter(None, name.split('-')))}"
    return Works(Project(folder, tmp_path / "cache", environ), place, base_image.reference)


def unwrapped(text: str) -> str:
    """Long lines are broken anywhere: what is compared has no spaces."""
    return "".join(text.split())


def files(ca: Authority, client: Certificate | None = None, **more: str) -> dict[str, str]:
    own = {"cert": str(client.file), "key": str(client.key)} if client else {}
    return {"ca": str(ca.certificate.file), **own, **more}


def create(works: Works, name: str, driver: str, endpoint: str, **options: str) -> None:
    """What `docker buildx create` leaves behind."""
    instances = Path(works.project.environ["BUILDX_CONFIG"]) / "instances"
    instances.mkdir(parents=True, exist_ok=True)
    node = {"Name": f"{name}0", "Endpoint": endpoint, "Platforms": None, "DriverOpts": options, "Flags": None}
    told = {"Name": name, "Driver": driver, "Nodes": [{**node, "Files": None}], "Dynamic": False}
    (instances / name).write_text(json.dumps(told))


def options(ca: Authority, client: Certificate) -> dict[str, str]:
    return {"cacert": str(ca.certificate.file), "cert": str(client.file), "key": str(client.key)}


def keeps_secrets(result: Result, key: Path) -> bool:
    return key.read_text().splitlines()[1] not in result.text


def test_certificates_beside_the_manifest_are_shown_to_the_builder(works: Works, guarded: Guarded) -> None:
    for name, file in {
        "ca.pem": guarded.own.certificate.file,
        "cert.pem": guarded.client.file,
        "key.pem": guarded.client.key,
    }.items():
        (works.project.folder / name).write_bytes(file.read_bytes())
    tls = {"ca": "ca.pem", "cert": "cert.pem", "key": "key.pem", "server_name": NAME}
    works.write(guarded.builder.tcp, tls)
    planned = works.project.mp("plan")

    applied = works.project.applied()

    assert any(tag.startswith("mp-") for tag in works.tags())
    assert "key.pem" not in planned.text + applied.text
    assert keeps_secrets(planned, guarded.client.key)
    assert keeps_secrets(applied, guarded.client.key)
    (works.project.folder / "key.pem").unlink()
    again = works.project.mp("plan", "--detailed-exitcode")
    assert again.code == 0, "who builds nothing needs no key"


@pytest.mark.parametrize("named", ["manifest", "environment"])
def test_a_builder_of_buildx_is_found_with_its_certificates(
    works: Works, guarded: Guarded, named: str
) -> None:
    create(works, "far", "remote", guarded.builder.tcp, **options(guarded.own, guarded.client))
    works.write("buildx://far" if named == "manifest" else None)

    works.project.applied(environ={"BUILDX_BUILDER": "far"} if named == "environment" else {})

    assert any(tag.startswith("mp-") for tag in works.tags())


def test_a_builder_that_wants_no_certificate_of_its_clients_is_believed_by_its_own(
    works: Works, guarded: Guarded
) -> None:
    with running_buildkit(guarded.own.sign("open", HOST)) as started:
        works.write(started.tcp, files(guarded.own))
        works.project.applied()

    assert any(tag.startswith("mp-") for tag in works.tags())


def test_what_is_wrong_with_a_file_is_said_at_its_line(
    works: Works, guarded: Guarded, tmp_path: Path
) -> None:
    own, client, there = guarded.own, guarded.client, guarded.builder.tcp
    other = own.sign("other", "client.test", usage=CLIENT)

    works.write(there, {**files(own, client), "key": "certs/key.pem"})
    works.refused('key.pem" is not there', "key", "put the file there")
    works.write(there, {**files(own, client), "key": str(tmp_path)})
    works.refused(
        f'key "{tmp_path}" cannot be read: is a directory', "key", "let the user who runs mp read it"
    )
    works.write(there, {**files(own, client), "key": str(other.key)})
    works.refused("is not the one of cert", "key", "made together")
    words = [
        "pkey",
        "-aes256",
        "-passout",
        "pass:open",
        "-in",
        str(client.key),
        "-out",
        str(tmp_path / "locked"),
    ]
    subprocess.run(["openssl", *words], check=True, capture_output=True)
    works.write(there, {**files(own, client), "key": str(tmp_path / "locked")})
    works.refused("is locked by a passphrase", "key", "write it without one")
    works.write(there, {**files(own, client), "key": str(client.file)})
    works.refused("holds no private key in PEM form", "key", "name a PEM file")
    works.write(there, {**files(own, client), "key": "\0"})
    works.refused("cannot be read: embedded null byte", "key", "let the user who runs mp read it")
    works.write(there, {**files(own, client), "cert": str(client.key)})
    works.refused("holds no certificate in PEM form", "cert", "name a PEM file")


def test_who_is_not_trusted_and_why_is_said_before_anything_is_built(
    works: Works, guarded: Guarded, tmp_path: Path
) -> None:
    own, client, there = guarded.own, guarded.client, guarded.builder.tcp
    stranger = authority(tmp_path / "stranger", "stranger")
    named = f"the builder at {there}:"

    works.write(there, files(stranger, client))
    works.refused(
        f"{named} its certificate is not signed by the authority in", "builder", "name the PEM file"
    )
    works.write(there, files(own, client, server_name="elsewhere.test"))
    works.refused(f'{named} its certificate is not for "elsewhere.test"', "builder", "server_name")
    works.write(there, files(own))
    works.refused(f"{named} it wants a certificate of its clients", "builder", '"cert" and "key"')
    works.write(there, files(own, stranger.sign("client", "client.test", usage=CLIENT)))
    works.refused(f"{named} it refuses the certificate in", "cert", "have it signed by the authority")
    late = own.sign("late", "client.test", usage=CLIENT, days=PAST)
    works.write(there, files(own, late))
    works.refused(f'{named} the certificate in "{late.file}" has expired', "cert", "have a new one made")


def test_a_builder_whose_certificate_has_expired_is_not_asked(works: Works, guarded: Guarded) -> None:
    with running_buildkit(guarded.own.sign("expired", HOST, days=PAST)) as started:
        works.write(started.tcp, files(guarded.own))
        works.refused("its certificate has expired", "builder", "give the builder a new one")


def test_a_builder_without_tls_is_told_apart(works: Works, guarded: Guarded, buildkit: RealBuilder) -> None:
    works.write(buildkit.tcp, files(guarded.own, guarded.client))
    works.refused("it does not speak TLS", "builder", "leave the certificates out")


def test_a_builder_with_tls_and_no_certificates_for_it_names_the_way(works: Works, guarded: Guarded) -> None:
    works.write(guarded.builder.tcp)

    result = works.project.mp("apply", "--yes")

    assert result.code == PARTLY, result.text
    assert unwrapped(f"the builder at {guarded.builder.tcp} ends the connection") in unwrapped(result.text)
    assert "builder_tls" in result.text
    assert works.tags() == []


def test_a_builder_that_does_not_answer_does_not_stop_a_plan(works: Works, guarded: Guarded) -> None:
    silent = f"tcp://{HOST}:{free_port()}"
    works.write(silent, files(guarded.own, guarded.client))

    planned = works.project.mp("plan")

    assert planned.code == 0, planned.text
    said = unwrapped(planned.text)
    assert unwrapped(f"the builder at {silent} does not answer: connection refused") in said


def test_builders_of_buildx_that_cannot_be_used_are_named(works: Works, guarded: Guarded) -> None:
    works.write("buildx://far")
    missing = works.project.mp("plan")
    create(works, "far", "kubernetes", "kubernetes:///far")
    unreachable = works.project.mp("plan")
    create(works, "far", "remote", guarded.builder.tcp, cacert="/nonexistent/ca.pem")
    lacking = works.project.mp("plan")

    assert {missing.code, unreachable.code, lacking.code} == {1}
    assert 'no builder "far" in' in missing.text
    assert "docker buildx ls" in missing.text
    assert 'its driver is "kubernetes"' in unreachable.text
    assert 'the builder at buildx://far: ca "/nonexistent/ca.pem" is not there' in " ".join(
        lacking.text.split()
    )
    assert works.line("builder") in lacking.text
