"""Opens Optuna databases, explains why one cannot be used, and decides whether waiting may help."""

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
"""Raised if a database is unreachable, full, or refuses a statement."""
NEVER_HEAL = (DataError, IntegrityError, ProgrammingError, NotSupportedError)
"""The statement itself is wrong, so that a retry fails too."""
HEALING_STATES = ("08", "25006", "40", "53", "55P03", "57", "58")
"""Prefixes of SQLSTATE codes for which waiting helps.

They cover connections, a standby, rollbacks, resources, locks, shutdowns and system errors. Others are mistakes, such
as an unknown table (42) or a wrong password (28).
"""
HEALING_CODES = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_NOMEM", "SQLITE_PROTOCOL")
"""Prefixes of SQLite's error names for which waiting helps."""
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
"""Parts of messages without an error code, such as those of a refused connection, for which waiting does not help."""


def is_transient(error: Exception, url: str) -> bool:
    """Whether a failed write may succeed later, when a server is back or a disk has space again.

    Depends on the exception's class and the database's error code. ``url`` is the database's.
    """
    if isinstance(error, StorageInternalError) and isinstance(error.__cause__, Exception):
        return is_transient(error.__cause__, url)
    if isinstance(error, OSError):
        unknown = error.errno is None  # such as from an object store
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


def create_parent(url: str) -> None:
    """Creates the folder of a database file; raises OSError if it cannot."""
    path = sqlite_file(url)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)


def connect_options(url: str) -> dict[str, int]:
    """Connection settings that detect a lost PostgreSQL connection within seconds."""
    return {"connect_timeout": 10, "tcp_user_timeout": 20_000} if url.startswith("postgresql") else {}


def open_storage(url: str) -> RDBStorage:
    """Opens the Optuna database at the URL; use it within ``explained``, which converts its errors."""
    create_parent(url)
    return RDBStorage(url, engine_kwargs={"pool_pre_ping": True, "connect_args": connect_options(url)})


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Keeps Optuna from logging each study that is created or opened."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


@contextlib.contextmanager
def storage_errors(study: str) -> Iterator[None]:
    """Converts errors of an Optuna database to SearchError."""
    try:
        yield
    except ImportError as error:
        raise SearchError(
            f"study {study}: cannot open its Optuna database: {error}; for PostgreSQL, write "
            "postgresql+psycopg://HOST/DATABASE and install kdsearch[postgres]"
        ) from error
    except (SQLAlchemyError, StorageInternalError, OSError) as error:
        raise SearchError(f"study {study}: cannot open its Optuna database: {first_line(error)}") from error
