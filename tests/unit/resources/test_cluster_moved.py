"""Images whose registry moved: what runs is as wanted, for as long as nothing else is to change."""

import copy
import json
from typing import Any

from pipeline.core.digest import Digest
from pipeline.core.image import Registry
from pipeline.core.resource import Absent, Address, Observed
from pipeline.engine.moving import settled
from pipeline.resources.cluster.moved import moved
from pipeline.resources.cluster.sending import written
from pipeline.resources.cluster.shape import shaped
from pipeline.resources.cluster.state import ClusterState
from tests.parts.deployments import a_model, deployment

OLD, NEW = (Registry("main", url=f"{host}/acme") for host in ("old.example", "new.example/models"))
SAME, OTHER = Digest(f"sha256:{'a' * 64}"), Digest(f"sha256:{'b' * 64}")
KEY, IMAGE = "Deployment/qwen", Address("qwen/image:main")


def live(**options: Any) -> dict[str, dict[str, Any]]:
    """What runs from the old registry."""
    made = deployment(registry=OLD, **options).desired
    assert made.recipe is not None
    digests = {name: str(SAME) for name in made.recipe.images}
    return {
        key: json.loads(json.dumps(written(copy.deepcopy(dict(one)), digests)))
        for key, one in made.objects.items()
        if isinstance(one, dict)
    }


def compared(found: dict[str, dict[str, Any]], **options: Any) -> tuple[bool, dict[Address, Digest]]:
    """Whether it is as wanted from the new registry, and what runs under another name."""
    wanted = deployment(registry=NEW, **options).desired
    assert wanted.recipe is not None
    seen, runs = moved({KEY: found[KEY]}, {KEY: wanted.objects[KEY]}, wanted.recipe.images)
    return shaped(seen[KEY], dict(wanted.objects[KEY])) == wanted.objects[KEY], runs  # type: ignore[arg-type]


def test_other_registry_alone_is_no_difference() -> None:
    assert compared(live()) == (True, {IMAGE: SAME})


def test_images_of_a_volume_and_of_a_container_are_told_apart() -> None:
    same, runs = compared(live(weights="volume"), weights="volume")
    assert same
    assert len(runs) == 2


def test_with_another_change_the_new_name_is_one_too() -> None:
    assert compared(live(), memory="3Gi") == (False, {})


def test_other_content_is_another_image() -> None:
    assert compared(live(), model=a_model(hardware=a_model("vllm").hardware, template="vllm")) == (False, {})


def test_image_without_a_digest_is_not_known_to_be_the_same() -> None:
    found = live()
    container = found[KEY]["spec"]["template"]["spec"]["containers"][0]
    container["image"] = container["image"].partition("@")[0]
    assert compared(found) == (False, {})


def test_answer_depends_on_the_digest_in_the_new_registry() -> None:
    state = ClusterState({})
    otherwise = Observed(state, note="moves")
    seen = Observed(state, runs={IMAGE: SAME}, otherwise=otherwise)
    where = Address("qwen/kubernetes:prod")

    def after(image: Any) -> Any:  # Any: an Answer
        return settled({where: seen, IMAGE: image})[where]

    assert after(Observed(state, digest=SAME)) is seen
    assert after(Observed(state, digest=OTHER)) is otherwise
    assert after(Absent()) is otherwise
