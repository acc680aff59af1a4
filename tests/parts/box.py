"""One project on a real Docker engine: its container is looked at and brought as the engine of mp does. Used by tests of that target."""

from pathlib import Path

import docker
from docker.models.containers import Container

from pipeline.core.change import Action, Change, FieldDiff, differences
from pipeline.core.digest import Digest
from pipeline.core.frozen import frozen
from pipeline.core.image import ImageName
from pipeline.core.model import Hardware, Model, Secret
from pipeline.core.resource import Absent, Address, Observed, Resource, State, fields_of
from pipeline.resources.cache.store import Cache
from pipeline.targets.deployment import recipe_of
from pipeline.targets.docker.driver import DockerDriver
from pipeline.targets.docker.spec import DockerOptions, DockerRecipe, DockerState, state_of
from tests.fakes import engine

ADDRESS, NEEDED = Address("tiny/docker:box"), Address("@engine/tiny:main")


@frozen
class Box:
    """A Docker engine with one project on it."""

    host: str
    name: str
    folder: Path
    image: ImageName
    digest: Digest
    driver: DockerDriver
    cache: Cache
    client: docker.DockerClient

    def model(self, contains: str | None = None, api_key: Secret | None = None, gpus: int = 0) -> Model:
        hardware = Hardware("cpu" if not gpus else "gpu", gpus)
        return engine.model(self.folder, self.cache, contains=contains, api_key=api_key, hardware=hardware)

    def wanted(
        self, *argv: str, model: Model | None = None, image: ImageName | None = None, **options: object
    ) -> Resource[DockerState]:
        model = model or self.model()
        launch = engine.launch(model, *argv)
        recipe = DockerRecipe(
            **vars(recipe_of(model, launch)), image=image or self.image, image_address=NEEDED
        )
        state = state_of(DockerOptions.model_validate({"memory": "256Mi", **options}), model, launch, recipe)
        return Resource(ADDRESS, "docker", {"host": self.host, "name": self.name}, state, needs=(NEEDED,))

    @property
    def image_name(self) -> str:
        return f"{self.image.registry.url}/{self.image.repository}:{self.image.tag}"

    def look(self, resource: Resource[DockerState]) -> Observed[DockerState] | Absent:
        answer = self.driver.observe([resource], [])[ADDRESS]
        assert isinstance(answer, Observed | Absent)
        return answer

    def diffs(self, resource: Resource[DockerState]) -> tuple[FieldDiff, ...]:
        seen = self.look(resource)
        assert isinstance(seen, Observed)
        return tuple(differences(fields_of(seen.state), fields_of(resource.desired)))

    def bring(self, resource: Resource[DockerState]) -> Observed[DockerState]:
        seen = self.look(resource)
        observed = seen if isinstance(seen, Observed) else None
        diffs = self.diffs(resource) if observed else ()
        action = Action.UPDATE if observed else Action.CREATE
        change = Change(ADDRESS, "docker", action, resource, observed, None, diffs)
        made = self.driver.apply(change, {NEEDED: Observed(State(), digest=self.digest)}, engine.ignore)
        assert made is not None
        return made

    def container(self) -> Container:
        return self.client.containers.get(self.name)

    def names(self) -> set[str]:
        return {c.name for c in self.client.containers.list(all=True, filters={"name": self.name}) if c.name}
