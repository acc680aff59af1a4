"""A real S3 API on loopback (moto's server), behind a proxy that makes faults, and the environment to reach it."""

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.core.frozen import frozen
from tests.parts.faulty import FaultyServer, faulty, forwarding
from tests.parts.ports import free_port
from tests.parts.processes import running

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

KEYS = {"AWS_ACCESS_KEY_ID": "AKIDTESTTESTTEST", "AWS_SECRET_ACCESS_KEY": "s3cr3t-of-the-store"}


@frozen
class Buckets:
    """One store; `proxy` is what our code talks to, `client` goes around it."""

    proxy: FaultyServer
    client: "S3Client"

    def environ(self, nowhere: Path) -> dict[str, str]:
        """AWS's own variables for the store, and nothing of this machine's."""
        return {
            **KEYS,
            "AWS_ENDPOINT_URL_S3": self.proxy.url,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": str(nowhere / "config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(nowhere / "credentials"),
            "AWS_MAX_ATTEMPTS": "2",
        }

    def publish(self, bucket: str, files: Mapping[str, bytes]) -> None:
        """A bucket with exactly these objects; one that is there is emptied."""
        with contextlib.suppress(self.client.exceptions.BucketAlreadyOwnedByYou):
            self.client.create_bucket(Bucket=bucket)
        self.clear(bucket)
        for key, content in files.items():
            self.client.put_object(Bucket=bucket, Key=key, Body=content)

    def clear(self, bucket: str) -> None:
        keys = [each["Key"] for each in self.client.list_objects_v2(Bucket=bucket).get("Contents", ())]
        if keys:
            self.client.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys]})


@contextlib.contextmanager
def running_buckets(folder: Path) -> Iterator[Buckets]:
    import boto3.session

    port = free_port()
    url = f"http://127.0.0.1:{port}"
    argv = [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with running(argv, folder / "moto.log", url, environ), faulty(forwarding(url)) as proxy:
        session = boto3.session.Session(
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
            region_name="us-east-1",
        )
        yield Buckets(proxy, session.client("s3", endpoint_url=url))
