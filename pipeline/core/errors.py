"""The tree of errors and the exit codes.

    MpError
    ├── UserError        what the user wrote is wrong; carries every Diagnostic at once
    ├── Refused          a guard, a policy or a protection says no (exit 4)
    ├── Stale            a lock, a plan or a checkout is older than the world (exit 3)
    ├── LockHeld         somebody else is applying (exit 6)
    └── BackendError     the world's: raised by clients, turned into an Outcome by `execute`
        ├── Unreachable  no answer: refused connection, time-out, DNS, 5xx after retries
        ├── Denied       401, 403, gated
        ├── Missing      a clear "not found" of something that must be there
        ├── Corrupt      bytes differ from their hash or length
        ├── Exhausted    disk full, quota, out of memory
        └── StartFailed  a process or container started and did not come up; carries the first error of its log

Anything else is ours and flies with a traceback.
"""

import enum
from collections.abc import Sequence

from pipeline.core.diagnostic import Diagnostic


class ExitCode(enum.IntEnum):
    OK = 0
    ERROR = 1
    CHANGES = 2
    STALE = 3
    REFUSED = 4
    PARTIAL = 5
    LOCKED = 6
    INTERRUPTED = 130


class MpError(Exception):
    """Something to tell the user; `hint` says what to do next."""

    exit_code = ExitCode.ERROR

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UserError(MpError):
    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        super().__init__(f"{len(diagnostics)} problems")
        self.diagnostics = tuple(diagnostics)


class Refused(MpError):
    exit_code = ExitCode.REFUSED


class Stale(MpError):
    exit_code = ExitCode.STALE


class LockHeld(MpError):
    exit_code = ExitCode.LOCKED


class BackendError(MpError):
    """An outside system did not do what was asked. Names the system, the thing and the next step."""

    def __init__(self, system: str, message: str, hint: str | None = None) -> None:
        super().__init__(f"{system}: {message}", hint)
        self.system = system


class Unreachable(BackendError):
    pass


class Denied(BackendError):
    pass


class Missing(BackendError):
    pass


class Corrupt(BackendError):
    pass


class Exhausted(BackendError):
    pass


class StartFailed(BackendError):
    pass
