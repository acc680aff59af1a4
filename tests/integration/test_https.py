"""Web servers, the source and the cache together over real sockets: every fault ends in the right bytes or a clear error."""

import hashlib
import random
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.clients.http import Http
from pipeline.clients.web import Web
from pipeline.core.errors import BackendError, Corrupt, Denied, Missing, MpError, Refused, Unreachable
from pipeline.core.model import Artifact, Filter
from pipeline.core.protocols import SourceSpec
from pipeline.core.report import Event
from pipeline.core.resource import Address
from pipeline.resources.cache.store import Cache
from pipeline.sources import trusted_at_first
from pipeline.sources.https import HttpsSource
from tests.fakes.hub import Fault, Request
from tests.fakes.web import WebFolder
from tests.parts.absorbing import Absorbing
from tests.parts.faulty import Answer, FaultyServer, faulty

WEIGHTS = b"GGUF" + random.Random(1).randbytes(3 << 20)
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
PATH = "/models/tiny.q4.gguf"
LOGIN = "reader:p4ssw0rd"


def silent(event: Event) -> None:
    pass


@pytest.fixture
def folder() -> WebFolder:
    return WebFolder({PATH: WEIGHTS})


@pytest.fixture
def server(folder: WebFolder) -> Iterator[FaultyServer]:
    with faulty(folder) as running:
        yield running


@pytest.fixture
def absorbing() -> Absorbing:
    return Absorbing()


@pytest.fixture
def source(absorbing: Absorbing, tmp_path: Path) -> HttpsSource:
    return source_of(absorbing, tmp_path)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", pause=lambda _: None)


def source_of(absorbing: Absorbing, home: Path) -> HttpsSource:
    http = Http(stall_timeout_s=1.0, pause=lambda _: None)
    return HttpsSource(Web({"HOME": str(home)}, http), absorbing)


def spec_of(server: FaultyServer, version: str = "", path: str = PATH) -> SourceSpec:
    return SourceSpec(server.url + path, version)


def said(server: FaultyServer) -> SourceSpec:
    return spec_of(server, f"sha256:{SHA256}")


def add(cache: Cache, artifact: Artifact, source: HttpsSource) -> dict[str, bytes]:
    cache.add(artifact, source, silent, Address("tiny/artifact"))
    folder = Cache(cache.root).view(artifact.files)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_file_with_a_said_hash_costs_one_head_and_then_its_bytes(
    source: HttpsSource, server: FaultyServer, cache: Cache, absorbing: Absorbing
) -> None:
    artifact = source.resolve(said(server), None)
    assert [each.method for each in server.log] == ["HEAD"]
    assert artifact.pin == f"sha256-{SHA256}"
    assert not trusted_at_first(artifact)
    assert add(cache, artifact, source) == {"tiny.q4.gguf": WEIGHTS}
    assert absorbing.read == []


def test_known_file_with_a_said_hash_costs_nothing(source: HttpsSource, server: FaultyServer) -> None:
    known = source.resolve(said(server), None)
    server.log.clear()
    assert source.resolve(said(server), known) is known
    assert server.log == []


def test_file_without_a_hash_is_read_once_and_trusted(
    source: HttpsSource, server: FaultyServer, cache: Cache, absorbing: Absorbing
) -> None:
    artifact = source.resolve(spec_of(server), None)
    assert (artifact.files[0].sha256, artifact.pin) == (SHA256, f"sha256-{SHA256}")
    assert trusted_at_first(artifact)
    assert source.resolve(spec_of(server), artifact) == artifact
    assert len(absorbing.read) == 1
    assert add(cache, artifact, source) == {"tiny.q4.gguf": WEIGHTS}


def test_server_that_tells_nothing_to_know_a_file_by_is_read_every_time(
    folder: WebFolder, server: FaultyServer, absorbing: Absorbing, tmp_path: Path
) -> None:
    folder.dated = False
    times = iter((1.0, 2.0))
    web = Web({"HOME": str(tmp_path)}, Http(pause=lambda _: None))
    source = HttpsSource(web, absorbing, now=lambda: next(times))
    first = source.resolve(spec_of(server), None)
    folder.files[PATH] = WEIGHTS[::-1]  # as long as before
    assert source.resolve(spec_of(server), first).pin != first.pin


def test_file_that_changes_is_a_new_pin_when_it_is_resolved_anew(
    source: HttpsSource, folder: WebFolder, server: FaultyServer
) -> None:
    known = source.resolve(spec_of(server), None)
    folder.files[PATH] = WEIGHTS[::-1]
    assert source.resolve(spec_of(server), known).files[0].sha256 != SHA256


