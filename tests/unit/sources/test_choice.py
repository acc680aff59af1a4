"""Which files are taken: formats, duplicates, quantisations, names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.errors import Missing, MpError, Refused
from pipeline.core.model import Filter
from pipeline.core.protocols import SourceSpec
from pipeline.sources.choice import choose, is_relative
from pipeline.sources.kinds import Kind, kind_of

SMALL = ("config.json", "tokenizer.json", "tokenizer.model", "README.md", "LICENSE")
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def taken(*paths: str, **kept: object) -> list[str]:
    return list(choose(spec(**kept), dict.fromkeys(paths, 10)).paths)


def spec(**kept: object) -> SourceSpec:
    return SourceSpec("hf://acme/tiny", "main", Filter(**kept))  # type: ignore[arg-type]


def left_out(*paths: str, **kept: object) -> set[str]:
    return set(paths) - set(taken(*paths, **kept))


def test_a_plain_checkpoint_is_taken_whole() -> None:
    index = "model.safetensors.index.json"
    assert left_out(*SMALL, *SHARDS, index) == set()


def test_the_same_weights_for_other_engines_are_left_out_and_counted() -> None:
    """As meta-llama's, mistralai's and openai's repositories have them."""
    duplicates = {
        "original/consolidated.00.pth": 7,
        "original/params.json": 1,
        "metal/model.bin": 20,
        "consolidated.safetensors": 300,
        "pytorch_model.bin": 4_000,
        "pytorch_model.bin.index.json": 50_000,
        "tf_model.h5": 600_000,
        "flax_model.msgpack": 7_000_000,
        "onnx/model.onnx": 80_000_000,
        "model.onnx": 900_000_000,
    }
    choice = choose(spec(), {**dict.fromkeys(SMALL, 1), **dict.fromkeys(SHARDS, 1), **duplicates})
    assert choice.paths == tuple(sorted((*SMALL, *SHARDS)))
    assert choice.left_out_bytes == 987_654_328


@pytest.mark.parametrize(
    "path",
    [
        "figure.png",
        "assets/demo.mp4",
        "paper.pdf",
        "training_args.bin",
        "optimizer.pt",
        "rng_state_0.pth",
        "runs/events.out.tfevents.1700000000.host.1.0",
        "imatrix.dat",
        "tiny-imatrix.gguf",
        "train.log",
    ],
)
def test_what_no_engine_reads_is_left_out_unless_it_is_named(path: str) -> None:
    assert left_out("model.safetensors", path) == {path}
    assert left_out("model.safetensors", path, include=("model*", path)) == set()


def test_shards_that_the_index_does_not_name_are_taken() -> None:
    extra = "model-vision.safetensors"
    assert extra in taken(*SHARDS, "model.safetensors.index.json", extra)


@pytest.mark.parametrize(
    ("path", "include"),
    [
        ("original/model.safetensors", "original/*"),
        ("consolidated.safetensors", "consolidated*"),
        ("tiny.gguf", "*.gguf"),
        ("pytorch_model.bin", "*.bin"),
    ],
)
def test_what_an_include_names_is_taken_beside_the_others(path: str, include: str) -> None:
    assert left_out("model.safetensors", path, include=("model*", "*.json", "*")) == {path}
    assert left_out("model.safetensors", path, include=("model*", include)) == set()


def test_the_only_weights_are_no_duplicates() -> None:
    mistral = ("consolidated.safetensors", "params.json", "tekken.json")
    assert left_out(*mistral) == set()
    assert left_out("original/model.safetensors", "config.json") == set()
    assert left_out("model.safetensors", "consolidated.safetensors", include=("consolidated*",)) == {
        "model.safetensors"
    }


def test_a_pickle_in_another_folder_is_no_duplicate() -> None:
    """sentence-transformers keep a layer of their own there: without it the model answers otherwise."""
    assert "2_Dense/pytorch_model.bin" in taken("model.safetensors", "2_Dense/pytorch_model.bin")


def test_auto_prefers_safetensors_and_takes_gguf_else() -> None:
    assert taken("model.safetensors", "tiny.gguf") == ["model.safetensors"]
    assert taken("config.json", "tiny.gguf") == ["config.json", "tiny.gguf"]


def test_a_format_is_kept_to() -> None:
    files = ("config.json", "model.safetensors", "model.safetensors.index.json", "tiny.gguf", "a.bin")
    assert taken(*files, format="gguf") == ["config.json", "tiny.gguf"]
    assert taken(*files, format="safetensors") == [
        "config.json",
        "model.safetensors",
        "model.safetensors.index.json",
    ]


@pytest.mark.parametrize(
    ("format", "files", "says"),
    [
        ("safetensors", ("config.json", "tiny.gguf"), 'no safetensors file is chosen; it has "tiny.gguf"'),
        ("gguf", ("model.safetensors",), 'no GGUF file is chosen; it has "model.safetensors"'),
        ("safetensors", ("pytorch_model.bin",), 'no safetensors file is chosen; it has "pytorch_model.bin"'),
        ("auto", ("model.onnx", "config.json"), 'no safetensors or GGUF file is chosen; it has "model.onnx"'),
        ("auto", (), "no safetensors or GGUF file is chosen$"),
        ("text", ("model.safetensors", "tiny.gguf", "pytorch_model.bin"), "no file is chosen"),
    ],
)
def test_nothing_of_the_format_is_missing(format: str, files: tuple[str, ...], says: str) -> None:
    with pytest.raises(Missing, match=f"hf://acme/tiny: {says}") as raised:
        taken(*files, format=format)
    assert raised.value.hint


