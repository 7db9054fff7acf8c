"""What is particular to a storage's place: making it, waiting for it, and saying why it cannot be used."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    NotSupportedError,
    ProgrammingError,
    SQLAlchemyError,
    TimeoutError,  # noqa: A004
)

from kdsearch.errors import SearchError, first_line
from kdsearch.files.home import sqlite_file

STORAGE_ERRORS = (DBAPIError, TimeoutError, StorageInternalError)
"""What a database raises that cannot be reached, has no room, or refuses what it is asked."""
NEVER_HEAL = (DataError, IntegrityError, ProgrammingError, NotSupportedError)
"""What is asked is wrong, and would be wrong again."""
HEALING_STATES = ("08", "25006", "40", "53", "55P03", "57", "58")
"""Beginnings of the SQLSTATEs for which waiting helps.

They are of connections, a standby, rollbacks, resources, locks, shutdowns and the system. The others are mistakes, such
as an unknown table (42) or a refused password (28).
"""
HEALING_CODES = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_NOMEM", "SQLITE_PROTOCOL")
"""Beginnings of SQLite's names of errors for which waiting helps."""
HEALING_ERRNOS = frozenset(
    getattr(errno, name)
    for name in (
        *("EAGAIN", "EBUSY", "EDQUOT", "EHOSTDOWN", "EHOSTUNREACH", "EINTR", "EIO", "EMFILE", "ENETDOWN", "ENETRESET"),
        *("ENETUNREACH", "ENFILE", "ENOBUFS", "ENODEV", "ENOLCK", "ENOMEM", "ENOSPC", "ENXIO", "EREMOTEIO", "ESTALE"),
        *("ETIMEDOUT", "ETXTBSY"),
    )
    if hasattr(errno, name)
)
REFUSED_AT_ONCE = (
    "no such table",
    "no such column",
    "readonly database",
    "permission denied",
    "authentication failed",
    "no password supplied",
    "does not exist",
    "file is not a database",
    "is malformed",
)
"""Parts of messages that come without a code, as those of a connection that a server refuses to open."""


def heals(error: Exception, url: str) -> bool:
    """Whether what a storage or a disk refused may be taken later, when a server is back or there is room again.

    It is decided by the exception's class and the code that the database gave it. ``url`` is the storage's.
    """
    if isinstance(error, StorageInternalError) and isinstance(error.__cause__, Exception):
        return heals(error.__cause__, url)
    if isinstance(error, OSError):
        unknown = error.errno is None  # as of a store that is no file system
        return unknown or isinstance(error, ConnectionError | BlockingIOError) or error.errno in HEALING_ERRNOS
    if isinstance(error, NEVER_HEAL):
        return False
    original = getattr(error, "orig", None)
    state = getattr(original, "sqlstate", None) or getattr(original, "pgcode", None)
    if state:
        return str(state).startswith(HEALING_STATES)
    code, text = str(getattr(original, "sqlite_errorname", "")), f"{error} {error.__cause__ or ''}".lower()
    if code.startswith("SQLITE_CANTOPEN") or "unable to open database file" in text:
        path = sqlite_file(url)
        return path is None or (path.parent.is_dir() and os.access(path.parent, os.W_OK))
    if code:
        return code.startswith(HEALING_CODES)
    return not any(part in text for part in REFUSED_AT_ONCE)


def make_place(url: str) -> None:
    """Makes the folder of a database file. Raises OSError."""
    path = sqlite_file(url)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)


def patience(url: str) -> dict[str, int]:
    """Connection settings by which a PostgreSQL that is cut off is noticed within seconds."""
    return {"connect_timeout": 10, "tcp_user_timeout": 20_000} if url.startswith("postgresql") else {}


def open_storage(url: str) -> RDBStorage:
    """Optuna's storage at that URL; its errors are ``explained``'s business."""
    make_place(url)
    return RDBStorage(url, engine_kwargs={"pool_pre_ping": True, "connect_args": patience(url)})


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Keeps Optuna from telling of each study that is made or opened; afterwards it logs as before."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


@contextlib.contextmanager
def explained(study: str) -> Iterator[None]:
    """Turns what goes wrong with a storage into SearchError."""
    try:
        yield
    except ImportError as error:
        raise SearchError(
            f"study {study}: its storage cannot be opened: {error}; for PostgreSQL, write "
            "postgresql+psycopg://HOST/DATABASE and install kdsearch[postgres]"
        ) from error
    except (SQLAlchemyError, StorageInternalError, OSError) as error:
        raise SearchError(f"study {study}: its storage cannot be opened: {first_line(error)}") from error
