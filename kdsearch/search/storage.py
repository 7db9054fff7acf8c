"""What is particular to a storage's place: making it, waiting for it, and saying why it cannot be used."""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
from collections.abc import Iterator

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError, SQLAlchemyError, TimeoutError  # noqa: A004

from kdsearch.errors import SearchError, first_line
from kdsearch.files.databases import sqlite_file
from kdsearch.trials.record import TrialRecord, read_record

STORAGE_ERRORS = (OperationalError, InterfaceError, InternalError, TimeoutError, StorageInternalError)
"""What a storage that cannot be reached, or has no room, raises; what heals when it is back."""


NEVER_HEALS = (
    "no such table",
    "no such column",
    "readonly database",
    "permission denied",
    "password authentication failed",
    "does not exist",
    "file is not a database",
    "is malformed",
)
"""Parts of messages of databases for which it makes no sense to wait."""


def heals(error: Exception, url: str) -> bool:
    """Whether what a storage or a disk refused may be taken later, when a server is back or there is room again.

    ``url`` is the storage's.
    """
    if isinstance(error, PermissionError | NotADirectoryError | IsADirectoryError):
        return False
    if isinstance(error, OSError):
        return error.errno not in (errno.EROFS, errno.ENAMETOOLONG)
    text = f"{error} {error.__cause__ or ''}".lower()
    path = sqlite_file(url)
    if path is not None and "unable to open database file" in text:
        return path.parent.is_dir() and os.access(path.parent, os.W_OK)
    return not any(part in text for part in NEVER_HEALS)


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


def record_of(trial: FrozenTrial) -> TrialRecord:
    """Raises KdsearchError where a newer release wrote it."""
    return read_record(
        trial.number,
        trial.user_attrs,
        running=trial.state == TrialState.RUNNING,
        started=_utc(trial.datetime_start),
        ended=_utc(trial.datetime_complete),
    )


def _utc(moment: datetime.datetime | None) -> datetime.datetime | None:
    return moment.astimezone(datetime.UTC) if moment else None
