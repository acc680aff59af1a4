"""docs/commands.md, written from what the commands say of themselves. `just docs` runs this; a test compares."""

import os
import subprocess
import sys
from pathlib import Path

from pipeline.cli.main import COMMANDS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "commands.md"
HEAD = """\
# Commands

Written by `just docs` from `mp <command> --help`. stdout is the result, stderr is progress. Exit codes: [errors.md](errors.md).
"""


def help_text(*words: str) -> str:
    said = subprocess.run(
        [str(Path(sys.executable).with_name("mp")), *words, "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"},
    )
    return "\n".join(line.rstrip() for line in said.stdout.strip("\n").splitlines())


def commands() -> list[str]:
    """Every command as it is called: "plan", "cache", "cache list"."""
    members = [[name, *(f"{name} {member}" for member in COMMANDS[name].members)] for name in COMMANDS]
    return [name for names in members for name in names]


def commands_page() -> str:
    sections = [f"\n## mp {name}\n\n```text\n{help_text(*name.split())}\n```\n" for name in commands()]
    return HEAD + "".join(sections)


if __name__ == "__main__":
    PAGE.write_text(commands_page())
