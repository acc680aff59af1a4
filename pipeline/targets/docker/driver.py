"""Brings containers to their desired state. An unproven container never bears the name: it is `<name>.next` until then."""

import contextlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.clients.container import Container, Mount, Wanted
from pipeline.clients.docker import DockerHost
from pipeline.clients.oci.repository import Repository
from pipeline.clients.openai import Server, wait_until_answering
from pipeline.core.change import Action, Change
from pipeline.core.digest import Json, canonical, fingerprint
from pipeline.core.errors import BackendError, Denied, Missing, StartFailed
from pipeline.core.frozen import frozen
from pipeline.core.image import Registry
from pipeline.core.mark import mark_in
from pipeline.core.model import Secret
from pipeline.core.report import Emit, Progress
from pipeline.core.resource import (
    Absent,
    Address,
    Entry,
    Locator,
    Mark,
    Observed,
    Proof,
    Resource,
    Unreadable,
    Version,
    current_of,
    fields_of,
)
from pipeline.resources.cache.store import Cache
from pipeline.targets.docker import images, labels
from pipeline.targets.docker.live import MODELS, SECRETS, can_stay, ended, endpoint_of, seen
from pipeline.targets.docker.restoring import recalled, restored
from pipeline.targets.docker.spec import DockerRecipe, DockerState
from pipeline.templates.launch import document

UID = 10001

Answer = Observed[DockerState] | Absent | Unreadable


@frozen
class _Asked:
    """A container that observe is asked about."""

    address: Address
    name: str
    wanted: bool  # False: only the inventory knows it