def test_file_that_has_other_bytes_after_the_lock_is_refused(
    source: HttpsSource, folder: WebFolder, server: FaultyServer, cache: Cache
) -> None:
    artifact = source.resolve(spec_of(server), None)
    folder.files[PATH] = WEIGHTS[::-1]
    found = hashlib.sha256(WEIGHTS[::-1]).hexdigest()
    with pytest.raises(Corrupt, match=f"sha256 {found[:12]}.* not {SHA256[:12]}") as raised:
        add(cache, artifact, source)
    assert raised.value.hint is not None
    assert "mp lock" in raised.value.hint
    assert not cache.complete(artifact)


def test_file_that_has_another_length_after_the_lock_is_refused_before_it_is_read(
    source: HttpsSource, folder: WebFolder, server: FaultyServer, cache: Cache
) -> None:
    artifact = source.resolve(spec_of(server), None)
    folder.files[PATH] = WEIGHTS + b"more"
    with pytest.raises(Corrupt, match=r"has 3,145,736 bytes now and not 3,145,732") as raised:
        add(cache, artifact, source)
    assert raised.value.hint == "run mp lock --upgrade to take what is there now"


def test_said_hash_that_is_wrong_is_refused(source: HttpsSource, server: FaultyServer, cache: Cache) -> None:
    artifact = source.resolve(spec_of(server, "sha256:" + "0" * 64), None)
    with pytest.raises(Corrupt, match=f"{SHA256[:12]}.* not 000000000000"):
        add(cache, artifact, source)
    assert not cache.complete(artifact)


def test_server_without_lengths_works_and_a_wrong_hash_is_named_whole(
    source: HttpsSource, folder: WebFolder, server: FaultyServer, cache: Cache
) -> None:
    folder.sized = False
    artifact = source.resolve(said(server), None)
    assert artifact.files[0].size_bytes == len(WEIGHTS)
    assert add(cache, artifact, source) == {"tiny.q4.gguf": WEIGHTS}
    with pytest.raises(Corrupt, match=f"has sha256 {SHA256} and not {'0' * 64}"):
        source.resolve(spec_of(server, "sha256:" + "0" * 64), None)


def test_server_without_head_works(source: HttpsSource, folder: WebFolder, server: FaultyServer) -> None:
    folder.heads = False
    assert source.resolve(said(server), None).files[0].size_bytes == len(WEIGHTS)


def test_cut_connection_resumes_with_a_range(source: HttpsSource, server: FaultyServer, cache: Cache) -> None:
    artifact = source.resolve(said(server), None)
    server.faults.append(Fault(f"GET {PATH}", cut_after_bytes=2_000_000))
    assert add(cache, artifact, source) == {"tiny.q4.gguf": WEIGHTS}
    assert [each.headers.get("range", "") != "" for each in server.asked("GET")] == [False, True]


def test_server_without_ranges_still_ends_right(
    source: HttpsSource, folder: WebFolder, server: FaultyServer, cache: Cache
) -> None:
    folder.ranges = False
    artifact = source.resolve(said(server), None)
    server.faults.append(Fault(f"GET {PATH}", cut_after_bytes=2_000_000))
    assert add(cache, artifact, source) == {"tiny.q4.gguf": WEIGHTS}


def test_flipped_byte_is_refused_and_leaves_nothing(
    source: HttpsSource, server: FaultyServer, cache: Cache
) -> None:
    artifact = source.resolve(said(server), None)
    server.faults.append(Fault(f"GET {PATH}", corrupt_at=1 << 20))
    with pytest.raises(Corrupt, match=r'"tiny.q4.gguf" has sha256'):
        add(cache, artifact, source)
    assert not cache.complete(artifact)
    assert add(cache, artifact, source) == {"tiny.q4.gguf": WEIGHTS}


def test_stalled_connection_is_taken_up_again(
    source: HttpsSource, server: FaultyServer, cache: Cache
) -> None:
    artifact = source.resolve(said(server), None)
    server.faults.append(Fault(f"GET {PATH}", stall_s=3.0))
    assert add(cache, artifact, source) == {"tiny.q4.gguf": WEIGHTS}


@pytest.mark.parametrize("status", [429, 500, 503])
def test_busy_server_is_asked_again(
    source: HttpsSource, server: FaultyServer, cache: Cache, status: int
) -> None:
    server.faults.append(Fault(PATH, times=2, status=status))
    assert add(cache, source.resolve(spec_of(server), None), source) == {"tiny.q4.gguf": WEIGHTS}


