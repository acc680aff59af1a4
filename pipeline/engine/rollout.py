"""In which order the deployments of a target are changed: waves, and what shares a cause. Pure; `Turns` is the scheduler's."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from pipeline.core.change import Action, Change
from pipeline.core.plan import Rollout
from pipeline.core.resource import Address, owner_of, place_of

if TYPE_CHECKING:
    from pipeline.targets.rollouts import Wave, WavesSpec

CHANGING = (Action.CREATE, Action.UPDATE, Action.REPLACE, Action.ADOPT)

Place: TypeAlias = tuple[str, str | None]  # kind and name of a target


def rollouts_of(changes: Iterable[Change[Any]], targets: Mapping[str, Any]) -> tuple[Rollout, ...]:
    """One roll-out for each target that can have one and at which something is created or changed.

    `targets`: the spec of each by its name; Any, because each kind has its own.
    """
    specs = ((name, spec) for name, spec in targets.items() if hasattr(spec, "rollout"))
    rules: dict[Place, WavesSpec] = {(spec.kind, name): spec.rollout for name, spec in specs}
    found: defaultdict[Place, list[Change[Any]]] = defaultdict(list)
    for change in changes:
        place = (change.kind, place_of(change.address))
        if place in rules and change.action in CHANGING:
            found[place].append(change)
    return tuple(_rollout(place, found[place], rule) for place, rule in rules.items() if place in found)


def _rollout(place: Place, changes: Sequence[Change[Any]], rule: "WavesSpec") -> Rollout:
    """What most deployments share is tried first; otherwise the order of the manifest stays."""
    causes = {change.address: cause_of(change) for change in changes}
    shared = Counter(causes.values())
    order = sorted(causes, key=lambda address: -shared[causes[address]])
    sizes = wave_sizes(rule.waves, len(order))
    return Rollout(
        place[0], str(place[1]), tuple(_cut(order, sizes)), causes, rule.max_failures, rule.max_parallel
    )


def cause_of(change: Change[Any]) -> str:
    """The new engine of a deployment that runs another one, or one that is not known; else its own address."""
    if change.resource is None:
        return change.address
    engine, entry = change.resource.contents.engine, change.entry
    stands = change.observed is not None or (entry is not None and bool(entry.good))
    before = entry.contents.engine if entry is not None else ""
    return engine if stands and engine and engine != before else change.address


def wave_sizes(waves: "Sequence[Wave]", total: int) -> tuple[int, ...]:
    """How many deployments each wave has: parts are of `total` and rounded up; the last size is repeated."""
    sizes: list[int] = []
    while (left := total - sum(sizes)) > 0:
        wave = waves[min(len(sizes), len(waves) - 1)]
        size = wave if isinstance(wave, int) else -(-total * int(wave.removesuffix("%")) // 100)
        sizes.append(min(size, left))
    return tuple(sizes)


def _cut(order: Sequence[Address], sizes: Sequence[int]) -> Iterator[tuple[Address, ...]]:
    begin = 0
    for size in sizes:
        yield tuple(order[begin : begin + size])
        begin += size


class Turns:
    """Whose turn it is while a plan is carried out. Everything that ends, or never begins, is told by `ended`."""

    def __init__(self, rollouts: Sequence[Rollout]) -> None:
        self._rollouts = rollouts
        self._places = {
            address: (rollout, number)
            for rollout in rollouts
            for number, wave in enumerate(rollout.waves)
            for address in wave
        }
        self._left = {id(rollout): [set(wave) for wave in rollout.waves] for rollout in rollouts}
        self._failed: defaultdict[tuple[int, str], list[Address]] = defaultdict(list)

    def lane(self, change: Change[Any]) -> tuple[str, int | None]:
        """What a change shares its limit with, and the limit when a target has one of its own."""
        if change.address in self._places:
            rollout, _ = self._places[change.address]
            if rollout.max_parallel is not None:
                return f"{rollout.kind}:{rollout.target}", rollout.max_parallel
        return change.kind, None

    def has_come(self, address: Address) -> bool:
        """Every wave before its own has ended."""
        if address not in self._places:
            return True
        rollout, number = self._places[address]
        return not any(self._left[id(rollout)][:number])

    def ended(self, address: Address, *, failed: bool = False) -> Mapping[Address, str]:
        """Count one that ended; what is not to be started any more because of it, each with the reason."""
        if address not in self._places:
            return {}
        rollout, number = self._places[address]
        self._left[id(rollout)][number].discard(address)
        if not failed:
            return {}
        cause = rollout.causes[address]
        names = self._failed[id(rollout), cause]
        names.append(address)
        if len(names) < rollout.max_failures:
            return {}
        why = _reason(names)
        return {other: why for other, its in rollout.causes.items() if its == cause and other != address}


def _reason(failed: Sequence[Address]) -> str:
    deployments = "1 deployment" if len(failed) == 1 else f"{len(failed)} deployments"
    return f"{deployments} with the same engine failed ({', '.join(owner_of(address) for address in failed)})"