class DockerDriver:
    """Containers of one project and environment, on any number of Docker engines."""

    def __init__(
        self,
        connect: Callable[[str], DockerHost],
        repositories: Callable[[Registry, str], Repository],
        cache: Cache,
        owner: Mark,  # whose containers these are; the address is filled in for each
        secret: Callable[[Secret], str],
        folder: Path,  # `.mp/docker`: logs of containers that did not start
    ) -> None:
        self._connect = connect
        self._repositories = repositories
        self._cache = cache
        self._owner = owner
        self._secret = secret
        self._folder = folder
        self._hosts: dict[str, DockerHost] = {}
        self._places: dict[str, Locator] = {}  # containers of this run, and where they were found

    def observe(
        self, wanted: Sequence[Resource[DockerState]], known: Sequence[Entry]
    ) -> Mapping[Address, Answer]:
        """One list per engine; of what is ours one inspect each, because a list does not tell the limits.

        What a run that was cut off left as `<name>.next` is shown as not running: the next apply clears it away.
        """
        by_host: defaultdict[str, list[_Asked]] = defaultdict(list)
        for each in wanted:
            by_host[each.locator["host"]].append(_Asked(each.address, each.locator["name"], wanted=True))
        for entry in known:
            by_host[entry.locator["host"]].append(_Asked(entry.address, entry.locator["name"], wanted=False))
        answers: dict[Address, Answer] = {}
        for host, asked in by_host.items():
            answers |= self._look(host, asked)
        return answers

    def apply(
        self, change: Change[DockerState], inputs: Mapping[Address, Observed[Any]], emit: Emit
    ) -> Observed[DockerState] | None:
        """Update in place what an engine can, else replace; proven by a real request. Raises StartFailed, Corrupt.

        When a replacement fails, the container that was there before is started again.
        """
        if change.resource is None or change.action is Action.DELETE:
            assert change.entry is not None, "what is deleted was known"
            self._delete(change.entry)
            return None
        resource = change.resource
        host, name = self._host(resource.locator), resource.locator["name"]
        before = self._own(host, name, resource.address)
        if before is not None and can_stay(before, resource.desired):
            return self._adjust(host, before, resource, emit)
        return self._replace(host, before, resource, inputs, emit)

    def recall(
        self, resource: Resource[DockerState], inputs: Mapping[Address, Observed[Any]]
    ) -> Mapping[str, Json]:
        return recalled(resource, inputs)

    def restore(self, entry: Entry, version: Version) -> Resource[DockerState]:
        return restored(entry, version)

    def _look(self, url: str, asked: Sequence[_Asked]) -> dict[Address, Answer]:
        host = self._host({"host": url})
        try:
            ids = host.names()
            return {each.address: self._answer(host, url, ids, each) for each in asked}
        except BackendError as problem:
            return {each.address: Unreadable(problem.message, problem.hint) for each in asked}

    def _answer(self, host: DockerHost, url: str, ids: Mapping[str, str], asked: _Asked) -> Answer:
        found, left = (host.inspect(ids[n]) if n in ids else None for n in (asked.name, _next(asked.name)))
        if left is None or mark_in(left.labels) != self._mark(current_of(asked.address)):
            return seen(url, found)
        if found is None and not asked.wanted:  # what is to go must be seen, or it would be forgotten
            found = left
        answer = seen(url, found)
        if isinstance(answer, Absent):
            return answer
        return replace(answer, state=replace(answer.state, running=False))

    def _own(self, host: DockerHost, name: str, address: Address) -> Container | None:
        """The container of that name, if there is one. Raises Denied when it is somebody else's."""
        found = host.inspect(name)
        if found is not None and mark_in(found.labels) != self._mark(address):
            raise Denied(
                host.url,
                f'container "{name}" is not ours',
                "remove it by hand, or give this entry another name",
            )
        return found

    def _delete(self, entry: Entry) -> None:
        host, name = self._host(entry.locator), entry.locator["name"]
        for each in (name, _next(name)):
            container = host.inspect(each)
            if container is None:
                continue
            if dict(self._places.get(container.id, entry.locator)) != dict(entry.locator):
                continue  # it moved between two names of one engine: it is what is wanted now
            if mark_in(container.labels) == self._mark(current_of(entry.address)):
                host.stop(container.id)
                host.remove(container.id)

    def _adjust(
        self, host: DockerHost, container: Container, resource: Resource[DockerState], emit: Emit
    ) -> Observed[DockerState]:
        """Limits, restart policy, running or not, or nothing at all: the container stays and is proven."""
        desired, left = resource.desired, host.inspect(_next(resource.locator["name"]))
        if left is not None and mark_in(left.labels) == self._mark(resource.address):
            host.remove(left.id)  # by a run that was cut off: it holds the port, the GPUs
        host.limit(container.id, desired.memory_bytes, desired.cpus)
        host.restart_policy(container.id, desired.restart)
        if not container.running:
            emit(Progress(resource.address, "start"))
            host.start(container.id)
        proof = self._prove(host, container.id, resource, emit)
        return self._proven(host, resource, proof)

    def _replace(
        self,
        host: DockerHost,
        before: Container | None,
        resource: Resource[DockerState],
        inputs: Mapping[Address, Observed[Any]],
        emit: Emit,
    ) -> Observed[DockerState]:
        name = resource.locator["name"]
        wanted = self._wanted(host, resource, inputs, emit)
        secrets = self._secrets(resource.desired)
        if left := self._own(host, wanted.name, resource.address):  # by a run that was cut off
            host.remove(left.id)
        container = host.create(wanted)
        try:
            if secrets:
                host.put_secrets(container, SECRETS, secrets, UID)
            if before is not None and before.running:
                host.stop(before.id)  # its port, its GPUs and its memory are needed
            emit(Progress(resource.address, "start"))
            host.start(container)
            proof = self._prove(host, container, resource, emit)
            host.restart_policy(container, resource.desired.restart)
        except BaseException:
            self._undo(host, container, before)
            raise
        if before is not None:
            host.remove(before.id)
        host.rename(container, name)
        return self._proven(host, resource, proof)

    def _undo(self, host: DockerHost, container: str, before: Container | None) -> None:
        """Bring back what was there; a second failure must not hide the first."""
        with contextlib.suppress(BackendError):
            host.remove(container)
        with contextlib.suppress(BackendError):
            if before is not None and before.running:
                host.start(before.id)

    def _prove(self, host: DockerHost, container: str, resource: Resource[DockerState], emit: Emit) -> Proof:
        recipe = _recipe(resource.desired)
        there = host.inspect(container)
        endpoint = None if there is None else endpoint_of(resource.locator["host"], there)
        server = Server(
            system=resource.address,
            endpoint=endpoint or "http://127.0.0.1:9",  # it ended at once: nothing listens
            served_name=recipe.launch.served_name,
            api_key=None if recipe.api_key is None else self._secret(recipe.api_key),
            alive=lambda: ended(host.inspect(container)),
            log=lambda: self._log(host, container, resource),
        )

        def on_wait() -> None:
            emit(Progress(resource.address, "start"))

        try:
            return wait_until_answering(server, recipe.questions, recipe.launch.start_timeout_s, on_wait)
        except StartFailed as problem:
            problem.hint = problem.hint or f"the whole log: {self._log_file(resource)}"
            raise

    def _wanted(
        self,
        host: DockerHost,
        resource: Resource[DockerState],
        inputs: Mapping[Address, Observed[Any]],
        emit: Emit,
    ) -> Wanted:
        """The container to create; its image and its weights are on the host when this returns."""
        state, recipe = resource.desired, _recipe(resource.desired)
        image = self._bring_image(host, resource.address, recipe, inputs, emit)
        mounts: tuple[Mount, ...] = ()
        if state.weights == "mount":
            emit(Progress(resource.address, "verify"))
            mounts = (Mount(str(self._cache.view(recipe.files, recipe.overlays)), MODELS, read_only=True),)
        files = {variable: f"{SECRETS}/{variable}" for variable in recipe.secrets}
        launch = document(recipe.launch, model=MODELS, host="0.0.0.0", port=recipe.launch.port, secrets=files)
        return Wanted(
            name=_next(resource.locator["name"]),
            image=image,
            command=state.command,
            environ={"MP_LAUNCH": canonical(launch).decode()},
            labels=labels.labels_of(
                self._mark(resource.address), fingerprint(fields_of(state)), dict(recipe.launch.secrets)
            ),
            mounts=mounts,
            gpus=state.gpus,
            cpus=state.cpus,
            memory_bytes=state.memory_bytes,
            shm_bytes=state.shm_bytes,
            container_port=recipe.launch.port,
            bind=state.bind,
            port=state.port if isinstance(state.port, int) else None,
            user=f"{UID}:{UID}",
        )

    def _bring_image(
        self,
        host: DockerHost,
        address: Address,
        recipe: DockerRecipe,
        inputs: Mapping[Address, Observed[Any]],
        emit: Emit,
    ) -> str:
        """The image on the host, by digest from a registry, by an archive from a layout; what to call it."""
        image = recipe.image
        if image.registry.layout is not None:
            repository = self._repositories(image.registry, image.repository)
            return images.load(host, address, image, repository, emit)
        digest = inputs[recipe.image_address].digest if recipe.image_address in inputs else None
        return images.pull(host, address, image, digest or recipe.digest, emit)

    def _secrets(self, state: DockerState) -> dict[str, str]:
        return {variable: self._secret(secret) for variable, secret in _recipe(state).secrets.items()}

    def _proven(
        self, host: DockerHost, resource: Resource[DockerState], proof: Proof
    ) -> Observed[DockerState]:
        name = resource.locator["name"]
        match seen(resource.locator["host"], host.inspect(name)):
            case Observed() as there:
                self._places[str(there.remote_id)] = resource.locator
                return replace(there, proof=proof)
            case Absent():
                raise Missing(host.url, f'container "{name}" is gone', "run mp apply")

    def _log(self, host: DockerHost, container: str, resource: Resource[DockerState]) -> str:
        """The container's log; kept, because the container is removed."""
        text = host.logs(container)
        file = self._log_file(resource)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return text

    def _log_file(self, resource: Resource[DockerState]) -> Path:
        return self._folder / f"{resource.locator['name']}.log"

    def _mark(self, address: Address) -> Mark:
        return replace(self._owner, address=address)

    def _host(self, locator: Locator) -> DockerHost:
        return self._hosts.setdefault(locator["host"], self._connect(locator["host"]))


def _next(name: str) -> str:
    """What a container is called until it is proven."""
    return f"{name}.next"


def _recipe(state: DockerState) -> DockerRecipe:
    assert state.recipe is not None, "a desired container knows how it is made"
    return state.recipe
