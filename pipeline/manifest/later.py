"""What models.yaml will say one day: recognised, and refused with its line instead of being ignored. Used by wording."""

from typing import NamedTuple


class Later(NamedTuple):
    """A part of the manifest that this version of mp does not have."""

    pattern: tuple[str, ...]  # "*" stands for any name
    values: tuple[str, ...]  # only with one of these values; empty: the key itself
    what: str


_KINDS = ("replicate", "sambastack", "sambastudio")

LATER = (
    Later(("include",), (), "models of other files"),
    Later(("policy", "max_usd_per_hour"), (), "prices"),
    Later(("policy", "max_usd_increase"), (), "prices"),
    Later(("moved",), (), "renaming without replacing"),
    Later(("max_deletes",), (), "a limit on deletes"),
    Later(("inventory", "backend"), ("git", "kubernetes", "s3"), "an inventory outside this folder"),
    Later(("hardware", "*", "usd_per_hour"), (), "prices"),
    Later(("engines", "*", "mirror"), (), "mirrors of package indexes"),
    Later(("engines", "*", "mirrors"), (), "mirrors of package indexes"),
    Later(("engines", "*", "index"), (), "mirrors of package indexes"),
    Later(("targets", "*", "kind"), _KINDS, "a kind of target"),
    Later(("targets", "*", "manage"), (), "partial management"),
    Later(("targets", "*", "owner"), (), "Replicate targets"),
    Later(("models", "*", "hardware_override"), (), "overriding the memory check"),
    Later(("models", "*", "serve", "quantization"), (), "quantized weights"),
    Later(("models", "*", "chat", "check"), (), "checks of a chat template"),
    Later(("models", "*", "targets", "*", "hardware"), (), "hardware for one target"),
    Later(("models", "*", "targets", "*", "visibility"), (), "Replicate targets"),
    Later(("models", "*", "targets", "*", "deployment"), (), "Replicate targets"),
)  # fmt: skip


def find_later(path: tuple[str | int, ...], value: object) -> Later | None:
    """The entry of the table for a place in the manifest, if it is there."""
    for later in LATER:
        here = len(later.pattern) == len(path) and all(map(_matches, later.pattern, path))
        if here and (not later.values or value in later.values):
            return later
    return None


def _matches(pattern: str, part: str | int) -> bool:
    return pattern in ("*", part)
