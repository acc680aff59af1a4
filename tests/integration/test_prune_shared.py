"""Two projects that publish equal content under one prefix share an image: no prune takes what the other one uses."""

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.clients.oci.repositories import Repositories
from pipeline.core.image import Registry
from pipeline.resources.image import reclaim, sharing
from pipeline.resources.image.reclaim import Place
from tests.integration.test_prune import Shop, manifest_of
from tests.parts.registry import RealRegistry, running_registry


@dataclass
class Pair:
    """Two projects, "a" and "b", and the place that both publish into."""

    a: Shop
    b: Shop
    place: dict[str, str]
    remote: RealRegistry | None

    def declare(self, shop: Shop, *models: str) -> None:
        name = "a" if shop is self.a else "b"
        shop.write({**manifest_of(self.place, models or ("tiny",)), "project": name})

    def is_pulled(self, tag: str, folder: Path) -> bool:
        """Every blob is read, by a program that is not ours."""
        registry = self.a.registry
        source = (
            f"docker://{registry.url}/tiny.weights:{tag}"
            if registry.url
            else f"oci:{registry.layout}/tiny.weights:{tag}"
        )
        shutil.rmtree(folder, ignore_errors=True)
        words = ["skopeo", "copy", "--src-tls-verify=false", source, f"dir:{folder}"]
        return subprocess.run(words, capture_output=True, timeout=60).returncode == 0


@pytest.fixture(params=["layout", pytest.param("registry", marks=pytest.mark.registry)])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    if request.param == "layout":
        images = str(tmp_path / "images")
        yield _pair(tmp_path, {"layout": images}, Registry("main", layout=images))
        return
    with running_registry(tmp_path / "registry") as remote:
        url = f"{remote.host}/acme"
        yield _pair(tmp_path, {"url": url}, Registry("main", url=url), remote)


def _pair(
    folder: Path, place: dict[str, str], registry: Registry, remote: RealRegistry | None = None
) -> Pair:
    shops = []
    for name in ("a", "b"):
        (folder / name).mkdir()
        shops.append(Shop(folder / name, folder / f"cache-{name}", {"COLUMNS": "200"}, registry=registry))
    made = Pair(shops[0], shops[1], place, remote)
    made.declare(made.a)
    made.declare(made.b)
    return made


REMOTE = pytest.mark.parametrize(
    "pair", [pytest.param("registry", marks=pytest.mark.registry)], indirect=True
)


def planned(shop: Shop) -> Any:
    """The one change of an image that a plan has; None when there is nothing to do."""
    result = shop.mp("plan", "--json")
    assert result.code == 0, result.text
    found = [one for one in result.json()["changes"] if one["kind"] == "image" and one["action"] != "no-op"]
    return found[0] if found else None


def is_empty(shop: Shop) -> bool:
    return shop.mp("plan", "--detailed-exitcode").code == 0


def rule_of(found: dict[str, Any], tag: str) -> str:
    (rule,) = (one["rule"] for one in found["images"] if one["tag"] == tag)
    return str(rule)


def test_the_maker_prunes_and_the_image_stays_until_the_other_project_prunes_too(
    pair: Pair, tmp_path: Path
) -> None:
    a, b = pair.a, pair.b
    shared = a.version(1)
    shutil.copytree(a.folder / "tiny", b.folder / "tiny")
    plan = planned(b)
    assert plan["action"] == "update"
    assert plan["transfer"]["push_bytes"] == 0
    text = b.mp("plan").out
    assert "shared none → with project a" in text
    assert "Transfer" not in text, "weights that nothing is made from are not fetched"
    b.applied()
    assert is_empty(b)
    assert is_empty(a)

    a.version(2)
    would = a.prune("--dry-run", "--keep", "1")
    done = a.prune("--yes", "--keep", "1")

    assert rule_of(would, shared) == rule_of(done, shared) == 'left to project "b"'
    assert done["removed"] == 0
    assert pair.is_pulled(shared, tmp_path / "pulled")
    assert is_empty(a)
    assert is_empty(b)
    assert rule_of(a.prune("--yes", "--keep", "1"), shared) == 'project "b" uses it'

    image = b.repository().head(shared)
    assert image is not None
    b.version(3)
    done = b.prune("--yes", "--keep", "1")

    assert (rule_of(done, shared), done["removed"]) == ("nothing uses it, 1 newer stay", 1)
    assert shared not in b.tags()
    assert not pair.is_pulled(shared, tmp_path / "pulled")
    assert b.repository().referrers(image[0]) == (), "marks go with it"
    assert b.repository().head(image[0]) is None


def test_the_other_project_gives_it_up_first_and_the_maker_keeps_it(pair: Pair) -> None:
    a, b = pair.a, pair.b
    shared, _ = a.version(1), b.version(1)
    b.version(2)

    done = b.prune("--yes", "--keep", "1")

    assert rule_of(done, shared) == 'left to project "a"'
    assert a.is_whole(shared), "its SBOM and provenance alone point at it again"
    assert is_empty(a)
    assert rule_of(b.prune("--yes", "--keep", "1"), shared) == 'of project "a"'
    a.version(3)
    assert a.prune("--yes", "--keep", "1")["removed"] == 1
    assert shared not in a.tags()