def test_server_that_stays_broken_is_unreachable(source: HttpsSource, server: FaultyServer) -> None:
    server.faults.append(Fault(PATH, times=99, status=500))
    with pytest.raises(Unreachable, match="status 500"):
        source.resolve(said(server), None)


def test_nobody_there_is_unreachable(source: HttpsSource, folder: WebFolder) -> None:
    with faulty(folder) as gone:
        spec = said(gone)
    with pytest.raises(Unreachable, match="connection refused"):
        source.resolve(spec, None)


def test_file_that_is_not_there_is_missing(source: HttpsSource, server: FaultyServer) -> None:
    with pytest.raises(Missing, match=r"/models/huge.gguf is not there"):
        source.resolve(spec_of(server, path="/models/huge.gguf"), None)


def test_file_that_changes_while_it_is_read_is_no_mixture(
    source: HttpsSource, folder: WebFolder, server: FaultyServer
) -> None:
    other = dict(folder.files)
    other[PATH] = WEIGHTS[::-1]
    asked = server.answering

    def changing(request: Request, body: bytes) -> Answer:
        answer = asked(request, body)
        if request.method == "GET":
            folder.files = other  # what follows the first read is another file of the same length
        return answer

    server.answering = changing
    server.faults.append(Fault(f"GET {PATH}", cut_after_bytes=2_000_000))
    with pytest.raises(Corrupt, match="changed while it was read"):
        source.resolve(spec_of(server), None)


def test_login_of_netrc_is_sent_to_its_host_and_to_no_other(
    folder: WebFolder, server: FaultyServer, absorbing: Absorbing, tmp_path: Path, cache: Cache
) -> None:
    (tmp_path / ".netrc").write_text(
        "machine 127.0.0.1 login reader password p4ssw0rd\ndefault login x password y\n"
    )
    folder.login = LOGIN
    source = source_of(absorbing, tmp_path)
    elsewhere = WebFolder({"/blob": WEIGHTS})
    with faulty(elsewhere) as other:
        folder.moved[PATH] = f"http://localhost:{other.port}/blob?sig=secret"
        assert add(cache, source.resolve(said(server), None), source) == {"tiny.q4.gguf": WEIGHTS}
        assert all("authorization" in each.headers for each in server.log)
        assert other.log
        assert not any("authorization" in each.headers for each in other.log)


def test_login_that_is_missing_is_denied_with_the_way_in(
    source: HttpsSource, folder: WebFolder, server: FaultyServer
) -> None:
    folder.login = LOGIN
    with pytest.raises(Denied, match="may not read") as raised:
        source.resolve(said(server), None)
    assert raised.value.hint is not None
    assert "machine 127.0.0.1" in raised.value.hint


