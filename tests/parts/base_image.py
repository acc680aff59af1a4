"""A small real Debian base image with Python, made from packages: nothing is pulled from a public registry."""

import hashlib
import os
import subprocess
from pathlib import Path

import docker

from pipeline.core.frozen import frozen

# The base of engine images needs numa, gomp and lscpu (vLLM on CPU) and nothing else of the last line.
PACKAGES = (
    "python3,python3-minimal,libpython3-stdlib,ca-certificates,libc6,libstdc++6,libgcc-s1,zlib1g,libssl3,"
    "libexpat1,libffi8,libsqlite3-0,base-files,base-passwd,dash,coreutils,bash,"
    "libnuma1,libgomp1,util-linux"
)
# Extracted packages run no scripts: what those would have made is made here.
FINISH = (
    'cp "$1/usr/share/base-passwd/passwd.master" "$1/etc/passwd"; '
    'cp "$1/usr/share/base-passwd/group.master" "$1/etc/group"; '
    'ln -s python3 "$1/usr/bin/python"; '
    'rm -rf "$1/usr/share/doc" "$1/usr/share/man" "$1/usr/share/locale"'
)
COMMAND = (
    "mmdebstrap",
    "--quiet",
    "--variant=extract",
    "--format=tar",
    f"--include={PACKAGES}",
    f"--extract-hook={FINISH}",
    "bookworm",
)
PATH_LINE = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@frozen
class BaseImage:
    name: str  # in the test registry: "127.0.0.1:5000/debian"
    digest: str  # "sha256:…"
    local: str  # the same image in the Docker engine: "mp-test-base:0123456789ab"

    @property
    def reference(self) -> str:
        return f"{self.name}@{self.digest}"


def debian_tar(cache: Path) -> Path:
    """The root file system as a tar; made once for each command (7 s, 74 MB), kept between runs."""
    key = hashlib.sha256("\0".join([*COMMAND, PATH_LINE]).encode()).hexdigest()[:12]
    tar = cache / f"base-{key}.tar"
    if not tar.exists():
        cache.mkdir(parents=True, exist_ok=True)
        part = tar.with_suffix(f".{os.getpid()}.part")
        environ = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
        subprocess.run([*COMMAND, str(part)], check=True, env=environ, timeout=300)
        part.rename(tar)
    return tar


def import_base(client: docker.DockerClient, cache: Path) -> str:
    """The base in the Docker engine, by its local name."""
    tar = debian_tar(cache)
    name, tag = "mp-test-base", tar.stem.removeprefix("base-")
    if not client.images.list(f"{name}:{tag}"):
        client.api.import_image_from_file(str(tar), repository=name, tag=tag, changes=[PATH_LINE])
    return f"{name}:{tag}"


def push_base(client: docker.DockerClient, local: str, host: str) -> BaseImage:
    """The base in a registry, where it gets the digest that a lock can name."""
    name = f"{host}/debian"
    client.images.get(local).tag(name, "bookworm")
    digest = ""
    for line in client.api.push(name, tag="bookworm", stream=True, decode=True):
        if "error" in line:
            raise RuntimeError(line["error"])
        digest = line.get("aux", {}).get("Digest", digest)
    client.images.remove(f"{name}:bookworm")
    return BaseImage(name, digest, local)
