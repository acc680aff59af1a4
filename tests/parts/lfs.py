"""How a Hub keeps a file and tells of it: git's ids, LFS pointers, ranges of its bytes. Used by the fake Hub."""

import hashlib
from collections.abc import Iterator
from typing import TypeAlias

from tests.parts.bulk import Bulk

Content: TypeAlias = bytes | Bulk

LFS_SUFFIXES = (".safetensors", ".gguf", ".bin", ".pt", "big_config.json")


def sha256_of(content: Content) -> str:
    return content.sha256 if isinstance(content, Bulk) else hashlib.sha256(content).hexdigest()


def blocks(content: Content, start: int, end: int) -> Iterator[bytes]:
    return content.blocks(start, end) if isinstance(content, Bulk) else iter([content[start:end]])


def flipped(content: Content, at: int) -> Content:
    if isinstance(content, Bulk):
        return content.flipped(at)
    changed = bytearray(content)
    changed[at] ^= 1
    return bytes(changed)


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def pointer(content: Content) -> bytes:
    sha256 = sha256_of(content)
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(content)}\n".encode()


def stored(path: str, content: Content) -> bytes:
    """What git itself keeps of a file: a pointer in place of what LFS holds."""
    return pointer(content) if isinstance(content, Bulk) or path.endswith(LFS_SUFFIXES) else content


def sibling(path: str, content: Content) -> dict[str, object]:
    entry = tree_entry(path, content)
    found: dict[str, object] = {"rfilename": path, "size": entry["size"], "blobId": entry["oid"]}
    if path.endswith(LFS_SUFFIXES):
        found["lfs"] = {
            "sha256": sha256_of(content),
            "size": len(content),
            "pointerSize": len(pointer(content)),
        }
    return found


def tree_entry(path: str, content: Content) -> dict[str, object]:
    size_bytes, oid = len(content), git_sha1(stored(path, content))
    entry: dict[str, object] = {"type": "file", "path": path, "size": size_bytes, "oid": oid}
    if path.endswith(LFS_SUFFIXES):
        pointer_bytes = len(pointer(content))
        entry["lfs"] = {"oid": sha256_of(content), "size": size_bytes, "pointerSize": pointer_bytes}
    return entry
