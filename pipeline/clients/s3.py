"""Buckets of Amazon S3 and of stores that speak its protocol, through boto3. Used by sources/s3."""

import base64
import binascii
import contextlib
import io
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from pipeline.clients.http import SKIP_BYTES, Busy, host_of
from pipeline.core.errors import BackendError, Corrupt, Denied, Missing, Unreachable
from pipeline.core.frozen import frozen

if TYPE_CHECKING:
    from botocore.exceptions import ClientError
    from botocore.response import StreamingBody
    from types_boto3_s3.client import S3Client
    from types_boto3_s3.type_defs import (
        GetObjectOutputTypeDef,
        GetObjectRequestTypeDef,
        HeadObjectOutputTypeDef,
    )

CONNECT_TIMEOUT_S = 10
STALL_TIMEOUT_S = 60
CONNECTIONS = 32

# Amazon S3 API Reference, "Error Responses"; a HEAD has no body, so its code is the status
_GONE = frozenset({"NoSuchKey", "NoSuchVersion", "404"})
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired"})
_ELSEWHERE = frozenset(
    {"PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed", "301", "307"}
)
_NO_SUCH_LISTING = frozenset({"NotImplemented", "MethodNotAllowed", "501", "405"})


@frozen
class S3Object:
    """One version of one object, as far as the store tells it."""

    key: str
    size_bytes: int
    etag: str  # with its quotes; equal ones of one key mean equal bytes
    version_id: str | None = None  # None: not asked for, or the bucket has no versions
    sha256: str | None = None  # 64 hex of the whole object
    has_sha256: bool = False  # the listing says that the store keeps one: `head` may tell it


