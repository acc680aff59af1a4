"""What import-linter cannot say: tables agree with unions, rooms that must not meet do not, fakes are honest."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from pipeline.cli import filling
from pipeline.resources.cluster import pods
from pipeline.targets import KINDS

ROOT = Path(__file__).resolve().parents[1]


def python_files(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def imported(file: Path) -> set[str]:
    """The first names of every import in a file, wherever in it they stand."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_the_record_of_every_kind_names_it() -> None:
    for name, kind in KINDS.items():
        assert get_args(kind.spec.model_fields["kind"].annotation) == (name,)


def test_type_checkers_know_the_record_of_every_kind() -> None:
    written = (ROOT / "pipeline/targets/__init__.py").read_text()
    union = re.search(r"TargetSpec: TypeAlias = (.+)", written)
    assert union and union[1].split(" | ") == [kind.spec.__name__ for kind in KINDS.values()]


def test_target_records_are_frozen_and_refuse_unknown_keys() -> None:
    for record in (record for kind in KINDS.values() for record in (kind.spec, kind.options)):
        assert record.model_config.get("frozen") is True, record
        assert record.model_config.get("extra") == "forbid", record


def test_every_option_of_a_target_is_described() -> None:
    for record in (kind.options for kind in KINDS.values()):
        for name, field in record.model_fields.items():
            assert field.description, f"{record.__name__}.{name}"


def test_pipeline_and_runtime_never_import_each_other() -> None:
    for file in python_files("pipeline"):
        assert "runtime" not in imported(file), file
    for file in python_files("runtime"):
        assert not imported(file) & {"pipeline", "pydantic", "docker", "typer"}, file


def test_what_fills_volumes_ends_as_those_who_wait_for_it_read_it() -> None:
    """The program is in cli, and what reads its exit code is far below it."""
    assert filling.NEVER == pods.NEVER
    assert len({filling.FILLED, filling.AGAIN, filling.NEVER}) == 3


def test_every_module_says_what_lives_there() -> None:
    for file in python_files("pipeline", "runtime", "benchmarks", "tests"):
        text = file.read_text()
        assert not text.strip() or ast.get_docstring(ast.parse(text)), f"{file}: no module docstring"


def test_no_test_patches_or_mocks() -> None:
    for file in python_files("tests"):
        tree = ast.parse(file.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                assert node.module != "unittest.mock", file
            if isinstance(node, ast.Import):
                assert all(alias.name != "unittest.mock" for alias in node.names), file


def test_every_fake_runs_through_a_contract_suite() -> None:
    suites = "\n".join(file.read_text() for file in python_files("tests/contract"))
    for file in python_files("tests/fakes"):
        assert re.search(rf"tests\.fakes(\.| import .*){file.stem}\b", suites), f"{file.name}: in no suite"


def test_no_environment_variable_is_read_below_cli_and_clients() -> None:
    """Settings carries the environment: what a run knows of its surroundings is passed in."""
    for file in python_files("pipeline"):
        room = file.relative_to(ROOT / "pipeline").parts[0]
        if room in ("core", "engine", "manifest", "targets", "sources", "resources", "templates", "store"):
            assert "os.environ" not in file.read_text(), file


def test_frozen_classes_share_their_methods() -> None:
    standard = re.compile(r"^ *@dataclass\(frozen=True\)", re.MULTILINE)
    for file in python_files("pipeline"):
        assert not standard.search(file.read_text()), f"{file}: use @frozen of pipeline/core/frozen.py"
