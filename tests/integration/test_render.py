"""`mp render`: the objects of a cluster as files. No cluster is asked; a real registry tells the digests."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.clients.oci.repositories import Repositories
from pipeline.clients.oci.repository import CONFIG
from pipeline.core.digest import digest
from pipeline.core.image import Registry
from pipeline.manifest.lock import Lock, engine_key, write_lock
from pipeline.resources.cluster.marks import fingerprint_of
from pipeline.resources.cluster.sending import images_of
from pipeline.resources.image.assembly import FINGERPRINT
from pipeline.resources.image.recipe import engine_name
from pipeline.templates import TEMPLATES
from tests.parts.packages import LAYER_TAR, Layer, put, tar
from tests.parts.project import Manifest, Project
from tests.parts.registry import RealRegistry
from tests.parts.tiny_image import PLATFORM, tiny_engine

pytestmark = pytest.mark.registry

CHECKPOINT = Path(__file__).resolve().parents[2] / "examples" / "quickstart" / "checkpoint"
MODEL = {"source": "./weights", "targets": {"prod": {"replicas": 2}, "shelf": {}}}


def manifest_of(registry: str, **models: Any) -> Manifest:
    """No such context is in any kubeconfig: whoever asks a cluster fails."""
    base = f"{tiny_engine().base}@{tiny_engine().base_digest}"
    return {
        "version": 1,
        "project": "acme",
        "defaults": {"template": "transformers", "hardware": "cpu", "registry": "main"},
        "hardware": {"cpu": {"gpus": 0}},
        "registries": {"main": {"url": registry}},
        "engines": {"transformers": {"base": base}},
        "targets": {
            "prod": {"kind": "kubernetes", "context": "nowhere", "namespace": "models", "optional": True},
            "shelf": {"kind": "registry"},
        },
        "models": models,
    }


@pytest.fixture
def project(registry: RealRegistry, tmp_path: Path) -> Project:
    shutil.copytree(CHECKPOINT, tmp_path / "weights")
    engine, where = tiny_engine(), f"{registry.host}/render-{tmp_path.name.replace('_', '-')}"
    write_lock(tmp_path / "models.lock", Lock({}, {engine_key(engine, PLATFORM): engine}))
    _push_engine(Registry("main", url=where))
    made = Project(tmp_path, tmp_path / "cache", {"NO_COLOR": "1", "KUBECONFIG": str(tmp_path / "none")})
    made.write(manifest_of(where, qwen=MODEL, other=MODEL))
    return made


def _push_engine(registry: Registry) -> None:
    """An engine that no pod is started from."""
    build = TEMPLATES["transformers"].build(tiny_engine())
    name = engine_name(build, registry)
    layer = Layer(tar(("opt/mp/serve.py", b"")), LAYER_TAR)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [digest(layer.content)]},
    }
    repository = Repositories({})(registry, name.repository)
    put(
        repository,
        [layer],
        name.tag,
        config,
        CONFIG,
        artifact_type=None,
        annotations={FINGERPRINT: build.fingerprint},
    )


def documents(file: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(file.read_text()))


def image_of(file: Path) -> str:
    (image,) = images_of(documents(file)[-1])
    return image


def test_images_are_named_by_tag_until_they_are_published_and_then_by_digest(project: Project) -> None:
    out = project.folder / "out"
    before = project.mp("render", "--out", "out", "qwen")
    assert before.code == 0, before.text
    assert "qwen/image:main: is not published" in before.err
    tagged = image_of(out / "prod" / "qwen.yaml")
    assert "@sha256:" not in tagged

    project.applied("qwen")
    after = project.mp("render", "--out", "out", "qwen")
    assert (after.code, after.out) == (0, "prod/qwen.yaml\n"), after.text
    shown = project.mp("list", "--json").json()["models"]
    (published,) = next(row["images"] for row in shown if (row["model"], row["target"]) == ("qwen", "shelf"))
    assert image_of(out / "prod" / "qwen.yaml") == published
    assert published.startswith(f"{tagged}@sha256:")


def test_file_holds_every_object_once_in_the_order_it_is_applied(project: Project) -> None:
    result = project.mp("render", "--out", "out")
    assert result.out.split() == ["prod/qwen.yaml", "prod/other.yaml"], result.text
    found = documents(project.folder / "out" / "prod" / "qwen.yaml")
    kinds = ["ServiceAccount", "ConfigMap", "Service", "PodDisruptionBudget", "Deployment"]
    assert [one["kind"] for one in found] == kinds
    assert {one["metadata"]["namespace"] for one in found} == {"models"}
    assert all(fingerprint_of(one) for one in found)


def test_second_run_touches_nothing(project: Project) -> None:
    project.mp("render", "--out", "out")
    file = project.folder / "out" / "prod" / "qwen.yaml"
    stamp = file.stat().st_mtime_ns, file.stat().st_ino
    assert project.mp("render", "--out", "out").code == 0
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == stamp


def test_file_of_a_model_that_is_gone_is_removed_and_files_of_others_stay(project: Project) -> None:
    folder = project.folder / "out" / "prod"
    project.mp("render", "--out", "out")
    (folder / "theirs.yaml").write_text("kind: Namespace\n")
    manifest = {**project.manifest, "models": {"qwen": MODEL}}
    with project.changed(manifest):
        assert project.mp("render", "--out", "out", "qwen").code == 0
        assert (folder / "other.yaml").exists()  # of one model only: others were not looked at
        result = project.mp("render", "--out", "out")
    assert "prod/other.yaml (removed)" in result.out
    assert sorted(path.name for path in folder.iterdir()) == ["qwen.yaml", "theirs.yaml"]


def test_registry_that_does_not_answer_is_named_and_the_exit_code_says_so(project: Project) -> None:
    manifest = {**project.manifest, "registries": {"main": {"url": "127.0.0.1:9/acme"}}}
    with project.changed(manifest):
        result = project.mp("render", "--out", "out")
    assert result.code == 1
    assert "127.0.0.1:9" in result.err
