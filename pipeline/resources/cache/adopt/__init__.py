"""Models that other programs' caches hold on this machine, and taking them over. `find` looks, `take` moves bytes; used by cli."""

from collections.abc import Mapping

from pipeline.resources.cache.adopt import huggingface, instructlab
from pipeline.resources.cache.adopt.found import Found, missing
from pipeline.resources.cache.adopt.take import take

__all__ = ["Found", "find", "missing", "take"]


def find(environ: Mapping[str, str]) -> tuple[Found, ...]:
    """What the Hugging Face cache and InstructLab's hold, where these programs would look for them. Reads no weights."""
    hub = huggingface.find(huggingface.default_folder(environ))
    return (*hub, *instructlab.find(instructlab.default_folder(environ)))
