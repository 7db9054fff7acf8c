"""The SQLite file of a record: made whole or not at all, and made again where its making was broken off."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from kdsearch.files.whole import PARTIAL, lock_of
from kdsearch.tracking.location import Tracking

if TYPE_CHECKING:
    from mlflow import MlflowClient

FILLED_BY_MLFLOW = {"alembic_version", "workspaces"}
"""Tables that hold rows before there is any experiment."""
SETTLED_S = 5.0
"""A file without experiments that was written to more recently may be in the making by another program."""
POLL_S = 0.5
SIDE_FILES = ("-journal", "-wal", "-shm")
"""What SQLite keeps beside a database, and would apply to another one of its name."""


def open_client(tracking: Tracking) -> MlflowClient:
    """A client of the record, whose SQLite file is made where it is missing; raises ``store_errors``.

    MLflow makes a new database in dozens of steps, which take seconds. Where one was interrupted, or where two
    processes began it at once, MLflow can never open that file again. So it is made by one process at a time, beside
    its place, and moved there whole.
    """
    from kdsearch.tracking.configure import configure_mlflow  # takes seconds to import
    from mlflow import MlflowClient

    configure_mlflow()
    file = tracking.file
    if file is not None and not is_made(file):
        with lock_of(file):
            if not _is_made_by_now(file):
                _make(file, artifacts=tracking.artifact_location())
    return MlflowClient(tracking.uri)


def is_made(file: Path) -> bool:
    """Whether the file is a record, or anything else that is not to be replaced; False where it holds nothing at all.

    MLflow adds its first experiment when all tables are made.
    """
    if not file.exists():
        return False
    try:
        with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=rw", uri=True)) as database:
            found = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            tables = {str(name) for (name,) in found} - FILLED_BY_MLFLOW
            return any(_has_rows(database, table) for table in ("experiments", *tables) if table in tables)
    except sqlite3.Error:  # locked, unreadable or no database: MLflow says which
        return True


def _has_rows(database: sqlite3.Connection, table: str) -> bool:
    name = table.replace('"', '""')
    return database.execute(f'SELECT 1 FROM "{name}" LIMIT 1').fetchone() is not None  # noqa: S608 - its own tables


def _is_made_by_now(file: Path) -> bool:
    """As ``is_made``, once nobody has written to the file for a while."""
    while not (made := is_made(file)) and time.time() - _last_written(file) < SETTLED_S:
        time.sleep(POLL_S)
    return made


def _last_written(file: Path) -> float:
    beside = [file, *(file.with_name(file.name + ending) for ending in SIDE_FILES)]
    return max((path.stat().st_mtime for path in beside if path.exists()), default=0.0)


def _make(file: Path, *, artifacts: str | None) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with tempfile.TemporaryDirectory(dir=file.parent, prefix=f".{PARTIAL}-") as folder:
        beside = Path(folder) / file.name
        store = SqlAlchemyStore(f"sqlite:///{beside}", artifacts)  # type: ignore[no-untyped-call]  # MLflow has no types here
        store.engine.dispose()
        with beside.open("rb") as made:
            os.fsync(made.fileno())
        file.unlink(missing_ok=True)  # before what lies beside it, which belongs to it
        for ending in SIDE_FILES:
            file.with_name(file.name + ending).unlink(missing_ok=True)
        beside.replace(file)
