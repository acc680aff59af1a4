"""Which files of a model are taken: globs, and what may be loaded without running code. Pure; every source uses it."""

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from pipeline.core.errors import Missing, Refused
from pipeline.core.protocols import SourceSpec

WEIGHTS = frozenset({".safetensors", ".gguf"})
PICKLES = frozenset(
    {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".dill"}
    | {".npy", ".npz", ".mar", ".nemo", ".h5", ".hdf5", ".keras"}
)
CODE = frozenset({".py", ".pyc", ".pyd", ".so", ".dll", ".dylib", ".exe", ".sh"})


def chosen(spec: SourceSpec, paths: Collection[str]) -> tuple[str, ...]:
    """The paths to take, sorted. Raises Refused for what runs code when it is loaded, Missing without weights.

    Dot-files are never taken. Pickled weights beside safetensors are duplicates and left out.
    """
    kept = sorted(path for path in paths if matches(spec, path))
    for path in kept:
        if suffix(path) in CODE:
            raise Refused(
                f'{spec.reference}: "{path}" is code', f'exclude it: files: {{exclude: ["*{suffix(path)}"]}}'
            )
    if any(suffix(path) in WEIGHTS for path in kept):
        return tuple(path for path in kept if suffix(path) not in PICKLES)
    if pickle := next((path for path in kept if suffix(path) in PICKLES), None):
        raise Refused(
            f'{spec.reference}: "{pickle}" may run code when it is loaded, and there is no safetensors or GGUF file',
            "allowing such files is not supported yet; take a version in safetensors",
        )
    raise Missing(
        spec.reference,
        "no safetensors or GGUF file is chosen",
        "check the reference, and files.include and exclude",
    )


def matches(spec: SourceSpec, path: str) -> bool:
    """Included, not excluded, no dot-file."""
    if any(part.startswith(".") for part in path.split("/")):
        return False
    return (not spec.filter.include or _any(spec.filter.include, path)) and not _any(
        spec.filter.exclude, path
    )


def suffix(path: str) -> str:
    return PurePosixPath(path).suffix.lower()


def _any(globs: Sequence[str], path: str) -> bool:
    """As huggingface_hub reads them: `*` crosses slashes, and a folder's name means all in it."""
    return any(fnmatchcase(path, f"{glob}*" if glob.endswith("/") else glob) for glob in globs)
