"""Prints the flags that the installed vLLM knows, for `flags:` of templates/data/vllm/<version>.yaml.

Run it in an environment with that vLLM: `python runtime/flags.py`. It is no part of any image.
"""

import argparse
import contextlib
import io
import sys
import textwrap


def known_flags() -> list[str]:
    """Long flags without "--", sorted; "[no-]" before a switch that can also be turned off."""
    from vllm import platforms
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    if platforms.current_platform.is_unspecified():  # a CUDA build on a machine without a GPU
        from vllm.platforms.cpu import CpuPlatform

        platforms.current_platform = CpuPlatform()
    try:
        from vllm.entrypoints.common.cli_args import make_arg_parser
    except ImportError:  # before 0.33
        from vllm.entrypoints.launchers.cli_args import make_arg_parser

    parser: argparse.ArgumentParser = make_arg_parser(FlexibleArgumentParser())
    options = {option for action in parser._actions for option in action.option_strings}
    names = {option.removeprefix("--") for option in options if option.startswith("--")}
    twins = {name for name in names if name.startswith("no-") and name[3:] in names}
    return sorted((f"[no-]{name}" if f"no-{name}" in twins else name for name in names - twins), key=_letters)


def _letters(name: str) -> str:
    return name.removeprefix("[no-]")


if __name__ == "__main__":
    chatter = io.StringIO()
    with contextlib.redirect_stdout(chatter):  # importing vLLM logs to standard output
        flags = known_flags()
    sys.stdout.write(textwrap.fill(" ".join(flags), 118, break_on_hyphens=False) + "\n")
