"""docs/manifest.md says what the schema says."""

from pathlib import Path

from pipeline.manifest.reference import reference
from pipeline.manifest.spec import Manifest, ModelSpec

PAGE = Path(__file__).resolve().parents[3] / "docs" / "manifest.md"


def test_page_is_what_the_schema_says() -> None:
    assert PAGE.read_text() == reference(), "python -m pipeline.manifest.reference docs/manifest.md"


def test_every_key_of_the_file_and_of_a_model_has_a_row() -> None:
    page = reference()
    for key in (*Manifest.model_fields, *ModelSpec.model_fields):
        assert f"| `{key}` |" in page
