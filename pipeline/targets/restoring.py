"""The recipe of a deployment as the inventory kept it, read back. Shared by the targets that have one."""

from pipeline.core.image import Launch
from pipeline.core.model import FileEntry, Overlay
from pipeline.core.restoring import Record, questions_from, secret_from
from pipeline.targets.deployment import Recipe


def recipe_from(record: Record) -> Recipe:
    """Raises KeyError and TypeError when it was kept by another version of mp."""
    secrets = {variable: secret_from(one) for variable, one in record["secrets"].items()}
    launch = record["launch"]
    return Recipe(
        tuple(FileEntry(**one) for one in record["files"]),
        tuple(Overlay(**one) for one in record["overlays"]),
        Launch(**{**launch, "argv": tuple(launch["argv"])}),
        {variable: one for variable, one in secrets.items() if one is not None},
        secret_from(record["api_key"]),
        questions_from(record["questions"]),
    )