def test_netrc_that_is_not_understood_is_an_error_without_its_secrets(
    server: FaultyServer, absorbing: Absorbing, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login reader passwrd p4ssw0rd\n")
    with pytest.raises(BackendError, match=r"\.netrc:\d+ is not understood") as raised:
        source_of(absorbing, tmp_path).resolve(said(server), None)
    assert "p4ssw0rd" not in f"{raised.value.message}{raised.value.hint}"


def test_redirect_without_a_hash_may_not_leave_safety(
    source: HttpsSource, folder: WebFolder, server: FaultyServer
) -> None:
    spec = SourceSpec("http://models.example/tiny.gguf", "")
    proxied = WebFolder({PATH: WEIGHTS})
    with faulty(proxied) as proxy, pytest.MonkeyPatch.context() as patch:
        proxied.files["http://models.example/tiny.gguf"] = WEIGHTS  # as a proxy is asked
        patch.setenv("http_proxy", proxy.url)
        patch.setenv("no_proxy", "127.0.0.1")
        for address in (spec, spec_of(server)):
            folder.moved[PATH] = spec.reference
            with pytest.raises(Refused, match=r"http:// from models.example is not safe without a sha256"):
                source.resolve(address, None)
        fixed = replace(spec, version=f"sha256:{SHA256}")
        assert source.resolve(fixed, None).files[0].sha256 == SHA256


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_proxy_of_the_environment_is_signed_in_at(
    absorbing: Absorbing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    for other in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(other, raising=False)
    with faulty(WebFolder({"http://models.example/tiny.gguf": WEIGHTS})) as proxy:
        monkeypatch.setenv(variable, proxy.url.replace("://", "://reader:p4ss@"))
        fixed = SourceSpec("http://models.example/tiny.gguf", f"sha256:{SHA256}")

        found = source_of(absorbing, tmp_path).resolve(fixed, None)

    assert found.files[0].sha256 == SHA256
    login = "Basic " + b64encode(b"reader:p4ss").decode()
    assert proxy.log
    assert {each.headers.get("proxy-authorization") for each in proxy.log} == {login}


def test_web_page_is_no_file(source: HttpsSource, folder: WebFolder, server: FaultyServer) -> None:
    folder.headers = {"Content-Type": "text/html; charset=utf-8"}
    with pytest.raises(BackendError, match="is a web page and not the file"):
        source.resolve(said(server), None)


def test_compressed_answer_is_refused(source: HttpsSource, folder: WebFolder, server: FaultyServer) -> None:
    folder.headers = {"Content-Encoding": "gzip"}
    with pytest.raises(BackendError, match=r"comes compressed \(gzip\)"):
        source.resolve(said(server), None)


@pytest.mark.parametrize("path", ["/models/llama", "/models"])
def test_folder_is_refused_with_what_to_use(source: HttpsSource, server: FaultyServer, path: str) -> None:
    with pytest.raises(MpError, match="is no file that engines read") as raised:
        source.resolve(spec_of(server, path=path), None)
    assert raised.value.hint is not None
    assert "https:// is one file" in raised.value.hint
    assert server.log == []


def test_version_that_is_no_hash_is_refused(source: HttpsSource, server: FaultyServer) -> None:
    with pytest.raises(Refused, match='version "v1" is no sha256'):
        source.resolve(spec_of(server, "v1"), None)


def test_encoded_name_is_decoded_and_stays_in_its_folder(
    source: HttpsSource, folder: WebFolder, server: FaultyServer, cache: Cache
) -> None:
    folder.files["/m/tiny%20a%2Fb.gguf"] = WEIGHTS
    artifact = source.resolve(replace(said(server), reference=f"{server.url}/m/tiny%20a%2Fb.gguf"), None)
    assert add(cache, artifact, source) == {"b.gguf": WEIGHTS}


@pytest.mark.parametrize("name", ["..%5C..%5Cx.gguf", "x%00.gguf", "x%0A.gguf"])
def test_name_that_is_none_is_refused(source: HttpsSource, server: FaultyServer, name: str) -> None:
    with pytest.raises(Refused, match="leave their folder"):
        source.resolve(spec_of(server, path=f"/m/{name}"), None)


def test_pickle_is_refused_before_it_is_read(
    source: HttpsSource, folder: WebFolder, server: FaultyServer
) -> None:
    folder.files["/m/model.bin"] = b"x"
    with pytest.raises(Refused, match=r'"model.bin" may run code'):
        source.resolve(spec_of(server, path="/m/model.bin"), None)
    assert server.asked("GET") == []


def test_config_is_read_for_what_it_says(
    source: HttpsSource, folder: WebFolder, server: FaultyServer
) -> None:
    folder.files["/m/config.json"] = b'{"num_hidden_layers": 2}'
    spec = replace(spec_of(server, path="/m/config.json"), filter=Filter(format="text"))
    assert source.resolve(spec, None).facts.layers == 2
    folder.files["/m/config.json"] = b'{"auto_map": {"AutoModel": "modeling_acme.Model"}}'
    with pytest.raises(Refused, match="auto_map"):
        source.resolve(spec, None)


def test_tls_is_verified(
    absorbing: Absorbing, folder: WebFolder, tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, public = tmp_path / "server.pem", tmp_path / "public.pem"
    made = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=mp -addext subjectAltName=IP:127.0.0.1"
    )
    argv = [*made.split(), "-keyout", str(certificate), "-out", str(public)]
    subprocess.run(argv, check=True, capture_output=True)
    with certificate.open("a") as file:
        file.write(public.read_text())
    with faulty(folder, certificate) as server:
        with pytest.raises(Unreachable, match="certificate is not accepted"):
            source_of(absorbing, tmp_path).resolve(spec_of(server), None)
        monkeypatch.setenv("SSL_CERT_FILE", str(public))
        source = source_of(absorbing, tmp_path)
        assert add(cache, source.resolve(spec_of(server), None), source) == {"tiny.q4.gguf": WEIGHTS}


@pytest.mark.parametrize("kept", [True, False])
def test_bytes_read_for_their_hash_stay_only_where_they_may(
    server: FaultyServer, cache: Cache, kept: bool
) -> None:
    source = HttpsSource(Web({}), cache.absorb)
    artifact = source.resolve(replace(spec_of(server), kept=kept), None)
    assert artifact.files[0].sha256 == SHA256
    assert cache.blob(SHA256).exists() is kept
