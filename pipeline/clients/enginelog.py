"""The first error of an engine's log: what went wrong, where the last line only says that something did. Pure."""

import re

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# "(EngineCore_DP0 pid=71) ERROR 11-21 10:02:11 [core.py:866] text", "ERROR:    text", "[rank0]: text"
_PREFIX = re.compile(
    r"^(?:\([A-Za-z]\w*(?: \w+=\S+)*\)\s*)?"
    r"(?:(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL)(?:\s+\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?\s+\[[^\]]*\]|:\s|\s))?"
    r"(?:\[rank\d+\]:)? ?"
)
_EXCEPTION = re.compile(r"^(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Exit|Failure)(?::|$)")
_PLAIN = re.compile(
    r"(?:^|\s)\S+: (?:command )?not found$"  # a shell's
    r"|^\S+: error: "  # argparse's
    r"|^(?:Killed|Segmentation fault|Illegal instruction|Bus error|Aborted)\b"
    r"|^Fatal Python error: "
    r"|^standard_init_linux\.go|^exec \S+: |can't open file '"
    r"|error while loading shared libraries"
    r"|died unexpectedly \(exit code: -\d+\)"
)
# Lines that only say that an error was above or below.
_EMPTY = re.compile(
    r"Engine core initialization failed|EngineCore failed to start|EngineCore encountered a fatal error"
    r"|WorkerProc failed to start|WorkerProc hit an exception|Worker initialization failed"
    r"|See root cause above|See stack trace for root cause|Engine process failed to start"
    r"|Application startup failed|Traceback \(most recent call last\)|^Exception in ASGI application"
)
# An error of several lines: pydantic's says on its second what is wrong.
_CONTINUED = re.compile(r"validation errors? for \w+$|:$")
_LONGEST = 400  # characters


def first_error(log: str) -> str | None:
    """The first line that names a cause, without its prefix; None when no line of the log looks like an error."""
    lines = [_strip(line) for line in log.splitlines()]
    hollow = None
    for index, (level, text) in enumerate(lines):
        if not _is_error(level, text):
            continue
        if not _EMPTY.search(text):
            return _whole(text, [following for _, following in lines[index + 1 : index + 4]])
        hollow = hollow or text
    return hollow[:_LONGEST] if hollow else None


def _strip(line: str) -> tuple[str | None, str]:
    """Level and text of a line; the text keeps its indentation, which tells a traceback's code from its outcome."""
    clean = _COLOUR.sub("", line).rstrip()
    prefix = _PREFIX.match(clean)
    if prefix is None:
        return None, clean
    return prefix["level"], clean[prefix.end() :]


def _is_error(level: str | None, text: str) -> bool:
    if not text or text[0].isspace() or level in ("DEBUG", "INFO", "WARNING"):
        return False
    if _EXCEPTION.match(text) or _PLAIN.search(text):
        return True
    return level in ("ERROR", "CRITICAL") and not text.startswith("Traceback")


def _whole(text: str, following: list[str]) -> str:
    """The error with the lines that continue it."""
    parts = [text.strip()]
    while following and _CONTINUED.search(parts[-1]) and following[0].strip():
        parts.append(following.pop(0).strip())
    return " ".join(parts)[:_LONGEST]
