"""The documents are true: everything that exists is in them, and everything in them exists."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.cli.main import COMMANDS
from pipeline.core.errors import ExitCode
from pipeline.manifest.read import read
from pipeline.sources import SOURCES
from pipeline.targets import KINDS
from pipeline.templates import TEMPLATES

ROOT = Path(__file__).resolve().parents[1]
DOCS = sorted(
    [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "AGENTS.md"]
)


def document(name: str) -> str:
    return (ROOT / name).read_text()


def headings(name: str) -> set[str]:
    return set(re.findall(r"^#+ (.+)$", document(name), re.MULTILINE))


def fences(text: str) -> Iterator[tuple[str, str]]:
    """Fenced blocks as (language, text)."""
    yield from re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def command_lines(text: str) -> Iterator[list[str]]:
    for language, block in fences(text):
        if language in ("", "sh", "bash", "console"):
            for line in block.splitlines():
                words = line.removeprefix("$ ").split(" #")[0]
                yield from (shlex.split(part) for part in re.split(r"&&|;|\|", words) if "'" not in part)


def manifests() -> list[tuple[str, str]]:
    found = []
    for file in DOCS:
        blocks = [b for language, b in fences(file.read_text()) if language == "yaml" and "\nmodels:" in b]
        found += [(f"{file.relative_to(ROOT)}#{number}", block) for number, block in enumerate(blocks)]
    return [(name, block) for name, block in found if not name.startswith("docs/adding-a-target.md")]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_heading(command: str) -> None:
    assert f"mp {command}" in headings("docs/commands.md")


@pytest.mark.parametrize("kind", KINDS)
def test_every_target_kind_has_a_heading(kind: str) -> None:
    assert kind in headings("docs/targets.md")


@pytest.mark.parametrize("kind", KINDS)
def test_every_option_of_a_target_is_in_its_table(kind: str) -> None:
    section = document("docs/targets.md").split(f"\n## {kind}\n")[1].split("\n## ")[0]
    for option in KINDS[kind].options.model_fields:
        assert f"| `{option}` |" in section, f"{kind}: {option}"


@pytest.mark.parametrize("scheme", SOURCES)
def test_every_source_scheme_has_a_heading(scheme: str) -> None:
    assert scheme in headings("docs/sources.md")


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_template_has_a_heading(template: str) -> None:
    assert template in headings("docs/templates.md")


@pytest.mark.parametrize("code", ExitCode)
def test_every_exit_code_is_explained(code: ExitCode) -> None:
    assert f"| {code.value} |" in document("docs/errors.md")


@pytest.mark.parametrize(("name", "text"), manifests())
def test_manifests_in_the_documents_are_valid(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "models.yaml").write_text(text)
    assert not read(tmp_path / "models.yaml").diagnostics, name


@pytest.mark.parametrize("file", DOCS, ids=lambda file: str(file.relative_to(ROOT)))
def test_commands_in_the_documents_exist(file: Path) -> None:
    recipes = re.findall(r"^([a-z][a-z-]*)(?: [^:=]*)?:(?!=)", document("justfile"), re.MULTILINE)
    for words in command_lines(file.read_text()):
        if "mp" in words:
            called = [w for w in words[words.index("mp") + 1 :] if not w.startswith("-")]
            assert not called or any(w in COMMANDS for w in called[:2]), words
        if "just" in words:
            assert words[words.index("just") + 1] in recipes, words


@pytest.mark.parametrize("file", DOCS, ids=lambda file: str(file.relative_to(ROOT)))
def test_links_between_the_documents_lead_somewhere(file: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", file.read_text()):
        if "://" not in link:
            assert (file.parent / link).exists(), link


@pytest.mark.parametrize("heading", ["Run it", "Test it"])
def test_readme_has_one_command_below_its_heading(heading: str) -> None:
    section = document("README.md").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    blocks = list(fences(section))
    assert len(blocks) == 1
    assert len(blocks[0][1].splitlines()) == 1


def test_command_reference_is_what_the_commands_say() -> None:
    from tests.parts.reference import commands_page

    assert document("docs/commands.md") == commands_page(), "run just docs"
