"""Where entries are: laid out by URL, inside the cache, and never two sources in one folder."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.errors import Corrupt
from pipeline.core.model import Artifact
from pipeline.resources.cache.entries import place_of

PIN = "sha256-" + "a" * 64
HOSTS = ("huggingface.co", "localhost", "localhost:5000", "s3", "https", "http", "oci", "quay.io", "a")

parts = st.sampled_from(("a", "b", "refs", "s3", "oci", "https", "localhost", "huggingface.co", PIN))
paths = st.lists(parts, min_size=1, max_size=3).map("/".join)
sources = st.one_of(
    paths.map(lambda path: f"hf://{path}"),
    paths.map(lambda path: f"file:///{path}"),
    st.builds(
        "{}://{}/{}".format, st.sampled_from(("oci", "s3", "https", "http")), st.sampled_from(HOSTS), paths
    ),
)


def artifact(source: str, pin: str = PIN) -> Artifact:
    return Artifact(source, "", pin, ())


@pytest.mark.parametrize(
    ("source", "place"),
    [
        ("hf://Qwen/Qwen3-8B", "huggingface.co/Qwen/Qwen3-8B"),
        ("oci://quay.io/ai-lab/models/granite-7b-lab", "quay.io/ai-lab/models/granite-7b-lab"),
        ("oci://localhost:5000/x", "localhost:5000/x"),
        ("s3://bucket/some/prefix", "s3/bucket/some/prefix"),
        ("https://example.org/m.gguf", "https/example.org/m.gguf"),
        ("file:///srv/models/x", "localhost/srv/models/x"),
    ],
)
def test_place_is_the_url(source: str, place: str) -> None:
    assert place_of(artifact(source)) == f"{place}/{PIN}"


@given(sources, sources)
def test_two_sources_never_share_a_folder(one: str, other: str) -> None:
    assert (place_of(artifact(one)) == place_of(artifact(other))) == (one == other)


@given(sources)
def test_two_pins_lie_side_by_side(source: str) -> None:
    one = artifact(source)
    first, _, pin = place_of(one).rpartition("/")
    second, _, other = place_of(replace(one, pin="b" * 40)).rpartition("/")
    assert (first, pin, other) == (second, PIN, "b" * 40)


@pytest.mark.parametrize(
    "source", ["hf://../x", "s3://b//x", "oci://h/a/../../x", "ftp://h/x", "quay.io/x", "", "https://h/a\\b"]
)
def test_source_that_leads_elsewhere_is_refused(source: str) -> None:
    with pytest.raises(Corrupt):
        place_of(artifact(source))
