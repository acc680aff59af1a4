"""Who has fields of the objects that are wanted, and whether those are among them whose fields are to be taken. Pure."""

from collections.abc import Iterable

from pipeline.clients.kube import MANAGER
from pipeline.core.diagnostic import Diagnostic, warning
from pipeline.resources.cluster.live import Live


def managers_of(live: Live, wanted: Iterable[str]) -> frozenset[str]:
    """Field managers of wanted objects, but for mp itself and those of a part that nobody applies, such as the status."""
    return frozenset(
        str(entry.get("manager"))
        for key in wanted
        if key in live
        for entry in live[key]["metadata"].get("managedFields") or ()
        if entry.get("manager") != MANAGER and entry.get("subresource") != "status"
    )


def slips(take_from: frozenset[str], managers: Iterable[str]) -> tuple[Diagnostic, ...]:
    """A remark for every manager that has no field of any object: most likely its name is another one."""
    held = ", ".join(sorted(managers))
    hint = f"fields are managed by {held}" if held else "leave it out: mp alone has fields of them"
    return tuple(
        warning(f'--take-from {name}: "{name}" manages no field of the objects that are wanted', hint=hint)
        for name in sorted(take_from.difference(managers))
    )
