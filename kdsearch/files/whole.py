"""Files and folders that are written whole or not at all, on this machine or wherever fsspec can write."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout
from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from kdsearch.errors import bucket_errors

PARTIAL = "partial"
PARTIAL_FOLDER = ".partial-"
DIGITS = 8
"""Of the number in the name of a half-written file."""
LEFTOVER_S = 24 * 3600.0
"""Nothing is written for longer."""

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
    beside = f"{path}.{uuid.uuid4().hex[:DIGITS]}.{PARTIAL}"
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

    Its content is on the disk before it does, so that a power cut leaves all of it or nothing. Raises OSError where the
    folder exists and is not empty, unless it is to be replaced.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.parent / f"{PARTIAL_FOLDER}{uuid.uuid4().hex}"
    beside.mkdir()
    try:
        yield beside
        for path in (*beside.rglob("*"), beside):
            _sync(path)
        if replace:
            shutil.rmtree(folder, ignore_errors=True)
        beside.replace(folder)
        _sync(folder.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _sync(path: Path) -> None:
    """Waits until the file, or the list of a folder's files, is on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError) if path.is_dir() else contextlib.nullcontext():  # some disks refuse folders
            os.fsync(number)
    finally:
        os.close(number)


def remove_leftovers(folder: Path, *, now: float) -> None:
    """Removes what killed processes left in the folder: half-written files and folders, and locks that nobody holds.

    Only what is older than a day goes, and what cannot be removed stays; ``now`` is in seconds as of ``time.time``.
    """
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if _is_leftover(path.name) and now - _last_change(path) > LEFTOVER_S:
                _remove_leftover(path)


def _is_leftover(name: str) -> bool:
    parts = name.split(".")
    is_file = len(parts) > 2 and parts[-1] == PARTIAL and len(parts[-2]) == DIGITS
    is_lock = name.startswith(".") and name.endswith(".lock")
    return name.startswith(PARTIAL_FOLDER) or is_file or is_lock


def _last_change(path: Path) -> float:
    """The time of the last write to the file, or to anything in the folder."""
    inside = path.rglob("*") if path.is_dir() else ()
    return max(float(found.lstat().st_mtime) for found in (path, *inside))


def _remove_leftover(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
        return
    if path.suffix != ".lock":
        path.unlink()
        return
    with contextlib.suppress(Timeout), FileLock(path, blocking=False):
        path.unlink()


def lock_of(folder: Path) -> FileLock:
    """The lock of whoever makes that folder; makes the folder it stands in."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(folder.with_name(f".{folder.name}.lock"))