def test_text_takes_no_weights_and_needs_none() -> None:
    weights = (*SHARDS, "model.safetensors.index.json", "pytorch_model.bin", "original/params.json")
    choice = choose(spec(format="text"), dict.fromkeys((*SMALL, *weights), 10))
    assert choice.paths == tuple(sorted(SMALL))
    assert choice.left_out_bytes == 0


def test_several_quantisations_are_listed_with_their_sizes() -> None:
    sizes = {
        "tiny-Q4_K_M.gguf": 4_920_000_000,
        "BF16/tiny-BF16-00001-of-00002.gguf": 9_000_000_000,
        "BF16/tiny-BF16-00002-of-00002.gguf": 7_000_000_000,
        "mmproj-F16.gguf": 900_000_000,
    }
    with pytest.raises(MpError, match="3 GGUF files to choose from") as raised:
        choose(spec(), sizes)
    assert "BF16/tiny-BF16.gguf (16.00 GB)" in raised.value.message
    assert "tiny-Q4_K_M.gguf (4.92 GB)" in raised.value.message
    assert raised.value.hint == 'choose one: files: {include: ["tiny-Q4_K_M.gguf", "*.json"]}'
    assert choose(spec(include=("BF16/*",)), sizes).paths == tuple(sorted(sizes)[:2])


def test_the_hint_for_a_quantisation_in_shards_finds_them() -> None:
    sizes = dict.fromkeys(("a-Q4-00001-of-00002.gguf", "a-Q4-00002-of-00002.gguf", "a-Q4-big.gguf"), 1)
    with pytest.raises(MpError) as raised:
        choose(spec(), sizes)
    assert raised.value.hint is not None
    assert '"a-Q4-big.gguf"' in raised.value.hint or '"a-Q4-*' in raised.value.hint


def test_one_quantisation_in_shards_with_its_projector_is_one() -> None:
    one = ("a-00001-of-00002.gguf", "a-00002-of-00002.gguf", "mmproj-F16.gguf")
    assert taken(*one) == sorted(one)


def test_names_that_leave_their_folder_are_refused_all_at_once() -> None:
    bad = (
        "../up.json",
        "/etc/passwd",
        "a//b.json",
        "back\\slash.json",
        "line\nbreak.json",
        "C:x.json",
        "sub/",
    )
    with pytest.raises(Refused) as raised:
        taken("model.safetensors", *bad)
    for name in ("../up.json", "/etc/passwd", "a//b.json", "C:x.json", r"line\nbreak.json", '"sub/"'):
        assert name in raised.value.message
    assert taken("model.safetensors", *bad, exclude=("[!m]*",)) == ["model.safetensors"]


@pytest.mark.parametrize("name", ["n" * 256, "é" * 128, "sub/" + "n" * 256 + "/x.json", "\ud800.json"])
def test_a_name_that_no_disk_takes_is_refused_before_anything_is_fetched(name: str) -> None:
    assert taken("model.safetensors", "n" * 255) == ["model.safetensors", "n" * 255]
    with pytest.raises(Refused, match="no names for a disk"):
        taken("model.safetensors", name)
    assert taken("model.safetensors", name, exclude=("[!m]*",)) == ["model.safetensors"]


def test_a_file_that_is_a_folder_too_is_refused() -> None:
    with pytest.raises(Refused, match=r'"config\.json"'):
        taken("model.safetensors", "config.json", "config.json/x.json")


def test_dot_files_are_never_taken() -> None:
    assert left_out("model.safetensors", ".metadata", "sub/.hidden/x.json", ".env") == {
        ".metadata",
        "sub/.hidden/x.json",
        ".env",
    }


@given(st.lists(st.sampled_from(["a", "..", ".", "", "b.json", "\\", "\0", "é"]), min_size=1, max_size=4))
def test_a_relative_path_stays_below_its_folder(names: list[str]) -> None:
    path = "/".join(names)
    assert is_relative(path) is not any(name in ("..", ".", "", "\\", "\0") for name in names)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("model.safetensors", Kind.SAFETENSORS),
        ("a/b.GGUF", Kind.GGUF),
        ("tokenizer.model", Kind.TEXT),
        ("tokenizer.model.v3", Kind.TEXT),
        ("tiktoken.model", Kind.TEXT),
        ("sentencepiece.bpe.model", Kind.TEXT),
        ("qwen.tiktoken", Kind.TEXT),
        ("word2vec.model", Kind.UNKNOWN),
        ("LICENSE", Kind.TEXT),
        ("LICENSE-MIT", Kind.TEXT),
        ("Llama 3 Community License Agreement", Kind.TEXT),
        ("LICENSE.py", Kind.CODE),
        ("license.dat", Kind.UNKNOWN),
        ("Notice", Kind.TEXT),
        ("pytorch_model.bin", Kind.PICKLE),
        ("custom.SO", Kind.CODE),
        ("README", Kind.TEXT),
        ("a.out", Kind.UNKNOWN),
        ("weights", Kind.UNKNOWN),
    ],
)
def test_kinds_by_name(path: str, kind: Kind) -> None:
    assert kind_of(path) is kind
