"""Atomic writes of files and folders, on this machine or wherever fsspec can write."""

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
"""Digits of the random number in the name of a half-written file."""
LEFTOVER_S = 24 * 3600.0
"""Half-written files that are older than this are leftovers."""

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def _as_os_errors() -> Iterator[None]:
    """Turns the errors of remote stores into OSError."""
    try:
        yield
    except bucket_errors() as error:
        raise OSError(str(error)) from error


@_as_os_errors()
def atomic_write(url: str, content: bytes) -> None:
    """Writes the content to a temporary file and renames it, so that readers see all or nothing; raises OSError."""
    filesystem, path = url_to_fs(url)
    filesystem.makedirs(filesystem._parent(path), exist_ok=True)  # noqa: SLF001 - fsspec has no public name for it
    beside = f"{path}.{uuid.uuid4().hex[:DIGITS]}.{PARTIAL}"
    try:
        with _as_os_errors():
            _write(filesystem, beside, content)
            if isinstance(filesystem, LocalFileSystem):
                os.replace(beside, path)  # noqa: PTH105 - the path is fsspec's string; fsspec's own move may copy
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
    """Reads a file; returns None if it does not exist. Raises OSError."""
    filesystem, path = url_to_fs(url)
    try:
        return bytes(filesystem.cat_file(path))
    except FileNotFoundError:
        return None


@_as_os_errors()
def remove(url: str) -> None:
    """Removes the file, if it exists, and temporary files of killed writers; raises OSError."""
    filesystem, path = url_to_fs(url)
    for found in (path, *filesystem.glob(f"{path}.*.{PARTIAL}")):
        _remove(filesystem, found)


def discard(url: str) -> None:
    """Removes a file that is no longer needed; logs a warning if that fails."""
    try:
        remove(url)
    except OSError as error:
        logger.warning("%s could not be removed: %s", url, error)


@_as_os_errors()
def names_in(url: str) -> list[str]:
    """Lists the names of the files in a folder; empty if it does not exist. Raises OSError."""
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
def atomic_folder(folder: Path, *, replace: bool = False) -> Iterator[Path]:
    """Provides a temporary folder, which is renamed to ``folder`` if the block ends without an error.

    Its content is flushed to disk first, so that a power cut leaves all of it or nothing. Raises OSError if
    ``folder`` exists and is not empty, unless ``replace``.
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
    """Flushes a file, or a folder's list of files, to disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        # some file systems cannot flush folders
        with contextlib.suppress(OSError) if path.is_dir() else contextlib.nullcontext():
            os.fsync(number)
    finally:
        os.close(number)


def remove_leftovers(folder: Path, *, now: float) -> None:
    """Removes half-written files, half-written folders and free locks that killed processes left in the folder.

    Keeps everything that is less than a day old or cannot be removed; ``now`` is a time in seconds as
    from ``time.time``.
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
    """Returns the lock for writing ``folder``; creates its parent folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(folder.with_name(f".{folder.name}.lock"))
