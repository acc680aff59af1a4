"""`mp cache verify` and `import` as programs: damaged files, other tools' caches, and a cache on another disk."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.fakes.hub import FakeHub
from tests.parts.cached import FILES, WEIGHTS, ok, path_of, rot, said
from tests.parts.project import MP, Project


def test_verify_finds_rot_drops_it_and_the_next_pull_mends_it(user: Project, hub: FakeHub) -> None:
    ok(user.mp("pull", "acme/tiny", "acme/twin"))
    assert ok(user.mp("cache", "verify")).out.endswith("0 damaged, 2 sound.\n")
    rot(path_of(user, "acme/tiny") / "model.safetensors")

    found = said(user.mp("cache", "verify", "--json"), "verified")["damage"]
    result = user.mp("cache", "verify")

    assert [(each["source"], each["path"], each["problem"]) for each in found] == [
        ("hf://acme/tiny", "model.safetensors", "wrong"),
        ("hf://acme/twin", "model.safetensors", "wrong"),
    ]
    assert result.code == 1 and "2 damaged, 0 sound." in result.out
    assert "damaged" in ok(user.mp("cache", "list")).out
    ok(user.mp("pull", "acme/tiny", "acme/twin"))
    ok(user.mp("cache", "verify"))


def test_import_takes_over_the_cache_of_the_hubs_own_client(user: Project, hub: FakeHub) -> None:
    snapshot = "from huggingface_hub import snapshot_download; snapshot_download('acme/tiny')"
    environ = {**os.environ, **user.environ, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    subprocess.run([str(MP.with_name("python")), "-c", snapshot], env=environ, check=True, timeout=120)
    hub.log.clear()

    dry = ok(user.mp("cache", "import", "--dry-run"))
    assert "to copy" in dry.out and not user.cache.exists()
    found = said(ok(user.mp("cache", "import", "--json")), "imported")["found"]
    again = ok(user.mp("cache", "import"))
    moved = ok(user.mp("cache", "import", "--from", "huggingface", "--move"))

    assert [(each["source"], each["versions"]) for each in found] == [("hf://acme/tiny", ["main"])]
    assert found[0]["entry"] is not None and "here already" in again.out and "1 moved" in moved.out
    assert (path_of(user, "tiny") / "model.safetensors").read_bytes() == WEIGHTS
    assert list(Path(user.environ["HF_HOME"], "hub").glob("models--*")) == []
    assert hub.log == []
    ok(user.mp("cache", "verify"))


def test_import_of_another_folder_guesses_no_version(user: Project, tmp_path: Path) -> None:
    model = tmp_path / "lab" / "models" / "instructlab" / "granite-7b-lab"
    model.mkdir(parents=True)
    for name, content in FILES.items():
        (model / name).write_bytes(content)

    ok(user.mp("cache", "import", str(tmp_path / "lab"), "--from", "instructlab"))

    row = ok(user.mp("cache", "list", "granite-7b-lab")).out.splitlines()[1].split()
    assert row[:2] == ["hf://instructlab/granite-7b-lab", "n/a"]
    assert user.mp("cache", "import", str(tmp_path / "nowhere")).code == 1


@pytest.fixture
def moved(user: Project, hub: FakeHub, tmp_path: Path) -> Project:
    """The same cache on another disk: every file as it was, every inode another."""
    assert user.mp("pull", "acme/tiny").code == 0
    subprocess.run(["cp", "-a", str(user.cache), str(tmp_path / "moved")], check=True)
    hub.log.clear()
    return Project(user.folder, tmp_path / "moved", user.environ)


def test_a_copied_cache_is_pulled_from_without_a_network(moved: Project, hub: FakeHub) -> None:
    assert moved.mp("cache", "list", "--json").json()["entries"][0]["complete"] is False
    result = moved.mp("--offline", "pull", "acme/tiny")
    assert result.code == 0, result.text
    assert moved.mp("cache", "list", "--json").json()["entries"][0]["complete"] is True
    assert not hub.asked()


def test_verify_remembers_how_a_copied_cache_looks(moved: Project, hub: FakeHub) -> None:
    (before,) = moved.mp("cache", "list", "--json").json()["entries"]
    assert moved.mp("cache", "verify").code == 0
    (entry,) = moved.mp("cache", "list", "--json").json()["entries"]
    assert entry["complete"] is True
    assert {name: entry[name] for name in ("versions", "pin", "fetched_at", "size_bytes")} == {
        name: before[name] for name in ("versions", "pin", "fetched_at", "size_bytes")
    }
    assert moved.mp("--offline", "pull", "acme/tiny").code == 0
    assert not hub.asked()


def test_a_wrong_file_of_a_copied_cache_alone_is_fetched(moved: Project, hub: FakeHub) -> None:
    (weights,) = (moved.cache / "models").rglob("model.safetensors")
    weights.chmod(0o644)
    with weights.open("r+b") as file:
        file.write(b"wrong")
    result = moved.mp("--offline", "pull", "acme/tiny")
    assert result.code == 1
    assert '"model.safetensors"' in result.text
    assert moved.mp("pull", "acme/tiny").code == 0
    assert [request.path.split("?")[0] for request in hub.asked("/resolve/")] == [
        f"/acme/tiny/resolve/{hub.repositories['acme/tiny'].branches['main']}/model.safetensors"
    ]
    assert moved.mp("cache", "verify").code == 0
