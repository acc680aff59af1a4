"""The question before something is changed: what `apply`, `destroy` and `cache prune` share."""

import sys

from pipeline.cli.views import output
from pipeline.core.errors import MpError


def agreed(question: str, look: str) -> bool:
    """Whether somebody said yes. Raises MpError where nobody is there: `look` is what shows the same without asking."""
    if not sys.stdin.isatty():
        raise MpError(
            "nobody is there to ask, and --yes was not given", f"look at {look}, then run it with --yes"
        )
    return output.ask(f"\n{question}")
