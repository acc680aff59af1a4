"""A real OCI registry (Debian's docker-registry) on a free loopback port, with storage of its own."""

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.parts.certificates import Certificate
from tests.parts.ports import free_port
from tests.parts.processes import stop, wait_for

USER, PASSWORD = "mp", "correct-horse"
# bcrypt of PASSWORD; the registry reads no other kind
HTPASSWD = "mp:$2b$05$nG.2ESswltZuM9qvWnjO/OUXJxVIDNA.ov6Qr4Dhtg5RovEzVZGIC\n"

CONFIG = """\
version: 0.1
log: {{level: warn, accesslog: {{disabled: false}}}}
storage:
  filesystem: {{rootdirectory: {storage}}}
  delete: {{enabled: true}}
http: {{addr: "{host}"}}
"""


@dataclass
class RealRegistry:
    """One registry process; it can be stopped and started again on the same port and storage."""

    folder: Path
    password: bool = False
    certificate: Certificate | None = None  # for TLS
    auth: str = ""  # the value of `auth` in its configuration, where it is not a password
    deletes: bool = True
    everywhere: bool = False  # it listens on every address of this machine, so that pods reach it
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"  # "127.0.0.1:5000": what stands before the repository

    @property
    def log(self) -> Path:
        return self.folder / "registry.log"

    @property
    def storage(self) -> Path:
        return self.folder / "storage"

    def requests(self) -> list[str]:
        """The access log so far, one "METHOD /path" a request."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [line.split('"')[1].rsplit(" ", 1)[0] for line in lines if '" ' in line and "HTTP/1" in line]

    def start(self) -> None:
        self.storage.mkdir(parents=True, exist_ok=True)
        where = f":{self.port}" if self.everywhere else self.host
        config = CONFIG.format(storage=self.storage, host=where)
        if self.password:
            (self.folder / "htpasswd").write_text(HTPASSWD)
            config += f"auth: {{htpasswd: {{realm: mp, path: {self.folder / 'htpasswd'}}}}}\n"
        if self.auth:
            config += f"auth: {self.auth}\n"
        if self.certificate:
            tls = f"{{certificate: {self.certificate.file}, key: {self.certificate.key}}}"
            config = config.replace(f'addr: "{where}"', f'addr: "{where}", tls: {tls}')
        if not self.deletes:
            config = config.replace("delete: {enabled: true}", "delete: {enabled: false}")
        (self.folder / "config.yml").write_text(config)
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                ["docker-registry", "serve", str(self.folder / "config.yml")],
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        wait_for(f"http://{self.host}/v2/", self.process, self.log, timeout_s=20)

    def stop(self) -> None:
        if self.process is not None:
            stop(self.process)
            self.process = None


@contextlib.contextmanager
def running_registry(
    folder: Path,
    *,
    password: bool = False,
    certificate: Certificate | None = None,
    auth: str = "",
    everywhere: bool = False,
) -> Iterator[RealRegistry]:
    registry = RealRegistry(folder, password, certificate, auth, everywhere=everywhere)
    registry.start()
    try:
        yield registry
    finally:
        registry.stop()
