"""Folders that are written whole or not at all, and by one process at a time."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock


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
