"""Says what a person can do about a file that cannot be written."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from kdsearch.errors import KdsearchError


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an operating-system error while writing ``path`` into a KdsearchError that names it."""
    try:
        yield
    except OSError as error:
        raise KdsearchError(f"{path} cannot be written: {error.strerror or error}; name another place") from error
