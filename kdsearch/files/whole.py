"""Files and folders that are written whole or not at all, on this machine or wherever fsspec can write."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock
from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from kdsearch.errors import bucket_errors

PARTIAL = "partial"

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def _as_os_errors() -> Iterator[None]:
    """A store that is away is one kind of error, wherever it is."""
    try:
        yield
    except bucket_errors() as error:
        raise OSError(str(error)) from error


@_as_os_errors()
def write_whole(url: str, content: bytes) -> None:
    """Puts the content beside its place and moves it there; what lay there stays until then. Raises OSError."""
    filesystem, path = url_to_fs(url)
    filesystem.makedirs(filesystem._parent(path), exist_ok=True)  # noqa: SLF001 - fsspec has no public name for it
    beside = f"{path}.{uuid.uuid4().hex[:8]}.{PARTIAL}"
    try:
        with _as_os_errors():
            _write(filesystem, beside, content)
            if isinstance(filesystem, LocalFileSystem):
                os.replace(beside, path)  # noqa: PTH105 - a path as fsspec has it; its own move may copy
            else:
                filesystem.mv(beside, path)
    except OSError:
        with contextlib.suppress(OSError), _as_os_errors():
            _remove(filesystem, beside)
        raise


def _write(filesystem: AbstractFileSystem, path: str, content: bytes) -> None:
    with filesystem.open(path, "wb") as file:
        file.write(content)
        if isinstance(filesystem, LocalFileSystem):
            file.flush()
            os.fsync(file.fileno())


@_as_os_errors()
def read_whole(url: str) -> bytes | None:
    """The content; None where there is none. Raises OSError."""
    filesystem, path = url_to_fs(url)
    try:
        return bytes(filesystem.cat_file(path))
    except FileNotFoundError:
        return None


@_as_os_errors()
def remove(url: str) -> None:
    """Removes the file and what a killed writer left beside it, where there is any. Raises OSError."""
    filesystem, path = url_to_fs(url)
    for found in (path, *filesystem.glob(f"{path}.*.{PARTIAL}")):
        _remove(filesystem, found)


def discard(url: str) -> None:
    """As ``remove``, for what nobody needs any more: where it cannot be removed, that is logged."""
    try:
        remove(url)
    except OSError as error:
        logger.warning("%s could not be removed: %s", url, error)


@_as_os_errors()
def names_in(url: str) -> list[str]:
    """The names of the files in a folder; none where there is no folder. Raises OSError."""
    filesystem, path = url_to_fs(url)
    try:
        return [str(found).rpartition("/")[2] for found in filesystem.ls(path, detail=False)]
    except FileNotFoundError:
        return []


def _remove(filesystem: AbstractFileSystem, path: str) -> None:
    try:
        filesystem.rm_file(path)
    except FileNotFoundError:
        return


@contextlib.contextmanager
def whole_folder(folder: Path, *, replace: bool = False) -> Iterator[Path]:
    """A folder beside the one wanted, which takes its place when the block ends without an error.

    Raises OSError where the folder exists and is not empty, unless it is to be replaced.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".partial-"))
    try:
        yield beside
        beside.chmod(0o777 & ~_umask())
        if replace:
            shutil.rmtree(folder, ignore_errors=True)
        beside.replace(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _umask() -> int:
    """Of this process; it can be read by setting it alone."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def lock_of(folder: Path) -> FileLock:
    """The lock of whoever makes that folder; makes the folder it stands in."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(folder.with_name(f".{folder.name}.lock"))