def test_who_left_an_image_and_wants_it_again_is_asked_before_the_last_one_prunes_it(
    pair: Pair, tmp_path: Path
) -> None:
    a, b = pair.a, pair.b
    shared, _ = a.version(1), b.version(1)
    shutil.copytree(a.folder / "tiny", a.folder / "other")
    (a.folder / "other" / "config.json").write_text("{}")
    pair.declare(a, "other")
    a.applied()
    assert rule_of(a.prune("--yes"), shared) == 'left to project "b"'

    pair.declare(a, "tiny", "other")
    plan = planned(a)
    assert plan["action"] == "update"
    assert plan["transfer"]["push_bytes"] == 0
    a.applied()
    assert is_empty(a)
    b.version(2)
    done = b.prune("--yes", "--keep", "1")

    assert rule_of(done, shared) == 'left to project "a"'
    assert pair.is_pulled(shared, tmp_path / "pulled")
    assert is_empty(a)
    pair.declare(a, "other")
    a.applied()
    assert rule_of(a.prune("--yes"), shared) == "no longer declared"
    assert shared not in a.tags()


def test_a_mark_that_comes_while_another_project_prunes_is_seen_before_the_delete(pair: Pair) -> None:
    old, kept = pair.a.version(1), pair.a.version(2)
    registry = pair.a.registry
    place = Place(registry.location, "tiny.weights")
    stock = reclaim.read(Repositories({}), registry, place)
    (removal,) = reclaim.removals([stock], stock.images)
    manifest = stock.repository.manifest(old)
    assert manifest is not None

    sharing.put(stock.repository, manifest, sharing.USED, "b")
    done = reclaim.remove(removal, "a")

    assert [one.tag for one in done.images] == [kept]
    assert pair.a.tags() == (old,)


def test_a_note_that_an_image_was_left_counts_only_from_the_project_that_made_it(
    pair: Pair, tmp_path: Path
) -> None:
    a, b = pair.a, pair.b
    shared, _ = a.version(1), b.version(1)
    image = a.repository().manifest(shared)
    assert image is not None
    sharing.put(a.repository(), image, sharing.LEFT, "somebody")
    b.version(2)

    done = b.prune("--yes", "--keep", "1")

    assert rule_of(done, shared) == 'left to project "a"'
    assert pair.is_pulled(shared, tmp_path / "pulled")


@REMOTE
def test_a_registry_that_lets_nobody_delete_keeps_the_mark_and_says_so(pair: Pair) -> None:
    assert pair.remote is not None
    shared, _ = pair.a.version(1), pair.b.version(1)
    pair.b.version(2)
    pair.remote.stop()
    pair.remote.deletes = False
    pair.remote.start()

    refused = pair.b.mp("prune", "--yes", "--keep", "1")

    assert refused.code == 1, refused.text
    assert "does not let anybody delete" in refused.out
    pair.remote.stop()
    pair.remote.deletes = True
    pair.remote.start()
    assert rule_of(pair.b.prune("--yes", "--keep", "1"), shared) == 'left to project "a"'
    assert rule_of(pair.b.prune("--yes", "--keep", "1"), shared) == 'of project "a"'


def test_a_tag_that_an_older_mp_gave_an_image_is_known_by_the_inventory(pair: Pair) -> None:
    a = pair.a
    tag = a.version(1)
    image = a.repository().manifest(tag)
    assert image is not None
    a.repository().put_manifest("v1.0", image)
    shutil.copytree(a.folder / "tiny", a.folder / "other")
    (a.folder / "other" / "config.json").write_text("{}")
    pair.declare(a, "other")
    a.applied()
    assert rule_of(a.prune("--dry-run"), tag) == 'tag "v1.0" names it'
    path = a.folder / ".mp" / "inventory" / "default" / "inventory.json"
    record = json.loads(path.read_text())
    record["entries"]["tiny/weights:main"]["applied"]["version_tag"] = "v1.0"
    path.write_text(json.dumps(record))

    assert rule_of(a.prune("--dry-run"), tag) == "no longer declared"


@REMOTE
def test_a_mark_that_was_deleted_by_its_digest_keeps_the_image_no_more(pair: Pair) -> None:
    assert pair.remote is not None
    a = pair.a
    shared, _ = a.version(1), pair.b.version(1)
    a.version(2)
    image = a.repository().head(shared)
    assert image is not None
    (mark,) = a.repository().referrers(image[0], sharing.USED)
    url = f"http://{pair.remote.host}/v2/acme/tiny.weights/manifests/{mark.digest}"
    urllib.request.urlopen(urllib.request.Request(url, method="DELETE"), timeout=60).close()

    assert rule_of(a.prune("--yes", "--keep", "1"), shared) == "nothing uses it, 1 newer stay"

    assert shared not in a.tags()


@REMOTE
def test_a_plan_asks_nothing_more_of_an_image_that_no_other_project_made(pair: Pair) -> None:
    assert pair.remote is not None
    tag = pair.a.version(1)
    manifests = "/v2/acme/tiny.weights/manifests"

    assert asked(pair.remote, pair.a) == [f"GET {manifests}/{tag}"]
    (pair.a.folder / ".mp" / "inventory" / "default" / "inventory.json").unlink()
    read, looked = asked(pair.remote, pair.a)
    assert read == f"GET {manifests}/{tag}"
    assert looked.startswith(f"HEAD {manifests}/sha256:"), "whether this project has left it: one question"
    pair.a.applied()
    assert asked(pair.remote, pair.a) == [read]


def asked(remote: RealRegistry, shop: Shop) -> list[str]:
    """What one plan asks the registry."""
    before = len(remote.requests())
    assert is_empty(shop)
    return remote.requests()[before:]
