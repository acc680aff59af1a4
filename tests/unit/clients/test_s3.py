"""What a store tells of an object: which checksum is the sha256 of its bytes, and which is not."""

import base64
import hashlib
from typing import Any

import pytest

from pipeline.clients.s3 import _sha256, _version

DIGEST = hashlib.sha256(b"weights").digest()
TOLD = base64.b64encode(DIGEST).decode()


@pytest.mark.parametrize(
    ("said", "sha256"),
    [
        ({"ChecksumSHA256": TOLD, "ChecksumType": "FULL_OBJECT"}, DIGEST.hex()),
        ({"ChecksumSHA256": TOLD}, DIGEST.hex()),  # of stores that do not tell the type
        ({"ChecksumSHA256": TOLD, "ChecksumType": "COMPOSITE"}, None),
        ({"ChecksumSHA256": f"{TOLD}-2"}, None),
        ({"ChecksumSHA256": TOLD, "ETag": '"0123-2"'}, None),
        ({"ChecksumSHA256": "not base64"}, None),
        ({"ChecksumSHA256": base64.b64encode(b"short").decode()}, None),
        ({"ChecksumCRC32": "kCgtDw==", "ChecksumType": "FULL_OBJECT"}, None),
        ({"Metadata": {"sha256": DIGEST.hex()}}, None),
    ],
)
def test_only_the_sha256_of_the_whole_object_is_one(said: dict[str, Any], sha256: str | None) -> None:
    answer: Any = {"ETag": '"0123"', **said}
    assert _sha256(answer) == sha256


@pytest.mark.parametrize(("said", "version"), [({}, None), ({"VersionId": "null"}, None)])
def test_version_that_can_be_overwritten_is_none(said: dict[str, Any], version: str | None) -> None:
    answer: Any = said
    assert _version(answer) == version
