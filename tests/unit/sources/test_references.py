"""References in the manifest: hf://org/name and explicit paths; everything else says what to write."""

from pathlib import Path

import pytest

from pipeline.core.errors import UserError
from pipeline.sources import SOURCES, parse_source, scheme_of

ROOT = Path("/work/project")


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("hf://Qwen/Qwen3-8B", "hf://Qwen/Qwen3-8B"),
        ("hf://acme/tiny_model.v2", "hf://acme/tiny_model.v2"),
        ("./checkpoint", "file:///work/project/checkpoint"),
        ("./a/../b/", "file:///work/project/b"),
        (".", "file:///work/project"),
        ("../shared/model.gguf", "file:///work/shared/model.gguf"),
        ("/data/model", "file:///data/model"),
        ("file:///data/model", "file:///data/model"),
        ("/data/with space", "file:///data/with space"),
    ],
)
def test_canonical_form(written: str, canonical: str) -> None:
    assert parse_source(written, ROOT) == canonical
    assert parse_source(canonical, ROOT) == canonical
    assert scheme_of(canonical) in SOURCES


def test_home_is_expanded() -> None:
    assert parse_source("~/models/a", ROOT) == f"file://{Path.home()}/models/a"


@pytest.mark.parametrize(
    ("written", "summary", "hint"),
    [
        ("oci://ghcr.io/acme/tiny", "oci:// is not supported yet", "hf://org/name or a path"),
        ("s3://bucket/key", "s3:// is not supported yet", "hf://org/name or a path"),
        ("https://example.org/m.gguf", "https:// is not supported yet", "hf://org/name or a path"),
        ("Qwen/Qwen3-8B", "neither hf://org/name nor a path", "write hf://Qwen/Qwen3-8B, or ./Qwen/Qwen3-8B"),
        ("ftp://host/x", "neither hf://org/name nor a path", "use hf:// or a path"),
        ("hf://gpt2", "no repository of the Hub", "write hf://org/name"),
        ("hf://acme/tiny@v1", "no repository of the Hub", 'write hf://acme/tiny, and version: "v1"'),
        ("hf://acme/tiny:v1", "no repository of the Hub", 'write hf://acme/tiny, and version: "v1"'),
        ("hf://acme/../etc", "no repository of the Hub", "write hf://org/name"),
        ("", "neither hf://org/name nor a path", "write hf://"),
    ],
)
def test_what_is_no_reference_says_what_to_write(written: str, summary: str, hint: str) -> None:
    with pytest.raises(UserError) as raised:
        parse_source(written, ROOT)
    (diagnostic,) = raised.value.diagnostics
    assert summary in diagnostic.summary
    assert hint in (diagnostic.hint or "")
