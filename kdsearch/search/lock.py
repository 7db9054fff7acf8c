"""Keeps a second driver on the same machine away from a study."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from kdsearch.errors import SearchError


@contextlib.contextmanager
def only_driver(folder: Path) -> Iterator[None]:
    """Holds the study's lock, which goes with the process; raises SearchError where another driver has it."""
    holder = folder / "driver.txt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "driver.lock")
        lock.acquire(timeout=0)
        holder.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
    except Timeout:
        raise SearchError(f"the study is being run already, by {holder.read_text(encoding='utf-8')}") from None
    except PermissionError as error:
        raise SearchError(
            f"{folder} cannot be written: {error.strerror}; name another place in KDSEARCH_HOME"
        ) from error
    try:
        yield
    finally:
        lock.release()