class S3:
    """One store. Where it is and who asks are boto3's business: AWS_ENDPOINT_URL_S3, AWS_PROFILE, AWS_REGION and so on.

    Every method raises Missing, Denied, Unreachable, BackendError.
    """

    def list(self, bucket: str, prefix: str) -> tuple[S3Object, ...]:
        """The newest objects whose keys begin with `prefix`, sorted by key."""
        with self._errors(bucket, prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            found = [
                S3Object(
                    each["Key"],
                    each["Size"],
                    each["ETag"],
                    has_sha256="SHA256" in each.get("ChecksumAlgorithm", ()),
                )
                for page in pages
                for each in page.get("Contents", ())
            ]
        return tuple(sorted(found, key=lambda each: each.key))

    def head(self, bucket: str, key: str, version_id: str = "") -> S3Object:
        """One object, or one version of it, with all that the store tells. Reads none of its bytes."""
        with self._errors(bucket, key):
            if version_id:
                found = self._client.head_object(
                    Bucket=bucket, Key=key, VersionId=version_id, ChecksumMode="ENABLED"
                )
            else:
                found = self._client.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
        return S3Object(key, found["ContentLength"], found["ETag"], _version(found), _sha256(found))

    def versions(self, bucket: str, key: str) -> tuple[S3Object, ...]:
        """Every version of one object, newest first; none where the store keeps none or may not list them."""
        found = []
        try:
            with self._errors(bucket, key):
                pages = self._client.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=key)
                for page in pages:
                    found += [each for each in page.get("Versions", ()) if each["Key"] == key]
        except Denied:
            return ()
        return tuple(S3Object(key, each["Size"], each["ETag"], each["VersionId"]) for each in found)

    @contextlib.contextmanager
    def open(self, bucket: str, wanted: S3Object, start: int) -> Iterator[BinaryIO]:
        """The bytes of exactly this object from an offset. Raises Corrupt when another is there by now."""
        asked: GetObjectRequestTypeDef = {"Bucket": bucket, "Key": wanted.key, "IfMatch": wanted.etag}
        if start:
            asked["Range"] = f"bytes={start}-"
        if wanted.version_id is not None:
            asked["VersionId"] = wanted.version_id
        with self._errors(bucket, wanted.key):
            answer = self._client.get_object(**asked)
        body = _Body(answer["Body"], self, bucket, wanted.key)
        try:
            _require_same(answer, wanted, start, f"{self._system}: s3://{bucket}/{wanted.key}")
            if start and answer["ResponseMetadata"]["HTTPStatusCode"] != 206:
                body.skip(start)  # a store that knows no ranges sends everything
            yield cast(BinaryIO, body)
        finally:
            answer["Body"].close()

    @cached_property
    def _anonymous(self) -> bool:
        """Nobody signed in: public buckets can be read so."""
        return self._session.get_credentials() is None

    @cached_property
    def _session(self) -> Any:  # boto3's stubs name its type only through a package of all services
        import boto3.session

        return boto3.session.Session()

    @cached_property
    def _client(self) -> "S3Client":
        """Addresses are by path where the endpoint is not AWS's: botocore does so by itself (1.44.5, args.py)."""
        from botocore import UNSIGNED
        from botocore.config import Config

        config = Config(
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=STALL_TIMEOUT_S,
            retries={"mode": "standard"},  # AWS_MAX_ATTEMPTS says how often
            max_pool_connections=CONNECTIONS,
            response_checksum_validation="when_required",  # whoever reads hashes: a checksum too would cost time
        )
        if self._anonymous:
            config = config.merge(Config(signature_version=UNSIGNED))
        made: S3Client = self._session.client("s3", config=config)
        return made

    @property
    def _system(self) -> str:
        made = self.__dict__.get("_client")  # not there when boto3 could not make one
        return f"s3 {host_of(made.meta.endpoint_url)}" if made is not None else "s3"

    @contextlib.contextmanager
    def _errors(self, bucket: str, key: str) -> Iterator[None]:
        """boto3's errors end here. Only their codes are shown: a message may repeat what was sent."""
        import botocore.exceptions as foreign
        import urllib3.exceptions

        try:
            yield
        except foreign.ClientError as problem:
            raise self._mapped(problem, bucket, key) from problem
        except (
            foreign.ConnectionError,
            foreign.HTTPClientError,
            foreign.IncompleteReadError,
            urllib3.exceptions.HTTPError,
        ) as problem:
            hint = "check the network and AWS_ENDPOINT_URL_S3, then run it again"
            raise Unreachable(self._system, _why(problem), hint) from problem
        except (
            foreign.NoCredentialsError,
            foreign.PartialCredentialsError,
            foreign.CredentialRetrievalError,
            foreign.TokenRetrievalError,
            foreign.SSOError,
            foreign.LoginError,
            foreign.ProfileNotFound,
        ) as problem:
            hint = "check AWS_PROFILE and ~/.aws, or sign in again: aws sso login"
            raise Denied(self._system, f"no credentials: {type(problem).__name__}", hint) from problem
        # an endpoint that is no URL is a ValueError; one that redirects for ever is followed until Python gives up
        except (foreign.BotoCoreError, ValueError, RecursionError) as problem:
            hint = "check AWS_ENDPOINT_URL_S3, AWS_REGION and ~/.aws/config"
            raise BackendError(self._system, f"cannot be asked: {type(problem).__name__}", hint) from problem

    def _mapped(self, problem: "ClientError", bucket: str, key: str) -> BackendError:
        code = problem.response["Error"].get("Code", "")
        status = problem.response["ResponseMetadata"]["HTTPStatusCode"]
        thing = f"s3://{bucket}/{key}"
        if code == "NoSuchBucket":
            return Missing(self._system, f'no bucket "{bucket}"', "check its name and AWS_ENDPOINT_URL_S3")
        if code in _GONE or (code == "InvalidArgument" and problem.operation_name != "ListObjectsV2"):
            return Missing(self._system, f"{thing} is not there, or not in this version", "check the source")
        if code in _ELSEWHERE:
            return BackendError(self._system, f'"{bucket}" is in another region', "set AWS_REGION to it")
        if code in _EXPIRED or status in (401, 403):
            return self._denied(code, thing)
        if status in (412, 416):
            says = "is not what it was any more" if status == 412 else "is shorter than it was said to be"
            hint = "run mp lock --upgrade to take what is there now"
            return Corrupt(self._system, f"{thing} {says}", hint)
        if code in _NO_SUCH_LISTING:
            return Denied(self._system, f"does not answer {problem.operation_name}", "use another store")
        if status >= 500 or status == 429:
            return Busy(self._system, f"{code} for {thing}", None)
        hint = "check the source and its version, and that the credentials have not expired"
        return BackendError(self._system, f"answers {code} for {thing}", hint)

    def _denied(self, code: str, thing: str) -> Denied:
        if code == "InvalidObjectState":
            hint = "bring it back first: aws s3api restore-object"
            return Denied(self._system, f"{thing} is archived and cannot be read", hint)
        if code in _EXPIRED:
            return Denied(self._system, "the credentials have expired", "sign in again: aws sso login")
        if self._anonymous:
            hint = (
                "no credentials were found: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
            return Denied(self._system, f"may not read {thing} without credentials", hint)
        hint = "the credentials need s3:GetObject, and s3:ListBucket for a folder"
        return Denied(self._system, f"may not read {thing} ({code})", hint)


class _Body(io.BufferedIOBase):
    """The bytes of an object; boto3's errors end here."""

    def __init__(self, stream: "StreamingBody", store: S3, bucket: str, key: str) -> None:
        self._stream = stream
        self._store = store
        self._bucket = bucket
        self._key = key

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        with self._store._errors(self._bucket, self._key):
            try:
                return self._stream.read(None if size is None or size < 0 else size)
            except OSError as problem:
                hint = "check the network, then run it again"
                raise Unreachable("s3", "the connection broke", hint) from problem

    def skip(self, count: int) -> None:
        while count:
            chunk = self.read(min(count, SKIP_BYTES))
            if not chunk:
                raise Corrupt("s3", f"s3://{self._bucket}/{self._key} is shorter than it was said to be")
            count -= len(chunk)


def _require_same(answer: "GetObjectOutputTypeDef", wanted: S3Object, start: int, thing: str) -> None:
    """A store may know no If-Match, and a cache before it no ranges."""
    partial = answer["ResponseMetadata"]["HTTPStatusCode"] == 206
    begins = answer.get("ContentRange", "").startswith(f"bytes {start}-") if partial else True
    size_bytes = answer["ContentLength"] + (start if partial else 0)
    if (answer["ETag"], size_bytes, begins) != (wanted.etag, wanted.size_bytes, True):
        system, _, name = thing.partition(": ")
        raise Corrupt(system, f"{name} is not what it was any more", "run mp lock --upgrade")


def _version(found: "HeadObjectOutputTypeDef") -> str | None:
    """ "null" is the one version that is overwritten: of a bucket whose versions are suspended."""
    version = found.get("VersionId", "null")
    return None if version == "null" else version


def _sha256(found: "HeadObjectOutputTypeDef") -> str | None:
    """The object's own sha256. Of an upload in parts the store tells a hash of the parts' hashes, which is none.

    Amazon S3 User Guide, "Checking object integrity": such a checksum is COMPOSITE and ends in the number of parts.
    """
    told: Mapping[str, Any] = found  # Any: fields of several types
    if told.get("ChecksumType", "FULL_OBJECT") != "FULL_OBJECT" or "-" in told["ETag"]:
        return None
    try:
        digest = base64.b64decode(told.get("ChecksumSHA256", ""), validate=True)
    except binascii.Error:
        return None
    return digest.hex() if len(digest) == 32 else None


def _why(problem: Exception) -> str:
    import botocore.exceptions as foreign

    match problem:
        case foreign.SSLError():
            return "TLS failed"
        case foreign.ReadTimeoutError():
            return "stalled: no byte came in time"
        case foreign.ConnectTimeoutError():
            return "no connection in time"
        case foreign.ProxyConnectionError():
            return "the proxy does not answer"
        case foreign.EndpointConnectionError():
            return "connection refused, or the name does not resolve"
        case _:
            return "the connection broke"
