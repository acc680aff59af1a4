"""Who may speak to a registry, and how it is reached: private authorities, passwords, tokens, proxies; all against real ones."""

import base64
import json
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.clients.oci.connection import Connection
from pipeline.clients.oci.pools import Pools
from pipeline.clients.oci.registry import RegistryRepository
from pipeline.clients.oci.repositories import Repositories
from pipeline.clients.oci.repository import held
from pipeline.core.digest import digest
from pipeline.core.errors import BackendError, Denied, Unreachable
from pipeline.core.image import Registry, Variant
from pipeline.resources.engine.pin import pin_engine
from tests.parts.certificates import Authority, authority
from tests.parts.faults import MIB, manifest_of, project_of, weights, write_model
from tests.parts.gateway import Refusal, before
from tests.parts.packages import put_image
from tests.parts.ports import free_port
from tests.parts.proxy import tunnelling
from tests.parts.registry import PASSWORD, USER, RealRegistry, running_registry
from tests.parts.tokens import IDENTITY_TOKEN, TokenServer, running_tokens

pytestmark = pytest.mark.registry

BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
NAME = "registry.test"  # in the certificate, and nowhere in DNS


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def secure(own: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    """HTTPS and a password."""
    certificate = own.sign("registry", "127.0.0.1", NAME)
    folder = tmp_path_factory.mktemp("secure-registry")
    with running_registry(folder, password=True, certificate=certificate) as started:
        yield started


@pytest.fixture(scope="module")
def tokens(own: Authority) -> Iterator[TokenServer]:
    with running_tokens(own.certificate) as started:
        yield started


@pytest.fixture(scope="module")
def guarded(tokens: TokenServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    """A registry that believes the token server."""
    with running_registry(tmp_path_factory.mktemp("guarded-registry"), auth=tokens.auth) as started:
        yield started


def login(folder: Path, host: str, **entry: str) -> dict[str, str]:
    (folder / "config.json").write_text(json.dumps({"auths": {host: entry or {"auth": BASIC}}}))
    return {"DOCKER_CONFIG": str(folder)}


def push(registry: Registry, environ: dict[str, str]) -> None:
    """A blob of a name of its own, read back."""
    body = uuid.uuid4().bytes
    repository = Repositories(environ)(registry, "qwen3")
    assert repository.push(None, len(body), held(body)) == digest(body)
    assert repository.blob(digest(body)) == body


def named(port: int, ca: Path | None = None) -> Registry:
    """The secure registry by a name that is not this machine's: HTTPS is a must."""
    return Registry("main", url=f"{NAME}:{port}/acme", ca=str(ca) if ca else None)


def test_a_private_authority_that_nobody_named_is_refused(secure: RealRegistry, tmp_path: Path) -> None:
    with tunnelling(secure.host) as proxy:
        environ = {**login(tmp_path, f"{NAME}:{secure.port}"), "HTTPS_PROXY": f"http://{proxy.host}"}
        with pytest.raises(Unreachable, match="certificate is not accepted"):
            Repositories({**environ})(named(secure.port), "qwen3").head("v1")


@pytest.mark.parametrize("how", ["ca", "SSL_CERT_FILE"])
def test_a_private_authority_is_trusted_where_it_is_named(
    secure: RealRegistry, own: Authority, tmp_path: Path, how: str
) -> None:
    file = own.certificate.file
    with tunnelling(secure.host) as proxy:
        environ = {**login(tmp_path, f"{NAME}:{secure.port}"), "https_proxy": f"http://{proxy.host}"}
        environ |= {"SSL_CERT_FILE": str(file)} if how == "SSL_CERT_FILE" else {}
        push(named(secure.port, file if how == "ca" else None), environ)


def test_what_the_docker_engine_trusts_is_trusted(
    secure: RealRegistry, own: Authority, tmp_path: Path
) -> None:
    host = f"{NAME}:{secure.port}"
    folder = tmp_path / "certs.d" / host
    folder.mkdir(parents=True)
    (folder / "ca.crt").write_bytes(own.certificate.file.read_bytes())
    with tunnelling(secure.host) as proxy:
        pools = Pools(host, {"HTTPS_PROXY": proxy.host}, docker_certificates=tmp_path / "certs.d")
        assert pools.pool(f"https://{host}/v2/").request("GET", f"https://{host}/v2/").status == 401


def test_a_loopback_registry_with_an_authority_is_asked_by_https(
    secure: RealRegistry, own: Authority, tmp_path: Path
) -> None:
    local = Registry("main", url=f"{secure.host}/acme", ca=str(own.certificate.file))
    push(local, login(tmp_path, secure.host))


def test_a_loopback_registry_that_wants_https_says_so(secure: RealRegistry) -> None:
    with pytest.raises(BackendError, match="answers 400") as raised:
        Repositories({})(Registry("main", url=f"{secure.host}/acme"), "qwen3").head("v1")
    assert "speaks HTTPS alone" in (raised.value.hint or "")


def test_another_authority_is_not_enough(secure: RealRegistry, tmp_path: Path) -> None:
    other = authority(tmp_path / "other", "somebody else")
    environ = login(tmp_path, NAME)
    refused = pytest.raises(Unreachable, match="certificate is not accepted")
    with tunnelling(secure.host) as proxy, refused:
        push(named(secure.port, other.certificate.file), environ | {"HTTPS_PROXY": proxy.host})


@pytest.mark.parametrize("content", [None, b"no certificate"], ids=["missing", "something else"])
def test_a_file_that_holds_no_certificate_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "ca.pem"
    if content:
        file.write_bytes(content)
    with pytest.raises(BackendError, match=r"ca\.pem cannot be used"):
        Repositories({})(named(1, file), "qwen3").head("v1")


def test_a_proxy_with_a_login_is_told_it_and_hosts_of_no_proxy_are_reached_without(
    secure: RealRegistry, own: Authority, tmp_path: Path
) -> None:
    with tunnelling(secure.host) as proxy:
        environ = login(tmp_path, f"{NAME}:{secure.port}")
        push(
            named(secure.port, own.certificate.file),
            environ | {"HTTPS_PROXY": f"http://ada:s%3At@{proxy.host}"},
        )
        assert set(proxy.tunnels) == {
            (f"{NAME}:{secure.port}", "Basic " + base64.b64encode(b"ada:s:t").decode())
        }
        proxy.tunnels.clear()
        for without in ("*", NAME, f".{NAME.partition('.')[2]}", f"other, {NAME}:{secure.port}"):
            with pytest.raises(Unreachable):  # the name leads nowhere
                push(
                    named(secure.port, own.certificate.file),
                    environ | {"HTTPS_PROXY": f"http://{proxy.host}", "NO_PROXY": without},
                )
        assert proxy.tunnels == []


@pytest.mark.parametrize("password", ["wrong", None])
def test_a_wrong_password_and_none_are_told_apart(
    secure: RealRegistry, own: Authority, tmp_path: Path, password: str | None
) -> None:
    host = secure.host
    wrong = login(tmp_path, host, auth=base64.b64encode(f"mp:{password}".encode()).decode())
    local = Registry("main", url=f"{host}/acme", ca=str(own.certificate.file))
    with pytest.raises(Denied) as problem:
        Repositories(wrong if password else {})(local, "qwen3").head("v1")
    assert ("the login that Docker keeps" in problem.value.message) is (password is not None)
    assert problem.value.hint == f"docker login {host}"


def test_a_password_is_changed_into_a_token_for_the_repository(
    guarded: RealRegistry, tokens: TokenServer, tmp_path: Path
) -> None:
    tokens.asked.clear()
    push(Registry("main", url=f"{guarded.host}/acme"), login(tmp_path, guarded.host))
    assert [(one.method, one.by, one.scopes) for one in tokens.asked] == [
        ("GET", "password", ["repository:acme/qwen3:pull,push"]),
        ("GET", "password", ["repository:acme/qwen3:pull"]),
    ]


@pytest.mark.parametrize("helper", [False, True], ids=["config.json", "credential helper"])
def test_an_identity_token_is_changed_by_oauth2(
    guarded: RealRegistry, tokens: TokenServer, tmp_path: Path, helper: bool
) -> None:
    tokens.asked.clear()
    environ = login(tmp_path, guarded.host, auth="", identitytoken=IDENTITY_TOKEN)
    if helper:
        program = tmp_path / "docker-credential-box"
        program.write_text(f'#!/bin/sh\necho \'{{"Username": "<token>", "Secret": "{IDENTITY_TOKEN}"}}\'\n')
        program.chmod(0o755)
        (tmp_path / "config.json").write_text(json.dumps({"credsStore": "box"}))
        environ["PATH"] = f"{tmp_path}:/usr/bin:/bin"
    push(Registry("main", url=f"{guarded.host}/acme"), environ)
    assert {(one.method, one.by) for one in tokens.asked} == {("POST", "identity token")}


def test_an_identity_token_that_is_no_longer_good_is_denied_and_not_told(
    guarded: RealRegistry, tmp_path: Path
) -> None:
    environ = login(tmp_path, guarded.host, identitytoken="s3cret")
    with pytest.raises(Denied) as problem:
        push(Registry("main", url=f"{guarded.host}/acme"), environ)
    assert problem.value.hint == f"docker login {guarded.host}"
    assert "s3cret" not in str(problem.value)


def test_nobody_may_push_where_only_somebody_may(guarded: RealRegistry) -> None:
    with pytest.raises(Denied, match=r"repository:acme/qwen3:pull,push denied"):
        push(Registry("main", url=f"{guarded.host}/acme"), {})


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT"])
@pytest.mark.parametrize("after_body", [True, False], ids=["after it read all", "at once"])
def test_a_token_that_ends_in_the_middle_of_an_upload_is_renewed(
    guarded: RealRegistry, tokens: TokenServer, tmp_path: Path, method: str, after_body: bool
) -> None:
    layer = weights("token", 32 * MIB)
    realm = f'Bearer realm="http://127.0.0.1:{tokens.server_port}/token",service="mp-registry"'
    with before(guarded.host) as gateway:
        slept: list[float] = []
        connection = Connection(gateway.host, login(tmp_path, gateway.host), sleep=slept.append)
        repository = RegistryRepository(connection, "acme/", uuid.uuid4().hex)
        gateway.faults.refusals = [Refusal(method, 401, {"WWW-Authenticate": realm}, after_body)]

        assert repository.push(None, len(layer), held(layer)) == digest(layer)

        assert repository.keeps(digest(layer), len(layer))


def test_tokens_that_end_soon_are_asked_for_again_before_they_are_refused(
    guarded: RealRegistry, tokens: TokenServer, tmp_path: Path
) -> None:
    registry = Registry("main", url=f"{guarded.host}/acme")
    repository = Repositories(login(tmp_path, guarded.host))(registry, "qwen3")
    tokens.asked.clear()
    tokens.expires_in_s = 5  # which is not worth to be kept
    try:
        for _ in range(3):
            repository.head("v1")
    finally:
        tokens.expires_in_s = 300
    assert len(tokens.asked) == 3


def test_a_project_names_the_authority_of_its_registry(
    secure: RealRegistry, own: Authority, tmp_path: Path
) -> None:
    """The file is beside models.yaml; nothing else in the environment knows of it."""
    host = f"{NAME}:{secure.port}"
    with tunnelling(secure.host) as proxy:
        project = project_of(
            tmp_path, {}, {}, None, HTTPS_PROXY=f"http://{proxy.host}", **login(tmp_path, host)
        )
        source = write_model(project, "tiny", config__json=b"{}", model__safetensors=b"weights")
        where = {"url": f"{host}/acme", "ca": "certs/ca.pem"}
        (project.folder / "certs").mkdir()
        (project.folder / "certs" / "ca.pem").write_bytes(own.certificate.file.read_bytes())
        project.write(manifest_of({"tiny": source}, {"main": where}))

        applied = project.mp("apply", "--yes")
        assert applied.code == 0, applied.text
        assert project.mp("plan", "--detailed-exitcode").code == 0

        project.write(manifest_of({}, {"main": where}))
        assert project.mp("list").code == 0


def test_skopeo_reads_what_was_pushed_with_a_token(guarded: RealRegistry, tmp_path: Path) -> None:
    project = project_of(tmp_path, {}, {}, None, **login(tmp_path, guarded.host))
    source = write_model(project, "tiny", config__json=b"{}", model__safetensors=b"weights")
    project.write(manifest_of({"tiny": source}, {"main": {"url": f"{guarded.host}/skopeo"}}))
    assert project.mp("apply", "--yes").code == 0

    listed = subprocess.run(
        [
            *("skopeo", "list-tags", "--tls-verify=false", "--creds", f"{USER}:{PASSWORD}"),
            f"docker://{guarded.host}/skopeo/tiny.weights",
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "mp-" in listed.stdout, listed.stderr


def test_the_digest_of_a_base_is_asked_of_a_mirror_that_has_it(
    registry: RealRegistry, tmp_path: Path
) -> None:
    """The base's own host leads nowhere, and so does the first mirror."""
    prefix = uuid.uuid4().hex
    base = Repositories({})(Registry("mirror", url=f"{registry.host}/{prefix}/acme"), "base")
    manifest = put_image(base, [], "v1")
    mirrors = (f"127.0.0.1:{free_port()}/hub", f"{registry.host}/{prefix}")
    repositories = Repositories({}, [Registry("hub", url=NAME, mirrors=mirrors)])
    variant = Variant("vllm", "1.0", "cpu", "3.11", f"{NAME}/acme/base:v1", ())

    pinned = pin_engine(variant, "linux/amd64", None, repositories)

    assert (pinned.base, pinned.base_digest) == (f"{NAME}/acme/base:v1", manifest.digest)
