"""The record of one process, `process.json` in its folder: whose it is, how it was started, where it answered. Used by driver."""

import json
from dataclasses import asdict
from pathlib import Path

from pipeline.clients import daemon
from pipeline.core.digest import Json
from pipeline.core.errors import BackendError
from pipeline.core.frozen import frozen
from pipeline.core.resource import Mark, Proof, fields_of
from pipeline.targets.local import former
from pipeline.targets.local.spec import LocalState

HOST = "127.0.0.1"


@frozen
class Process:
    """What is remembered of one process."""

    mark: Mark
    state: LocalState
    port: int
    proof: Proof | None  # None until it has answered

    @property
    def endpoint(self) -> str:
        return f"http://{HOST}:{self.port}"


def write(folder: Path, process: Process) -> None:
    proof: dict[str, Json] | None = None if process.proof is None else asdict(process.proof)
    record: dict[str, Json] = {
        "format_version": 1,
        "mark": asdict(process.mark),
        "state": fields_of(process.state),
        "port": process.port,
        "proof": proof,
    }
    daemon.write(folder / former.RECORD, record)


def read(folder: Path) -> Process | None:
    """None where there is none. Raises BackendError when it is damaged."""
    try:
        record = json.loads((folder / former.RECORD).read_text())
        return Process(
            Mark(**record["mark"]),
            LocalState(**record["state"]),
            record["port"],
            Proof(**record["proof"]) if record["proof"] else None,
        )
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as problem:
        raise BackendError(
            str(folder / former.RECORD), f"is damaged: {problem}", "remove its folder"
        ) from problem
    except OSError as problem:
        raise BackendError(str(folder / former.RECORD), f"cannot be read: {problem.strerror}") from problem
