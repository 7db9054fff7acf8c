"""Files that are written whole or not at all, on this machine or wherever fsspec can write."""

from __future__ import annotations

import os
import uuid

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

PARTIAL = "partial"


def write_whole(url: str, content: bytes) -> None:
    """Puts the content beside its place and moves it there; what lay there stays until then. Raises OSError."""
    filesystem, path = url_to_fs(url)
    filesystem.makedirs(filesystem._parent(path), exist_ok=True)  # noqa: SLF001 - fsspec has no public name for it
    beside = f"{path}.{uuid.uuid4().hex[:8]}.{PARTIAL}"
    try:
        with filesystem.open(beside, "wb") as file:
            file.write(content)
            if isinstance(filesystem, LocalFileSystem):
                file.flush()
                os.fsync(file.fileno())
        if isinstance(filesystem, LocalFileSystem):
            os.replace(beside, path)  # noqa: PTH105 - a path as fsspec has it; its own move may copy
        else:
            filesystem.mv(beside, path)
    except OSError:
        _remove(filesystem, beside)
        raise


def read_whole(url: str) -> bytes | None:
    """The content; None where there is none."""
    filesystem, path = url_to_fs(url)
    try:
        return bytes(filesystem.cat_file(path))
    except FileNotFoundError:
        return None


def remove(url: str) -> None:
    """Removes the file and what a killed writer left beside it, where there is any."""
    filesystem, path = url_to_fs(url)
    for found in (path, *filesystem.glob(f"{path}.*.{PARTIAL}")):
        _remove(filesystem, found)


def names_in(url: str) -> list[str]:
    """The names of the files in a folder; none where there is no folder."""
    filesystem, path = url_to_fs(url)
    try:
        return [str(found).rpartition("/")[2] for found in filesystem.ls(path, detail=False)]
    except FileNotFoundError:
        return []


def _remove(filesystem: object, path: str) -> None:
    try:
        filesystem.rm_file(path)  # type: ignore[attr-defined]  # fsspec leaves it untyped
    except FileNotFoundError:
        return
