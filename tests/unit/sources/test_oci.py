"""Forms of models in registries: which files each has, what is refused, and how often a layer is read."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from pipeline.clients.oci.layout import LayoutRepository
from pipeline.clients.oci.repository import FILES, INDEX, MANIFEST, ImageManifest
from pipeline.core.digest import Digest, digest
from pipeline.core.errors import Corrupt, Missing, MpError, Refused, Unreachable
from pipeline.core.model import Artifact, Filter
from pipeline.core.protocols import SourceSpec
from pipeline.sources.oci import tar
from pipeline.sources.oci.source import OciSource
from tests.parts import packages
from tests.parts.absorbing import Absorbing
from tests.parts.packages import Layer, image_layer, link, put, put_image, weight

SPEC = SourceSpec("oci://registry.test/acme/tiny", "v1")
CONFIG = b'{"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2}'
WEIGHTS = hashlib.shake_256(b"weights").digest(300_000)
TINY = {"config.json": CONFIG, "model.safetensors": WEIGHTS}
GGUF = b"GGUF" + WEIGHTS


class Watched(LayoutRepository):
    """A layout that counts what is read of blobs, and breaks off when told to."""

    def __init__(self, root: Path) -> None:
        super().__init__(str(root), "tiny")
        self.opened: list[tuple[Digest, int]] = []  # blob, start
        self.asked: list[str] = []  # manifests
        self.read_bytes = 0
        self.break_after_bytes: int | None = None  # of one opening
        self.breaks = 0  # how often

    def manifest(self, reference: str) -> ImageManifest | None:
        self.asked.append(reference)
        return super().manifest(reference)

    def head(self, reference: str) -> tuple[Digest, int] | None:
        self.asked.append(f"head {reference}")
        return super().head(reference)

    @contextmanager
    def open_blob(self, digest: Digest, start: int = 0) -> Iterator[BinaryIO]:
        self.opened.append((digest, start))
        with super().open_blob(digest, start) as stream:
            yield cast(BinaryIO, _Counted(stream, self))


@dataclass
class _Counted:
    stream: BinaryIO
    watched: Watched
    count: int = 0

    def read(self, size: int) -> bytes:
        limit = self.watched.break_after_bytes
        if limit is not None and self.watched.breaks:
            if self.count >= limit:
                self.watched.breaks -= 1
                raise Unreachable("registry", "the connection broke")
            size = min(size, limit - self.count)
        block = self.stream.read(size)
        self.count += len(block)
        self.watched.read_bytes += len(block)
        return block


@dataclass
class Bench:
    root: Path
    absorbing: Absorbing = field(default_factory=Absorbing)

    def __post_init__(self) -> None:
        self.repository = Watched(self.root)
        self.source = self.anew()

    def anew(self) -> OciSource:
        """The same registry in another process."""
        return OciSource(lambda registry, name: self.repository, self.absorbing, lambda seconds: None)

    def resolve(self, spec: SourceSpec = SPEC, known: Artifact | None = None) -> Artifact:
        return self.source.resolve(spec, known)

    def contents(self, artifact: Artifact, source: OciSource | None = None) -> dict[str, bytes]:
        found = {}
        for entry in artifact.files:
            with (source or self.source).open(artifact, entry, 0) as stream:
                found[entry.path] = stream.read()
            assert hashlib.sha256(found[entry.path]).hexdigest() == entry.sha256
        return found


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def packed_tar(kind: str, *members: tuple[str, bytes], compression: str = "", **annotations: str) -> Layer:
    content = packages.tar(*members)
    content = gzip.compress(content, mtime=0) if compression == "gzip" else content
    media_type = f"application/vnd.cncf.model.{kind}.v1.tar{'+' if compression else ''}{compression}"
    return Layer(content, media_type, annotations)


@pytest.mark.parametrize(
    ("said", "known"),
    [
        ("2024-02-19T11:57:45.123+01:00", "2024-02-19T10:57:45Z"),
        ("2024-02-19T10:57:45", None),
        ("yesterday", None),
        (None, None),
    ],
)
def test_when_it_was_made_is_what_the_annotation_says(
    bench: Bench, said: str | None, known: str | None
) -> None:
    told = {"org.opencontainers.image.created": said} if said else {}
    put(bench.repository, [weight("model.safetensors", WEIGHTS)], annotations=told)
    assert bench.resolve().facts.created == known


def test_model_pack_has_weights_configs_and_documents(bench: Bench) -> None:
    put(
        bench.repository,
        [
            weight("model.safetensors", WEIGHTS),
            weight("config.json", CONFIG, "weight.config"),
            packed_tar("weight.config", ("tokenizer.json", b"{}"), compression="gzip"),
            packed_tar("doc", ("README.md", b"---\nlicense: mit\n---\n"), ("LICENSE", b"MIT")),
            packed_tar("dataset", ("train.jsonl", b"{}"), compression="zstd"),
            weight("serve.py", b"import os", "code"),
            packed_tar("code", ("train.py", b"import os"), compression="zstd"),
        ],
        config={"descriptor": {"licenses": ["Apache-2.0"]}},
    )

    artifact = bench.resolve()

    assert bench.contents(artifact) == {
        **TINY,
        "LICENSE": b"MIT",
        "README.md": b"---\nlicense: mit\n---\n",
        "tokenizer.json": b"{}",
    }
    assert artifact.facts.license == "Apache-2.0"
    assert artifact.facts.layers == 2


def test_code_comes_only_where_it_is_allowed(bench: Bench) -> None:
    config = b'{"auto_map": {"AutoModel": "model.Tiny"}}'
    code = packed_tar("code", ("model.py", b"class Tiny: ..."), ("train.py", b""), compression="gzip")
    made = put(bench.repository, [weight("model.safetensors", WEIGHTS), weight("config.json", config), code])
    sha256 = hashlib.sha256(b"class Tiny: ...").hexdigest()

    with pytest.raises(Refused, match="auto_map"):
        bench.resolve()
    allowed = replace(SPEC, version=made.digest, filter=Filter(allow=(("model.py", sha256),)))

    assert sorted(bench.contents(bench.resolve(allowed))) == ["config.json", "model.py", "model.safetensors"]


def kit_layer(kind: str, form: str, content: bytes, **annotations: str) -> Layer:
    return Layer(content, f"application/vnd.kitops.modelkit.{kind}.v1.{form}", annotations)


def put_kit(bench: Bench, kitfile: Mapping[str, object], *layers: Layer) -> None:
    put(
        bench.repository,
        layers,
        config=kitfile,
        config_type=packages.MODEL_KIT_CONFIG,
        artifact_type=packages.MODEL_KIT,
    )


def test_model_kit_has_its_model_its_parts_and_its_documents(bench: Bench) -> None:
    told = json.dumps({"name": "tokenizer.json", "size": 2, "typeflag": 0})
    put_kit(
        bench,
        {"package": {"license": "Apache-2.0"}, "model": {"path": "model.safetensors", "digest": "sha256:…"}},
        kit_layer("model", "raw", WEIGHTS, **{packages.FILEPATH: "model.safetensors"}),
        kit_layer(
            "modelpart",
            "raw+gzip",
            gzip.compress(b"{}"),
            **{packages.FILEPATH: "tokenizer.json", packages.METADATA: told},
        ),
        kit_layer(
            "modelpart", "tar", packages.tar(("config.json", CONFIG)), **{packages.FILEPATH: "config.json"}
        ),
        kit_layer("docs", "tar+gzip", gzip.compress(packages.tar(("docs/use.md", b"# Use")))),
        kit_layer("dataset", "tar", packages.tar(("data/train.csv", b"1"))),
        kit_layer("code", "tar", packages.tar(("serve.py", b"import os"))),
        kit_layer("mcpb", "raw", b"zip", **{packages.FILEPATH: "server.mcpb"}),
    )

    artifact = bench.resolve()

    assert bench.contents(artifact) == {**TINY, "docs/use.md": b"# Use", "tokenizer.json": b"{}"}
    assert artifact.facts.license == "Apache-2.0"


def test_old_model_kit_has_names_that_count_from_the_kitfiles_paths(bench: Bench) -> None:
    put_kit(
        bench,
        {
            "model": {"path": "./weights/llama", "parts": [{"path": "config.json"}]},
            "docs": [{"path": "docs/use.md"}],
        },
        kit_layer("model", "tar+gzip", gzip.compress(packages.tar(("llama/model.safetensors", WEIGHTS)))),
        kit_layer("modelpart", "tar+gzip", gzip.compress(packages.tar(("config.json", CONFIG)))),
        kit_layer("docs", "tar+gzip", gzip.compress(packages.tar(("use.md", b"# Use")))),
    )

    assert sorted(bench.contents(bench.resolve())) == [
        "config.json",
        "docs/use.md",
        "weights/llama/model.safetensors",
    ]


def ollama(kind: str, content: bytes) -> Layer:
    return Layer(content, f"application/vnd.ollama.image.{kind}")


def test_ollama_image_is_one_gguf_file_and_its_texts(bench: Bench) -> None:
    layers = [
        ollama("model", GGUF),
        ollama("template", b"{{ .Prompt }}"),
        ollama("license", b"MIT"),
        ollama("license", b"use policy"),
        ollama("params", b'{"stop": ["x"]}'),
        ollama("system", b"Be kind."),
        ollama("messages", b"[]"),
    ]
    put(
        bench.repository,
        layers,
        config_type="application/vnd.docker.container.image.v1+json",
        artifact_type=None,
    )

    assert bench.contents(bench.resolve()) == {
        "LICENSE": b"MIT",
        "LICENSE.2": b"use policy",
        "model.gguf": GGUF,
        "params": b'{"stop": ["x"]}',
        "system": b"Be kind.",
        "template": b"{{ .Prompt }}",
    }


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (ollama("model", b"PK\x03\x04 a pickle"), '"model.gguf" is not GGUF'),
        (ollama("tensor", WEIGHTS), "keeps every tensor in a layer of its own"),
    ],
)
def test_what_ollama_alone_can_read_is_refused(bench: Bench, layer: Layer, says: str) -> None:
    put(bench.repository, [layer], config_type="application/vnd.docker.container.image.v1+json")

    with pytest.raises(Refused, match=says):
        bench.resolve()


@pytest.mark.parametrize("config_type", [packages.EMPTY_CONFIG, "application/vnd.oci.image.config.v1+json"])
def test_layers_with_titles_are_files(bench: Bench, config_type: str) -> None:
    """As InstructLab publishes them, and as old ORAS did, which called files layers of an image."""
    layers = [
        Layer(GGUF, packages.LAYER_TAR, {packages.TITLE: "granite-Q4_K_M.gguf"}),
        Layer(b"<svg/>", "image/svg+xml", {packages.TITLE: "logo.svg"}),
        Layer(b"signature", "application/octet-stream"),
        Layer(
            gzip.compress(packages.tar(("docs/use.md", b"# Use"))),
            packages.LAYER_GZIP,
            {packages.TITLE: "docs", "io.deis.oras.content.unpack": "true"},
        ),
    ]
    put(bench.repository, layers, config_type=config_type, artifact_type="application/x-mlmodel")

    artifact = bench.resolve()

    assert bench.contents(artifact) == {"docs/use.md": b"# Use", "granite-Q4_K_M.gguf": GGUF}
    assert artifact.left_out_bytes == len(b"<svg/>")


def test_image_gives_what_is_below_models_and_nothing_else(bench: Bench) -> None:
    base = image_layer(
        ("bin/sh", b"#!"), link("bin/bash", "sh"), link("usr", "/"), ("etc/x", b""), compressed=True
    )
    model = image_layer(
        ("./models/model.safetensors", WEIGHTS), ("models/config.json", CONFIG), compressed=True
    )
    put_image(bench.repository, [base, model, image_layer(("modelsx/other.gguf", b""))])

    assert bench.contents(bench.resolve()) == TINY


@pytest.mark.parametrize("compressed", [False, True])
def test_upper_layers_hide_what_lies_below(bench: Bench, compressed: bool) -> None:
    folder = tarfile.TarInfo("models/now-a-folder")
    folder.type = tarfile.DIRTYPE
    lower = image_layer(
        ("models/model.safetensors", b"old"),
        ("models/gone.json", b"{}"),
        ("models/folder/gone.json", b"{}"),
        ("models/cleared/gone.json", b"{}"),
        ("models/now-a-folder", b"file"),
        ("models/now-a-file.txt/gone.json", b"{}"),
        ("models/kept.json", b"{}"),
        link("models/replaced.json", "/etc/passwd"),
        compressed=compressed,
    )
    upper = image_layer(
        ("models/.wh.gone.json", b""),
        ("models/.wh.folder", b""),
        ("models/cleared/.wh..wh..opq", b""),
        ("models/cleared/new.json", b"{}"),
        folder,
        ("models/now-a-file.txt", b"text"),
        ("models/replaced.json", b"[]"),
        compressed=compressed,
    )
    top = image_layer(("models/model.safetensors", WEIGHTS), compressed=compressed)
    put_image(bench.repository, [lower, upper, top])

    artifact = bench.resolve()

    expected = {
        "cleared/new.json": b"{}",
        "kept.json": b"{}",
        "model.safetensors": WEIGHTS,
        "now-a-file.txt": b"text",
        "replaced.json": b"[]",
    }
    assert bench.contents(artifact) == expected
    assert bench.contents(artifact, bench.anew()) == expected
    gone = replace(artifact, files=(replace(artifact.files[0], path="gone.json", size_bytes=2),))
    with pytest.raises(Missing, match=r'has no "gone.json"'):
        bench.contents(gone, bench.anew())


def test_whole_folder_may_be_hidden(bench: Bench) -> None:
    lower, upper = (
        image_layer(("models/old.gguf", GGUF)),
        image_layer((".wh.models", b""), ("models/a.gguf", GGUF)),
    )
    put_image(bench.repository, [lower, upper])

    assert [entry.path for entry in bench.resolve().files] == ["a.gguf"]


def test_index_leads_to_the_image_for_linux_on_amd64(bench: Bench) -> None:
    other = put_image(bench.repository, [image_layer(("models/arm.gguf", GGUF))], "arm")
    mine = put_image(bench.repository, [image_layer(("models/amd.gguf", GGUF))], "amd")
    put_index(bench, ("arm64", other), ("amd64", mine), ("unknown", other))

    artifact = bench.resolve()

    assert [entry.path for entry in artifact.files] == ["amd.gguf"]
    head = bench.repository.head("v1")
    assert head is not None
    assert artifact.pin == head[0].replace(":", "-")
    assert sorted(bench.contents(artifact, bench.anew())) == ["amd.gguf"]


def test_index_with_one_image_is_that_image(bench: Bench) -> None:
    put_index(bench, ("arm64", put_image(bench.repository, [image_layer(("models/arm.gguf", GGUF))], "arm")))

    assert [entry.path for entry in bench.resolve().files] == ["arm.gguf"]


def test_index_without_a_clear_choice_is_refused_with_the_digests(bench: Bench) -> None:
    one = put_image(bench.repository, [image_layer(("models/a.gguf", GGUF))], "one")
    two = put_image(bench.repository, [image_layer(("models/b.gguf", GGUF))], "two")
    put_index(bench, ("arm64", one), ("riscv64", two))

    with pytest.raises(Refused) as refused:
        bench.resolve()

    assert one.digest in str(refused.value.hint)


def put_index(bench: Bench, *images: tuple[str, ImageManifest]) -> None:
    listed = [
        {
            "mediaType": image.media_type,
            "digest": image.digest,
            "size": len(image.body),
            "platform": {"os": "unknown" if machine == "unknown" else "linux", "architecture": machine},
        }
        for machine, image in images
    ]
    body = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}).encode()
    bench.repository.put_manifest("v1", ImageManifest(body, INDEX))


HOSTILE = [
    "../evil.json",
    "/etc/evil.json",
    "a/../../evil.json",
    "a//evil.json",
    "back\\evil.json",
    "c:evil.json",
]


@pytest.mark.parametrize("name", [*HOSTILE, "a\nb.json"])
@pytest.mark.parametrize("pack", [lambda n: weight(n, b"{}"), lambda n: packed_tar("doc", (n, b"{}"))])
def test_names_that_leave_their_folder_are_refused_by_name(
    bench: Bench, name: str, pack: Callable[[str], Layer]
) -> None:
    put(bench.repository, [weight("model.safetensors", WEIGHTS), pack(name)])

    with pytest.raises(Refused, match="leave their folder") as refused:
        bench.resolve()

    assert repr(name) in refused.value.message


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    "name", ["models/../evil.json", "/models/evil.json", "models/a\\evil.json", "../evil"]
)
def test_images_have_no_such_names_either(bench: Bench, name: str, compressed: bool) -> None:
    put_image(bench.repository, [image_layer(("models/a.gguf", GGUF), (name, b"{}"), compressed=compressed)])

    with pytest.raises(Refused, match="leave their folder"):
        bench.resolve()


@pytest.mark.parametrize(
    ("member", "says"),
    [
        (link("models/weights.gguf", "/etc/passwd"), '"weights.gguf" is a symbolic link'),
        (link("models/weights.gguf", "models/a.gguf", tarfile.LNKTYPE), '"weights.gguf" is a hard link'),
        (link("models/x.json", "", tarfile.CHRTYPE), '"x.json" is a device'),
        (link("models/x.json", "", tarfile.FIFOTYPE), '"x.json" is a pipe'),
        (link("models", "/"), '"models" is a symbolic link'),
    ],
)
def test_links_and_devices_are_refused_by_name(bench: Bench, member: tarfile.TarInfo, says: str) -> None:
    put_image(bench.repository, [image_layer(("models/a.gguf", GGUF), member)])

    with pytest.raises(Refused, match=says):
        bench.resolve(replace(SPEC, filter=Filter(("*",))))


def test_a_link_that_is_excluded_does_not_matter(bench: Bench) -> None:
    put_image(bench.repository, [image_layer(("models/a.gguf", GGUF), link("models/b.gguf", "a.gguf"))])

    assert sorted(bench.contents(bench.resolve(replace(SPEC, filter=Filter(exclude=("b.gguf",)))))) == [
        "a.gguf"
    ]


def test_names_that_differ_in_case_only_are_refused_both(bench: Bench) -> None:
    put(bench.repository, [weight("a.gguf", GGUF), weight("README.md", b"1"), weight("readme.MD", b"2")])

    with pytest.raises(Refused, match=r'"README.md" and "readme.MD" differ in case only'):
        bench.resolve()


def test_one_name_twice_is_refused(bench: Bench) -> None:
    put(bench.repository, [weight("a.gguf", GGUF), weight("a.gguf", GGUF)])
    with pytest.raises(Refused, match=r'"a.gguf" is in two layers'):
        bench.resolve()

    put_image(bench.repository, [image_layer(("models/a.gguf", GGUF), ("models/a.gguf", WEIGHTS))])
    with pytest.raises(Refused, match=r'"models/a.gguf" is twice'):
        bench.resolve()


def test_a_sparse_file_is_refused(bench: Bench) -> None:
    header = tarfile.TarInfo("models/a.gguf")
    header.size = 4
    header.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "models/b.gguf",
    }
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(header, io.BytesIO(b"GGUF"))
    put(bench.repository, [Layer(out.getvalue(), "application/vnd.cncf.model.weight.v1.tar")])

    with pytest.raises(Refused, match="sparse"):
        bench.resolve()


def test_zstd_is_refused_with_the_way_out(bench: Bench) -> None:
    put(bench.repository, [packed_tar("weight", ("model.gguf", GGUF), compression="zstd")])

    with pytest.raises(Refused, match="zstd") as refused:
        bench.resolve()

    assert "gzip" in str(refused.value.hint)


def test_a_layer_that_swells_is_given_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar, "CEILING_BYTES", 2**20)
    put(bench.repository, [packed_tar("weight", ("model.gguf", bytes(2**26)), compression="gzip")])

    with pytest.raises(Refused, match="grows beyond"):
        bench.resolve()

    assert sum(size for _, size in bench.absorbing.known.values()) == 0


def test_a_layer_does_not_grow_beyond_the_size_that_is_told(bench: Bench) -> None:
    told = json.dumps({"name": "model.gguf", "size": 1000, "typeflag": ord("0")})
    annotations = {packages.METADATA: told}
    put(
        bench.repository,
        [packed_tar("weight", ("model.gguf", bytes(2**22)), compression="gzip", **annotations)],
    )

    with pytest.raises(Refused, match="grows beyond"):
        bench.resolve()


def test_a_huge_header_is_not_read(bench: Bench) -> None:
    header = tarfile.TarInfo("././@PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, 2**40
    put(
        bench.repository,
        [Layer(header.tobuf(tarfile.GNU_FORMAT) + bytes(1024), "application/vnd.cncf.model.weight.v1.tar")],
    )

    with pytest.raises(Refused, match="a header of"):
        bench.resolve()


@pytest.mark.parametrize("damage", [lambda body: body[: len(body) // 2], lambda body: b"?" + body[1:]])
@pytest.mark.parametrize("compression", ["", "gzip"])
def test_an_archive_that_is_damaged_is_no_shorter_model(
    bench: Bench, damage: Callable[[bytes], bytes], compression: str
) -> None:
    whole = packed_tar(
        "weight", ("a/config.json", CONFIG), ("b/model.safetensors", WEIGHTS), compression=compression
    )
    put(bench.repository, [replace(whole, content=damage(whole.content))])

    with pytest.raises(Corrupt):
        bench.resolve()


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_and_other_letters_are_read(bench: Bench, form: int) -> None:
    name = f"{'é' * 60}/{'long' * 40}.safetensors"
    content = packages.tar((name, WEIGHTS), ("config.json", CONFIG), form=form)
    put(bench.repository, [Layer(content, "application/vnd.cncf.model.weight.v1.tar")])

    assert bench.contents(bench.resolve()) == {name: WEIGHTS, "config.json": CONFIG}


def test_a_digest_that_is_known_costs_no_request(bench: Bench) -> None:
    made = put(bench.repository, [weight(path, content) for path, content in TINY.items()])
    known = bench.resolve(replace(SPEC, version=made.digest))
    bench.repository.asked.clear()
    bench.repository.opened.clear()

    assert bench.anew().resolve(replace(SPEC, version=made.digest), known) == known

    assert (bench.repository.asked, bench.repository.opened) == ([], [])


def test_a_tag_that_is_known_costs_one_head(bench: Bench) -> None:
    put(bench.repository, [weight(path, content) for path, content in TINY.items()])
    known = bench.resolve()
    bench.repository.asked.clear()
    bench.repository.opened.clear()

    assert bench.anew().resolve(SPEC, known) == known

    assert (bench.repository.asked, bench.repository.opened) == (["head v1"], [])


def test_a_tag_that_moved_is_another_model_and_the_old_one_stays_readable(bench: Bench) -> None:
    put(bench.repository, [weight(path, content) for path, content in TINY.items()])
    before = bench.resolve()
    put(bench.repository, [weight("model.gguf", GGUF)])

    after = bench.resolve(known=before)

    assert after.pin != before.pin
    assert bench.contents(after) == {"model.gguf": GGUF}
    assert bench.contents(before, bench.anew()) == TINY


def test_no_version_is_the_tag_latest(bench: Bench) -> None:
    put(bench.repository, [weight("model.gguf", GGUF)], "latest")

    artifact = bench.resolve(replace(SPEC, version=""))

    assert (artifact.version, [entry.path for entry in artifact.files]) == ("", ["model.gguf"])


def test_a_tag_that_is_not_there_is_missing_and_the_others_are_named(bench: Bench) -> None:
    put(bench.repository, [weight("model.gguf", GGUF)], "v2")

    with pytest.raises(Missing, match="has no v1") as missing:
        bench.resolve()

    assert missing.value.hint == "it has v2"


def test_raw_layers_are_not_read_to_learn_their_hashes(bench: Bench) -> None:
    put(bench.repository, [weight(path, content) for path, content in TINY.items()])

    bench.resolve()

    assert bench.repository.read_bytes == len(CONFIG)
    assert bench.absorbing.read == []


SHARDS = {
    f"model-{number:05}-of-00040.safetensors": hashlib.shake_256(bytes([number])).digest(20_000)
    for number in range(1, 41)
} | {"config.json": CONFIG}


@pytest.mark.parametrize("compressed", [False, True])
def test_a_layer_is_read_once_for_all_of_its_files(bench: Bench, compressed: bool) -> None:
    members = [(f"models/{path}", content) for path, content in sorted(SHARDS.items())]
    layer = image_layer(*members, compressed=compressed)
    put_image(bench.repository, [layer])

    artifact = bench.resolve()

    assert len(artifact.files) == len(bench.absorbing.read) == 41
    # an archive that is not compressed lies open: where its files begin is seen first, here by reading all of it
    assert bench.repository.read_bytes <= len(layer.content) * (1 if compressed else 2) + len(CONFIG)


@pytest.mark.parametrize("compressed", [False, True])
def test_another_process_that_opens_all_files_reads_a_compressed_layer_once(
    bench: Bench, compressed: bool
) -> None:
    members = [(f"models/{path}", content) for path, content in sorted(SHARDS.items())]
    layer = image_layer(*members, compressed=compressed)
    put_image(bench.repository, [layer])
    artifact = bench.resolve()
    bench.repository.read_bytes = 0

    assert bench.contents(artifact, bench.anew()) == SHARDS

    assert bench.repository.read_bytes <= len(layer.content) * (1.1 if compressed else 3)


def test_files_of_a_compressed_layer_may_be_opened_in_any_order(bench: Bench) -> None:
    put_image(
        bench.repository, [image_layer(*((f"models/{p}", c) for p, c in SHARDS.items()), compressed=True)]
    )
    artifact = bench.resolve()
    source = bench.anew()

    for entry in reversed(artifact.files):
        with source.open(artifact, entry, 7) as stream:
            assert stream.read() == SHARDS[entry.path][7:]


def test_what_mp_wrote_down_is_not_read_to_be_hashed(bench: Bench) -> None:
    plain = image_layer(*((f"models/{path}", content) for path, content in TINY.items()))
    listing = json.dumps({path: hashlib.sha256(content).hexdigest() for path, content in TINY.items()})
    engine = image_layer(("opt/vllm", bytes(10_000)), ("models/never.gguf", GGUF), compressed=True)
    put_image(bench.repository, [engine, replace(plain, annotations={FILES: listing})])

    artifact = bench.resolve()

    assert bench.absorbing.read == []
    assert bench.contents(artifact) == TINY


def test_bytes_that_are_not_those_of_the_digest_are_no_model_and_poison_nothing(bench: Bench) -> None:
    good = image_layer(("models/a.safetensors", WEIGHTS), ("models/b.json", b"{}"), compressed=True)
    put_image(bench.repository, [good])
    wrong = image_layer(
        ("models/a.safetensors", b"!" + WEIGHTS[1:]), ("models/b.json", b"{}"), compressed=True
    )
    blob = bench.root / "tiny" / "blobs" / "sha256" / digest(good.content)[7:]
    blob.write_bytes(wrong.content[: len(good.content)].ljust(len(good.content), b"\0"))

    with pytest.raises(Corrupt):
        bench.resolve()
    blob.write_bytes(good.content)

    assert bench.contents(bench.anew().resolve(SPEC, None))["a.safetensors"] == WEIGHTS


@pytest.mark.parametrize("compressed", [False, True])
def test_a_connection_that_breaks_goes_on_where_it_broke(bench: Bench, compressed: bool) -> None:
    layer = image_layer(
        *((f"models/{path}", content) for path, content in TINY.items()), compressed=compressed
    )
    put_image(bench.repository, [layer])
    bench.repository.break_after_bytes, bench.repository.breaks = 50_000, 20

    artifact = bench.resolve()

    assert bench.contents(artifact) == TINY
    assert bench.repository.breaks < 20
    assert bench.repository.read_bytes < 4 * len(layer.content)


def test_a_registry_that_stays_away_is_unreachable(bench: Bench) -> None:
    put_image(bench.repository, [image_layer(("models/a.gguf", GGUF))])
    bench.repository.break_after_bytes, bench.repository.breaks = 0, 1000

    with pytest.raises(Unreachable):
        bench.resolve()

    assert bench.repository.breaks > 900


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"layers": [{"digest": "sha256:../../x", "size": 1, "mediaType": "x"}]}, "only sha256"),
        ({"layers": [{"digest": "sha512:" + "a" * 128, "size": 1, "mediaType": "x"}]}, "only sha256"),
        ({"layers": [{"digest": "sha256:" + "a" * 64, "mediaType": "x"}]}, "without a size|publish it again"),
        ({"layers": "x"}, "no image manifest|check the reference"),
        ({"layers": []}, "holds no model|docs/sources.md"),
    ],
)
def test_a_strange_image_manifest_is_refused(bench: Bench, change: dict[str, object], says: str) -> None:
    good = json.loads(put(bench.repository, [weight("a.gguf", GGUF)]).body)
    body = json.dumps({**good, **change}).encode()
    bench.repository.put_manifest("v1", ImageManifest(body, MANIFEST))

    with pytest.raises(MpError) as refused:
        bench.resolve()

    assert any(word in f"{refused.value.message} {refused.value.hint}" for word in says.split("|"))
