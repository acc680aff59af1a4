"""Buckets, the source and the cache together on moto's real server: every fault ends in the right bytes or a clear error."""

import contextlib
import hashlib
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.clients.s3 import S3
from pipeline.core.errors import BackendError, Corrupt, Denied, Missing, MpError, Refused, Unreachable
from pipeline.core.model import Artifact
from pipeline.core.protocols import SourceSpec
from pipeline.core.report import Event
from pipeline.core.resource import Address
from pipeline.resources.cache.store import Cache
from pipeline.sources.s3 import S3Source
from tests.fakes.hub import Fault, Request
from tests.parts.absorbing import Absorbing
from tests.parts.buckets import KEYS, Buckets
from tests.parts.faulty import Answer, faulty

BUCKET = "tiny-models"
SPEC = SourceSpec(f"s3://{BUCKET}/llama/v1", "")
WEIGHTS = random.Random(1).randbytes(3 << 20)
FILES = {"config.json": b'{"num_hidden_layers": 2}', "model.safetensors": WEIGHTS, "tokenizer.json": b"{}"}
GET_WEIGHTS = r"GET /tiny-models/llama/v1/model.safetensors"
LIST = r"GET /tiny-models\?list-type=2"
SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


def silent(event: Event) -> None:
    pass


@pytest.fixture
def store(buckets: Buckets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Buckets]:
    """The shared store with one model in it, as the environment of this process has it."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in buckets.environ(tmp_path / "nowhere").items():
        monkeypatch.setenv(name, value)
    buckets.publish(BUCKET, {f"llama/v1/{path}": content for path, content in FILES.items()})
    buckets.proxy.faults.clear()
    buckets.proxy.log.clear()
    yield buckets
    buckets.proxy.faults.clear()


@pytest.fixture
def absorbing() -> Absorbing:
    return Absorbing()


@pytest.fixture
def source(store: Buckets, absorbing: Absorbing) -> S3Source:
    return S3Source(S3(), absorbing)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", pause=lambda _: None)


def fetch(source: S3Source, cache: Cache, spec: SourceSpec = SPEC) -> Artifact:
    artifact = source.resolve(spec, None)
    cache.add(artifact, source, silent, Address("tiny/artifact"))
    return artifact


def arrived(cache: Cache, artifact: Artifact) -> dict[str, bytes]:
    folder = Cache(cache.root).view(artifact.files)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_model_arrives_whole(source: S3Source, cache: Cache) -> None:
    assert arrived(cache, fetch(source, cache)) == FILES


def test_another_process_reads_from_the_lock_alone(source: S3Source, cache: Cache) -> None:
    artifact = source.resolve(SPEC, None)
    cache.add(artifact, S3Source(S3(), Absorbing()), silent, Address("tiny/artifact"))
    assert arrived(cache, artifact) == FILES


def test_one_object_is_a_model(source: S3Source, store: Buckets, cache: Cache) -> None:
    store.publish(BUCKET, {"gguf/tiny.q4.gguf": b"GGUF" + WEIGHTS, "gguf/tiny.q4.gguf.md5": b"x"})
    spec = SourceSpec(f"s3://{BUCKET}/gguf/tiny.q4.gguf", "")
    assert arrived(cache, fetch(source, cache, spec)) == {"tiny.q4.gguf": b"GGUF" + WEIGHTS}
    assert store.proxy.asked(r"list-type") == []


def test_prefix_that_ends_like_a_file_is_a_folder_when_no_object_has_its_name(
    source: S3Source, store: Buckets, cache: Cache
) -> None:
    store.publish(BUCKET, {"tiny.gguf/tiny.gguf": b"GGUF1"})
    assert arrived(cache, fetch(source, cache, SourceSpec(f"s3://{BUCKET}/tiny.gguf", ""))) == {
        "tiny.gguf": b"GGUF1"
    }


def test_neighbours_of_a_prefix_and_marks_of_folders_are_no_files(source: S3Source, store: Buckets) -> None:
    for key in ("llama/v10/model.safetensors", "llama/v1/", "llama/v1/sub/"):
        store.client.put_object(Bucket=BUCKET, Key=key, Body=b"")
    assert [entry.path for entry in source.resolve(SPEC, None).files] == sorted(FILES)


PAGE = """<ListBucketResult><IsTruncated>{more}</IsTruncated><EncodingType>url</EncodingType>{next}
<Contents><Key>llama/v1/{name}</Key><Size>7</Size><ETag>"{name}"</ETag></Contents></ListBucketResult>"""


def test_listing_of_more_than_a_page_is_read_to_its_end(store: Buckets) -> None:
    def answer(request: Request, body: bytes) -> Answer:
        if "continuation-token=t1" in request.path:
            return Answer(200, {}, PAGE.format(more="false", next="", name="b%2Bc").encode())
        token = "<NextContinuationToken>t1</NextContinuationToken>"
        return Answer(200, {}, PAGE.format(more="true", next=token, name="a").encode())

    with faulty(answer) as paged, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_S3", paged.url)
        found = S3().list(BUCKET, "llama/v1/")
    assert [each.key for each in found] == ["llama/v1/a", "llama/v1/b+c"]


def test_odd_names_arrive(source: S3Source, store: Buckets, cache: Cache) -> None:
    store.publish(BUCKET, {"odd/a b+ü%20&.safetensors": b"w"})
    assert arrived(cache, fetch(source, cache, SourceSpec(f"s3://{BUCKET}/odd", ""))) == {
        "a b+ü%20&.safetensors": b"w"
    }


@pytest.mark.parametrize("key", ["bad/../../etc/x.safetensors", "bad//x.safetensors"])
def test_keys_that_leave_their_folder_are_refused(source: S3Source, store: Buckets, key: str) -> None:
    store.client.put_object(Bucket=BUCKET, Key=key, Body=b"w")
    with pytest.raises(Refused, match="leave their folder"):
        source.resolve(SourceSpec(f"s3://{BUCKET}/bad", ""), None)


def test_what_did_not_change_costs_the_listing_only(source: S3Source, store: Buckets) -> None:
    known = source.resolve(SPEC, None)
    store.proxy.log.clear()
    assert source.resolve(SPEC, known) is known
    assert [each.path.partition("?")[0] for each in store.proxy.log] == [f"/{BUCKET}"]


def test_sha256_of_the_store_spares_reading(
    source: S3Source, store: Buckets, absorbing: Absorbing, cache: Cache
) -> None:
    store.client.put_object(
        Bucket=BUCKET, Key="llama/v1/model.safetensors", Body=WEIGHTS, ChecksumAlgorithm="SHA256"
    )
    artifact = source.resolve(SPEC, None)
    assert not any("model.safetensors" in identity for identity in absorbing.read)
    assert store.proxy.asked(GET_WEIGHTS) == []
    assert artifact.files[1].sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    cache.add(artifact, source, silent, Address("tiny/artifact"))
    assert arrived(cache, artifact) == FILES


def test_hash_of_hashes_of_an_upload_in_parts_is_no_sha256(
    source: S3Source, store: Buckets, absorbing: Absorbing
) -> None:
    key, half = "llama/v1/model.safetensors", random.Random(2).randbytes(5 << 20)
    upload = store.client.create_multipart_upload(Bucket=BUCKET, Key=key, ChecksumAlgorithm="SHA256")
    parts = [
        store.client.upload_part(
            Bucket=BUCKET,
            Key=key,
            UploadId=upload["UploadId"],
            PartNumber=number,
            Body=half,
            ChecksumAlgorithm="SHA256",
        )
        for number in (1, 2)
    ]
    store.client.complete_multipart_upload(
        Bucket=BUCKET,
        Key=key,
        UploadId=upload["UploadId"],
        MultipartUpload={
            "Parts": [
                {"PartNumber": number, "ETag": part["ETag"], "ChecksumSHA256": part["ChecksumSHA256"]}
                for number, part in enumerate(parts, 1)
            ]
        },
    )
    assert source.resolve(SPEC, None).files[1].sha256 == hashlib.sha256(half + half).hexdigest()
    assert any(key in identity for identity in absorbing.read)


def test_sha256_that_the_uploader_claims_is_not_believed(source: S3Source, store: Buckets) -> None:
    store.client.put_object(
        Bucket=BUCKET, Key="llama/v1/model.safetensors", Body=WEIGHTS, Metadata={"sha256": "0" * 64}
    )
    assert source.resolve(SPEC, None).files[1].sha256 == hashlib.sha256(WEIGHTS).hexdigest()


def test_object_that_changes_after_the_lock_is_refused_with_the_way_on(
    source: S3Source, store: Buckets, cache: Cache
) -> None:
    artifact = source.resolve(SPEC, None)
    store.client.put_object(Bucket=BUCKET, Key="llama/v1/model.safetensors", Body=WEIGHTS + b"more")
    for reader in (source, S3Source(S3(), Absorbing())):
        with pytest.raises(Corrupt, match=r'"model.safetensors" is not what models.lock says') as raised:
            cache.add(artifact, reader, silent, Address("tiny/artifact"))
        assert raised.value.hint is not None
        assert "mp lock --upgrade" in raised.value.hint
    assert not cache.complete(artifact)


def test_object_of_the_same_length_with_other_bytes_never_enters_the_cache(
    source: S3Source, store: Buckets, cache: Cache
) -> None:
    artifact = source.resolve(SPEC, None)
    store.client.put_object(Bucket=BUCKET, Key="llama/v1/model.safetensors", Body=WEIGHTS[::-1])
    with pytest.raises(Corrupt, match=r'"model.safetensors" has sha256'):
        cache.add(artifact, source, silent, Address("tiny/artifact"))
    assert not cache.complete(artifact)


def test_object_that_changes_between_two_reads_is_not_mixed(
    source: S3Source, store: Buckets, cache: Cache
) -> None:
    artifact = source.resolve(SPEC, None)
    entry = artifact.files[1]
    with source.open(artifact, entry, 0) as stream:
        stream.read(1000)
    store.client.put_object(Bucket=BUCKET, Key="llama/v1/model.safetensors", Body=WEIGHTS + b"!")
    with pytest.raises(Corrupt), source.open(artifact, entry, 1000):
        pass


KEPT = "kept-models"


@pytest.fixture
def versioned(store: Buckets) -> Buckets:
    """A bucket that keeps every version, with the model as the newest one."""
    with contextlib.suppress(store.client.exceptions.BucketAlreadyOwnedByYou):
        store.client.create_bucket(Bucket=KEPT)
    store.client.put_bucket_versioning(Bucket=KEPT, VersioningConfiguration={"Status": "Enabled"})
    for path, content in FILES.items():
        store.client.put_object(Bucket=KEPT, Key=f"llama/v1/{path}", Body=content)
    return store


@pytest.mark.parametrize("fresh", [True, False])
def test_bucket_with_versions_still_gives_the_locked_bytes(
    versioned: Buckets, cache: Cache, fresh: bool
) -> None:
    source = S3Source(S3(), Absorbing())
    artifact = source.resolve(SourceSpec(f"s3://{KEPT}/llama/v1", ""), None)
    versioned.client.put_object(Bucket=KEPT, Key="llama/v1/model.safetensors", Body=b"newer")
    versioned.client.delete_object(Bucket=KEPT, Key="llama/v1/tokenizer.json")
    reader = S3Source(S3(), Absorbing()) if fresh else source
    cache.add(artifact, reader, silent, Address("tiny/artifact"))
    assert arrived(cache, artifact) == FILES
    asked = versioned.proxy.asked(rf"GET /{KEPT}/llama/v1/model.safetensors")
    assert "versionId=" in asked[-1].path


def test_older_version_is_found_by_its_bytes_when_many_are_as_long(versioned: Buckets, cache: Cache) -> None:
    artifact = S3Source(S3(), Absorbing()).resolve(SourceSpec(f"s3://{KEPT}/llama/v1", ""), None)
    for seed in (5, 6):
        body = random.Random(seed).randbytes(len(WEIGHTS))
        versioned.client.put_object(Bucket=KEPT, Key="llama/v1/model.safetensors", Body=body)
    cache.add(artifact, S3Source(S3(), cache.absorb), silent, Address("tiny/artifact"))
    assert arrived(cache, artifact) == FILES


def test_version_of_a_single_file_is_locked(versioned: Buckets, cache: Cache) -> None:
    key = "llama/v1/model.safetensors"
    old = versioned.client.head_object(Bucket=KEPT, Key=key)["VersionId"]
    versioned.client.put_object(Bucket=KEPT, Key=key, Body=b"newer")
    source = S3Source(S3(), Absorbing())
    spec = SourceSpec(f"s3://{KEPT}/{key}", old)
    artifact = fetch(source, cache, spec)
    assert arrived(cache, artifact) == {"model.safetensors": WEIGHTS}
    assert source.resolve(replace(spec, version=""), None).files[0].size_bytes == 5


def test_version_of_a_prefix_is_refused(source: S3Source) -> None:
    with pytest.raises(Refused, match=r'version "3H" is of no single file'):
        source.resolve(replace(SPEC, version="3H"), None)


def test_digest_is_required_and_then_costs_no_request(source: S3Source, store: Buckets) -> None:
    pin = source.resolve(SPEC, None).pin
    fixed = replace(SPEC, version=pin.replace("-", ":"))
    known = source.resolve(fixed, None)
    assert known.pin == pin
    store.proxy.log.clear()
    assert source.resolve(fixed, known) is known
    assert store.proxy.log == []
    with pytest.raises(Corrupt, match=f"its content is {fixed.version} and not sha256:{'0' * 64}"):
        source.resolve(replace(SPEC, version="sha256:" + "0" * 64), None)


def test_digest_of_a_single_file_is_its_own(source: S3Source) -> None:
    version = f"sha256:{hashlib.sha256(WEIGHTS).hexdigest()}"
    spec = SourceSpec(f"s3://{BUCKET}/llama/v1/model.safetensors", version)
    assert source.resolve(spec, None).files[0].sha256 == version.removeprefix("sha256:")


def test_flipped_byte_is_refused_and_leaves_nothing(source: S3Source, store: Buckets, cache: Cache) -> None:
    artifact = source.resolve(SPEC, None)
    store.proxy.faults.append(Fault(GET_WEIGHTS, corrupt_at=1 << 20))
    with pytest.raises(Corrupt, match=r'"model.safetensors" has sha256'):
        cache.add(artifact, source, silent, Address("tiny/artifact"))
    assert not cache.complete(artifact)
    cache.add(artifact, source, silent, Address("tiny/artifact"))
    assert arrived(cache, artifact) == FILES


def test_cut_connection_resumes_with_a_range(source: S3Source, store: Buckets, cache: Cache) -> None:
    artifact = source.resolve(SPEC, None)
    store.proxy.log.clear()
    store.proxy.faults.append(Fault(GET_WEIGHTS, cut_after_bytes=2_000_000))
    cache.add(artifact, source, silent, Address("tiny/artifact"))
    assert arrived(cache, artifact) == FILES
    first, second = store.proxy.asked(GET_WEIGHTS)
    assert first.headers.get("range") is None
    assert second.headers["range"].startswith("bytes=")
    assert first.headers["if-match"] == second.headers["if-match"]


def test_store_that_knows_no_ranges_still_ends_right(source: S3Source, store: Buckets, cache: Cache) -> None:
    artifact = source.resolve(SPEC, None)
    store.proxy.faults += [
        Fault(GET_WEIGHTS, cut_after_bytes=2_000_000),
        Fault(GET_WEIGHTS, ignore_range=True),
    ]
    cache.add(artifact, source, silent, Address("tiny/artifact"))
    assert arrived(cache, artifact) == FILES


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("pattern", [LIST, GET_WEIGHTS])
def test_busy_store_is_asked_again(
    source: S3Source, store: Buckets, cache: Cache, status: int, pattern: str
) -> None:
    store.proxy.faults.append(Fault(pattern, status=status))
    assert arrived(cache, fetch(source, cache)) == FILES


def test_store_that_stays_slow_is_unreachable(store: Buckets, absorbing: Absorbing) -> None:
    answer = Answer(503, {"Content-Type": "application/xml"}, SLOW_DOWN)
    with faulty(lambda request, body: answer) as busy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_S3", busy.url)
        with pytest.raises(Unreachable, match=r"SlowDown for s3://tiny-models/llama/v1") as raised:
            S3Source(S3(), absorbing).resolve(SPEC, None)
        assert raised.value.hint
        assert len(busy.log) == 2  # AWS_MAX_ATTEMPTS


@pytest.mark.parametrize(
    ("status", "code", "kind", "says"),
    [
        (403, "AccessDenied", Denied, r"may not read s3://tiny-models/llama/v1/ \(AccessDenied\)"),
        (403, "SignatureDoesNotMatch", Denied, "SignatureDoesNotMatch"),
        (403, "InvalidObjectState", Denied, "archived"),
        (400, "ExpiredToken", Denied, "the credentials have expired"),
        (404, "NoSuchBucket", Missing, 'no bucket "tiny-models"'),
        (301, "PermanentRedirect", BackendError, "another region"),
        (400, "InvalidRequest", BackendError, "answers InvalidRequest"),
    ],
)
def test_refusals_are_named_and_say_no_secret(
    store: Buckets, absorbing: Absorbing, status: int, code: str, kind: type[MpError], says: str
) -> None:
    said = f"<Error><Code>{code}</Code><Message>{KEYS['AWS_ACCESS_KEY_ID']}</Message></Error>".encode()
    headers = {"x-amz-bucket-region": "eu-west-1"} if status == 301 else {}
    with faulty(lambda request, body: Answer(status, headers, said)) as no, pytest.MonkeyPatch.context() as p:
        p.setenv("AWS_ENDPOINT_URL_S3", no.url)
        with pytest.raises(kind, match=says) as raised:
            S3Source(S3(), absorbing).resolve(SPEC, None)
    assert raised.value.hint
    text = f"{raised.value.message} {raised.value.hint}"
    assert not any(secret in text for secret in KEYS.values())


def test_store_that_redirects_for_ever_is_an_error(store: Buckets, absorbing: Absorbing) -> None:
    with faulty(lambda request, body: Answer(301)) as no, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_S3", no.url)
        with pytest.raises(BackendError, match="cannot be asked"):
            S3Source(S3(), absorbing).resolve(SPEC, None)


def test_nothing_at_the_prefix_is_missing(source: S3Source) -> None:
    with pytest.raises(Missing, match="no such object, and none below it"):
        source.resolve(SourceSpec(f"s3://{BUCKET}/lama", ""), None)


def test_unknown_bucket_is_missing(source: S3Source) -> None:
    with pytest.raises(Missing, match='no bucket "no-such-bucket"'):
        source.resolve(SourceSpec("s3://no-such-bucket/x", ""), None)


def test_file_that_was_removed_is_missing(source: S3Source, store: Buckets, cache: Cache) -> None:
    artifact = source.resolve(SPEC, None)
    store.client.delete_object(Bucket=BUCKET, Key="llama/v1/model.safetensors")
    with pytest.raises(Missing, match=r"llama/v1/model.safetensors is not there"):
        cache.add(artifact, source, silent, Address("tiny/artifact"))


def test_nobody_there_is_unreachable(
    store: Buckets, absorbing: Absorbing, monkeypatch: pytest.MonkeyPatch
) -> None:
    with faulty(lambda request, body: Answer(200)) as gone:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", gone.url)
    with pytest.raises(Unreachable, match=r"s3 127\.0\.0\.1:\d+: connection refused"):
        S3Source(S3(), absorbing).resolve(SPEC, None)


def test_requests_are_signed_and_addressed_by_path(source: S3Source, store: Buckets) -> None:
    source.resolve(SPEC, None)
    assert store.proxy.log
    assert all(KEYS["AWS_ACCESS_KEY_ID"] in each.headers["authorization"] for each in store.proxy.log)
    assert all(each.path.startswith(f"/{BUCKET}") for each in store.proxy.log)


def test_without_credentials_nothing_is_signed(
    store: Buckets, absorbing: Absorbing, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in KEYS:
        monkeypatch.delenv(name)
    store.client.put_bucket_policy(
        Bucket=BUCKET,
        Policy='{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", '
        f'"Action": "s3:*", "Resource": ["arn:aws:s3:::{BUCKET}", "arn:aws:s3:::{BUCKET}/*"]}}]}}',
    )
    try:
        S3Source(S3(), absorbing).resolve(SPEC, None)
    finally:
        store.client.delete_bucket_policy(Bucket=BUCKET)
    assert store.proxy.log
    assert not any("authorization" in each.headers for each in store.proxy.log)


def test_denied_without_credentials_says_how_to_sign_in(
    store: Buckets, absorbing: Absorbing, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in KEYS:
        monkeypatch.delenv(name)
    store.proxy.faults.append(Fault(LIST, times=9, status=403))
    with pytest.raises(Denied, match="without credentials") as raised:
        S3Source(S3(), absorbing).resolve(SPEC, None)
    assert raised.value.hint is not None
    assert "AWS_PROFILE" in raised.value.hint


def test_unknown_profile_is_denied(
    store: Buckets, absorbing: Absorbing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(Denied, match="ProfileNotFound"):
        S3Source(S3(), absorbing).resolve(SPEC, None)


def test_endpoint_that_is_no_address_is_an_error(
    store: Buckets, absorbing: Absorbing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "not an address")
    with pytest.raises(BackendError, match="cannot be asked") as raised:
        S3Source(S3(), absorbing).resolve(SPEC, None)
    assert raised.value.hint is not None
    assert "AWS_ENDPOINT_URL_S3" in raised.value.hint


def test_code_is_refused_before_weights_are_read(source: S3Source, store: Buckets) -> None:
    store.client.put_object(Bucket=BUCKET, Key="llama/v1/modeling.py", Body=b"")
    with pytest.raises(Refused, match=r'"modeling.py" is code'):
        source.resolve(SPEC, None)
    assert store.proxy.asked(GET_WEIGHTS) == []


def test_facts_are_read(source: S3Source) -> None:
    assert source.resolve(SPEC, None).facts.layers == 2
