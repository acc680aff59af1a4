"""Draw docs/plan.svg, the picture in the README, from the case tests/cases/front-door: `uv run python docs/picture.py`."""

import io
import re
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import yaml
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pipeline import engine  # noqa: E402
from pipeline.cli.views.plan import Origin  # noqa: E402
from pipeline.cli.views.plan import plan as view  # noqa: E402
from pipeline.cli.views.text import ansi  # noqa: E402
from tests.cases.test_cases import before, disturb  # noqa: E402
from tests.fakes.project import open_memory_world  # noqa: E402

THEME = TerminalTheme(
    (250, 250, 248),
    (40, 44, 52),
    [(40, 44, 52), (190, 40, 40), (30, 130, 60), (160, 110, 0), (40, 90, 180), (140, 60, 150), (0, 120, 130), (90, 95, 105)],
    [(110, 115, 125), (200, 50, 50), (40, 150, 70), (180, 125, 0), (50, 100, 200), (150, 70, 160), (0, 130, 140), (40, 44, 52)],
)  # fmt: skip


def plan_text() -> str:
    """The plan of the case, coloured as a terminal shows it."""
    with tempfile.TemporaryDirectory() as folder:
        case = Path(folder) / "front-door"
        shutil.copytree(ROOT / "tests" / "cases" / "front-door", case)
        drivers = before(case)
        disturb(drivers, yaml.safe_load((case / "world.yaml").read_text()))
        plan = engine.plan(open_memory_world(case, drivers)).plan
        return view(replace(plan, read_seconds=1.2), Origin(commit="a41f9c2"), {}, ansi)


def picture() -> str:
    console = Console(record=True, width=102, file=io.StringIO(), force_terminal=True, legacy_windows=False)
    console.print(Text("$ mp plan", style="bold"))
    console.print(Text.from_ansi(plan_text()))
    svg = console.export_svg(title="mp plan", theme=THEME, unique_id="plan")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)  # no request to a font server
    return svg.replace(
        "Fira Code, monospace", "ui-monospace, SFMono-Regular, Menlo, 'DejaVu Sans Mono', monospace"
    )


if __name__ == "__main__":
    (ROOT / "docs" / "plan.svg").write_text(picture() + "\n")
