"""How work under way is shown: bars on a terminal, lines elsewhere; what draws bars is loaded only for them."""

import importlib
import sys

from pipeline.cli.options import Options
from pipeline.cli.views import output
from pipeline.cli.views.progress import Lines, Watch


def watch(options: Options) -> Watch:
    """On stderr, for as long as a block runs."""
    if not sys.stderr.isatty() or options.environ.get("TERM") == "dumb":
        return Lines(sys.stderr)
    colour = output.coloured(sys.stderr, options.environ, wanted=options.colour)
    bars: Watch = importlib.import_module("pipeline.cli.views.bars").Bars(sys.stderr, colour=colour)
    return bars
