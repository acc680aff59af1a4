"""Layout version 1: which files make which layer, and that a layer is one byte sequence, for ever."""

import hashlib
import io
import tarfile
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.errors import Corrupt
from pipeline.core.model import FileEntry, Overlay
from pipeline.resources.image.layers import (
    MOST_OWN_LAYERS,
    OWN_LAYER_BYTES,
    Feed,
    Layer,
    Read,
    Stream,
    layers,
)

LARGE = OWN_LAYER_BYTES
GIB = 2**30


def entry(path: str, content: bytes = b"") -> FileEntry:
    return FileEntry(path, len(content), hashlib.sha256(content).hexdigest())


def sized(path: str, size_bytes: int) -> FileEntry:
    return FileEntry(path, size_bytes, hashlib.sha256(path.encode()).hexdigest())


def reading(contents: Mapping[str, bytes]) -> Read:
    """Reads files of a dictionary, two bytes at a time."""

    def read(wanted: FileEntry, begin: int) -> Feed:
        body = contents[wanted.path][begin:]
        pieces = (body[start : start + 2] for start in range(0, len(body), 2))
        return Feed(pieces, lambda what: Corrupt("test", f"{wanted.path} {what}"))

    return read


def tar_of(contents: Mapping[str, bytes]) -> bytes:
    (layer,) = layers([entry(path, content) for path, content in contents.items()])
    return b"".join(Stream(layer, reading(contents))())


def paths(found: tuple[Layer, ...]) -> list[list[str]]:
    return [[file.path for file in layer.files] for layer in found]


def test_small_files_share_a_layer_and_large_ones_have_their_own() -> None:
    files = [sized("b.safetensors", LARGE), sized("config.json", 900), sized("a.safetensors", LARGE + 1)]

    assert paths(layers(files)) == [["config.json"], ["a.safetensors"], ["b.safetensors"]]


def test_a_file_just_below_the_limit_is_small() -> None:
    assert paths(layers([sized("a", LARGE - 1), sized("b", 1)])) == [["a", "b"]]


def test_each_overlay_is_a_layer_of_its_own_and_comes_last() -> None:
    overlays = [Overlay(path, "0" * 64, 3, f"/x/{path}") for path in ("chat_template.jinja", "a.json")]

    found = layers([sized("config.json", 10), sized("model.safetensors", LARGE)], overlays)

    assert paths(found) == [["config.json"], ["model.safetensors"], ["a.json"], ["chat_template.jinja"]]
    assert [layer.overlay is not None for layer in found] == [False, False, True, True]


def test_more_than_ninety_large_files_share_layers_with_their_neighbours() -> None:
    files = [sized(f"model-{number:05}.safetensors", 4 * GIB) for number in range(200)]

    found = layers(files)

    assert len(found) == MOST_OWN_LAYERS
    assert [path for layer in paths(found) for path in layer] == [file.path for file in files]
    assert {len(layer.files) for layer in found} == {2, 3}


def test_ninety_large_files_are_ninety_layers() -> None:
    assert len(layers([sized(f"{number:03}", LARGE) for number in range(90)])) == 90


def test_a_known_file_gives_a_known_layer() -> None:
    """If this digest ever changes, every image of every user is pushed again: that is layout version 2."""
    contents = {"config.json": b'{"model_type":"llama"}\n', "nested/notes.txt": b""}

    assert hashlib.sha256(tar_of(contents)).hexdigest() == (
        "72f60269a235ce168cb985ef28ed01cf60aff89e50fa1f32a18f653066055363"
    )


def test_the_header_is_the_same_whoever_wrote_the_file_and_when() -> None:
    with tarfile.open(fileobj=io.BytesIO(tar_of({"sub/a.txt": b"hello"}))) as tar:
        members = tar.getmembers()

    assert [(m.name, m.mode, m.uid, m.gid, m.mtime, m.uname) for m in members] == [
        ("models", 0o755, 0, 0, 0, ""),
        ("models/sub", 0o755, 0, 0, 0, ""),
        ("models/sub/a.txt", 0o644, 0, 0, 0, ""),
    ]


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.lists(
            st.text(
                st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=60
            ),
            min_size=1,
            max_size=4,
        )
        .map("/".join)
        .filter(lambda path: not {".", ".."} & set(path.split("/"))),
        st.binary(max_size=1500),
        min_size=1,
        max_size=4,
    ).filter(lambda files: not any(other.startswith(f"{path}/") for path in files for other in files))
)
def test_any_file_names_come_out_as_they_went_in_and_the_size_is_exact(contents: dict[str, bytes]) -> None:
    (layer,) = layers([entry(path, content) for path, content in contents.items()])

    written = b"".join(Stream(layer, reading(contents))())

    assert len(written) == layer.size_bytes
    with tarfile.open(fileobj=io.BytesIO(written)) as tar:
        found = {m.name: tar.extractfile(m) for m in tar.getmembers() if m.isfile()}
    assert {name: handle.read() for name, handle in found.items() if handle} == {
        f"models/{path}": content for path, content in contents.items()
    }


