"""What speaks against a plan, and what is to be said of it: every question that is asked before anything moves."""

from collections.abc import Sequence
from dataclasses import replace

from pipeline.core.diagnostic import Diagnostic
from pipeline.core.plan import Plan
from pipeline.core.protocols import Remarks
from pipeline.engine.compose import Composition
from pipeline.engine.policy import breaches
from pipeline.engine.preflight import preflight
from pipeline.engine.remarks import misplaced, open_bases, unfetchable
from pipeline.engine.resolve import Pins
from pipeline.engine.room import short_of_room
from pipeline.engine.trusted import unsignable, untrusted
from pipeline.engine.wanted import Selection, built
from pipeline.engine.world import World


def judged(
    world: World,
    selection: Selection,
    pins: Pins,
    composition: Composition,
    made: Plan,
    remarks: Sequence[Diagnostic],
) -> Plan:
    """The plan with its refusals, and everything that is to be said of it; `remarks` were made on the way."""
    found = preflight(made.active, world.drivers)
    told = _of_drivers(world, composition)
    diagnostics = (
        *pins.diagnostics,
        *composition.diagnostics,
        *remarks,
        *told,
        *found.remarks,
        *found.barred,
    )
    refusals = (*made.refusals, *found.refusals)
    if not selection.destroy:
        refused, unclear = untrusted(world, pins.models)
        refusals += (*pins.refusals, *breaches(world.manifest.policy, pins.models, world.document), *refused)
        diagnostics += (
            *open_bases(pins, built(composition)),
            *misplaced(composition.resources.values(), world.platform),
            *(unfetchable(made.changes) if world.settings.offline else ()),
            *short_of_room(made.changes, world.settings.cache),
            *unclear,
            *unsignable(world, made.active),
        )
    return replace(made, refusals=refusals, barred=found.barred, diagnostics=diagnostics)


def _of_drivers(world: World, composition: Composition) -> tuple[Diagnostic, ...]:
    """What drivers say of names that they were told; kinds may share one."""
    kinds = {resource.kind for resource in composition.resources.values()}
    drivers = {id(driver): driver for kind in sorted(kinds) if (driver := world.drivers.get(kind))}
    return tuple(
        one for driver in drivers.values() if isinstance(driver, Remarks) for one in driver.remarks()
    )
