"""Follows docs/adding-a-target.md word by word in a copy of the package: the page is true, and a target is that small."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "adding-a-target.md").read_text()
CHECKPOINT = ROOT / "examples" / "quickstart" / "checkpoint"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def follow(package: Path) -> None:
    """Write the page's file and make its edits below `package`, a copy of the repository's `pipeline`."""
    (package / "targets" / "textfile.py").write_text(blocks("python")[0])
    for block in blocks("diff"):
        head, _, edits = block.partition("\n")
        file = package.parent / head.removeprefix("--- ")
        for edit in edits.split("@@\n"):
            lines = edit.splitlines()
            before = "\n".join(line[1:] for line in lines if not line.startswith("+"))
            after = "\n".join(line[1:] for line in lines if not line.startswith("-"))
            text = file.read_text()
            assert text.count(before) == 1, f"{head}: does not have once:\n{before}"
            file.write_text(text.replace(before, after))


class Repository:
    """A folder with the extended package and the page's models.yaml."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(ROOT / "pipeline", folder / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "runtime", folder / "runtime", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(CHECKPOINT, folder / "checkpoint")
        follow(folder / "pipeline")
        (folder / "models.yaml").write_text(blocks("yaml")[0])

    @property
    def file(self) -> Path:
        return self.folder / "notes" / "tiny.json"

    def mp(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, "PYTHONPATH": str(self.folder), "MP_CACHE": str(self.folder / "cache")}
        program = "import sys; from pipeline.cli.main import main; sys.exit(main())"
        return subprocess.run(
            [sys.executable, "-c", program, *arguments],
            cwd=self.folder,
            env=environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def expect(self, code: int, *arguments: str) -> str:
        done = self.mp(*arguments)
        assert done.returncode == code, (
            f"mp {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return Repository(tmp_path_factory.mktemp("with-textfile"))


def test_toy_target_goes_through_its_whole_life(repository: Repository) -> None:
    assert "tiny" in repository.expect(2, "plan", "--detailed-exitcode")
    assert not repository.file.exists(), "a plan only reads"

    repository.expect(0, "apply", "--yes")
    assert json.loads(repository.file.read_text())["state"]["note"] == "served since Monday"
    repository.expect(0, "plan", "--detailed-exitcode")
    repository.expect(0, "drift")

    record = json.loads(repository.file.read_text())
    record["state"]["note"] = "edited by hand"
    repository.file.write_text(json.dumps(record))
    assert "edited by hand" in repository.expect(2, "drift")
    repository.expect(0, "apply", "--yes")
    assert json.loads(repository.file.read_text())["state"]["note"] == "served since Monday"

    repository.expect(0, "destroy", "--all", "--yes")
    assert not repository.file.exists()
    repository.expect(0, "destroy", "--all", "--yes")


def test_toy_target_leaves_what_it_did_not_make(repository: Repository) -> None:
    repository.file.parent.mkdir(exist_ok=True)
    foreign = json.dumps({"state": {"pin": "", "served_name": "tiny", "note": "mine"}})
    repository.file.write_text(foreign)
    try:
        assert "not ours" in repository.expect(4, "apply", "--yes")
        assert repository.file.read_text() == foreign
    finally:
        repository.file.unlink()


def test_options_of_the_toy_target_are_checked_with_their_place(repository: Repository) -> None:
    manifest = repository.folder / "models.yaml"
    text = manifest.read_text()
    manifest.write_text(text.replace("note: served since Monday", "note: 3"))
    try:
        line = next(n for n, line in enumerate(text.splitlines(), 1) if "note:" in line)
        assert f"models.yaml:{line}:" in repository.expect(1, "validate")
    finally:
        manifest.write_text(text)


def test_the_page_obeys_the_rules_of_the_house(repository: Repository) -> None:
    """The toy's file has no lint, no type error, and points no arrow upwards."""
    tools = Path(sys.executable).parent
    shutil.copy(ROOT / "pyproject.toml", repository.folder)
    for command in (
        ["ruff", "check", "--no-cache", "pipeline/targets/textfile.py"],
        ["ruff", "format", "--check", "--no-cache", "pipeline/targets"],
        ["lint-imports", "--no-cache"],
    ):
        done = subprocess.run(
            [str(tools / command[0]), *command[1:]],
            cwd=repository.folder,
            env={**os.environ, "PYTHONPATH": str(repository.folder)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
