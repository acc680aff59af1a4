"""The real cosign."""

import os
from collections.abc import Mapping

from tests.parts import programs


def path() -> str:
    """PATH with cosign on it."""
    return f"{programs.program('cosign').parent}{os.pathsep}{os.environ['PATH']}"


def run(*words: str, environ: Mapping[str, str] | None = None) -> str:
    """Its standard output."""
    return programs.run("cosign", *words, environ=environ).decode()