CONTENTS = {"config.json": b"{}", "empty": b"", "model.safetensors": bytes(range(256)) * 5, "z.txt": b"last"}


@pytest.mark.parametrize("start", [0, 1, 511, 512, 700, 1024, 1026, 1536, 2048, 2560, 3000, 4000, 4096, 5000])
def test_a_stream_begins_at_any_offset_and_reads_no_file_that_is_over(start: int) -> None:
    (layer,) = layers([entry(path, content) for path, content in CONTENTS.items()])
    whole, opened = tar_of(CONTENTS), []

    def read(wanted: FileEntry, begin: int) -> Feed:
        opened.append((wanted.path, begin))
        return reading(CONTENTS)(wanted, begin)

    stream = Stream(layer, read)
    first = b"".join(stream())
    opened.clear()

    assert b"".join(stream(start)) == whole[start:] == first[start:]
    files = {path: whole.index(content) for path, content in CONTENTS.items() if content}
    assert opened == [
        (path, max(start - at, 0)) for path, at in files.items() if start < at + len(CONTENTS[path])
    ]


def test_a_file_whose_beginning_was_sent_before_is_still_verified_as_a_whole() -> None:
    (layer,) = layers([entry("a.txt", b"0123456789")])
    wrong = {"a.txt": b"X123456789"}
    at = tar_of({"a.txt": b"0123456789"}).index(b"0123456789")
    stream = Stream(layer, reading(wrong))
    cut = stream()
    while next(cut) != b"45":
        pass

    with pytest.raises(Corrupt, match=r"a\.txt is not what its sha256 says"):
        list(stream(at + 2))


def test_what_no_attempt_has_read_is_read_for_its_hash_and_not_sent() -> None:
    (layer,) = layers([entry("a.txt", b"0123456789")])
    at = tar_of({"a.txt": b"0123456789"}).index(b"0123456789")

    assert b"".join(Stream(layer, reading({"a.txt": b"0123456789"}))(at + 7))[:3] == b"789"
    with pytest.raises(Corrupt):
        list(Stream(layer, reading({"a.txt": b"X123456789"}))(at + 7))


def test_a_file_of_more_than_eight_gibibytes_has_its_size_in_a_pax_record() -> None:
    size_bytes = 9 * GIB
    (layer,) = layers([FileEntry("model.gguf", size_bytes, "0" * 64)])

    blocks = Stream(layer, reading({"model.gguf": b"x" * 10}))()
    head = b"".join(block for block, _ in zip(blocks, range(2), strict=False))

    with tarfile.open(fileobj=io.BytesIO(head), mode="r|") as tar:
        assert [(m.name, m.size) for m in (tar.next(), tar.next()) if m] == [
            ("models", 0),
            ("models/model.gguf", size_bytes),
        ]
    assert layer.size_bytes == 512 + 3 * 512 + size_bytes + 1024


@pytest.mark.parametrize(
    ("found", "what"),
    [
        (b"hellO", "not what its sha256 says"),
        (b"hell", "1 bytes early"),
        (b"hello!", "not what its sha256 says"),
    ],
    ids=["changed", "shorter", "longer"],
)
def test_a_damaged_file_ends_the_stream_before_its_end(found: bytes, what: str) -> None:
    (layer,) = layers([entry("a.txt", b"hello")])
    written: list[bytes] = []

    with pytest.raises(Corrupt, match=rf"a\.txt .*{what}"):
        written.extend(Stream(layer, reading({"a.txt": found}))())

    assert len(b"".join(written)) < layer.size_bytes


@pytest.mark.parametrize("found", [b"", b"!"])
def test_an_empty_file_is_hashed_like_any_other(found: bytes) -> None:
    (layer,) = layers([FileEntry("a.txt", 0, "0" * 64)])

    with pytest.raises(Corrupt, match=r"a\.txt"):
        list(Stream(layer, reading({"a.txt": found}))())


def test_the_key_depends_on_paths_and_contents_alone() -> None:
    one = Layer((entry("a", b"1"), entry("b", b"2")))
    same = Layer((entry("b", b"2"), entry("a", b"1")))
    renamed = Layer((entry("a", b"1"), entry("c", b"2")))

    assert one.key == same.key
    assert one.key != renamed.key
