"""Which errors of a database or a disk are waited for."""

from __future__ import annotations

import sqlite3

import pytest
from optuna.exceptions import StorageInternalError
from sqlalchemy import exc

from kdsearch.campaign.storage import STORAGE_ERRORS, is_transient

POSTGRES = "postgresql+psycopg://someone@server/database"


class _Coded(Exception):  # noqa: N818 - as drivers of databases name theirs
    def __init__(self, text="text", **codes):
        super().__init__(text)
        for name, code in codes.items():
            setattr(self, name, code)


def _within(error):
    """As Optuna raises it."""
    found = StorageInternalError("An exception is raised during the commit.")
    found.__cause__ = error
    return found


def _operational(**codes):
    return exc.OperationalError("INSERT", {}, _Coded(**codes))


@pytest.mark.parametrize(
    "error",
    [
        _operational(sqlstate="57P01"),
        _operational(sqlstate="08006"),
        _operational(sqlstate="53100"),
        _operational(sqlstate="40001"),
        _operational(pgcode="57P03"),
        _operational(sqlite_errorname="SQLITE_BUSY_SNAPSHOT"),
        _operational(sqlite_errorname="SQLITE_FULL"),
        _operational(text="connection failed: Connection refused"),
        exc.TimeoutError("QueuePool limit of size 5 overflow 10 reached"),
        OSError(28, "No space left on device"),
        ConnectionRefusedError(111, "Connection refused"),
        OSError("Could not connect to the endpoint URL"),
        StorageInternalError("no cause is known"),
    ],
)
def test_transient_errors_are_retried(error):
    for one in (error, _within(error)):
        assert is_transient(one, POSTGRES)


@pytest.mark.parametrize(
    "error",
    [
        exc.DataError("INSERT", {}, _Coded("value too long for type character varying(2048)", sqlstate="22001")),
        exc.IntegrityError("INSERT", {}, _Coded("duplicate key value", sqlstate="23505")),
        exc.ProgrammingError("SELECT", {}, _Coded("relation", sqlstate="42P01")),
        _operational(sqlstate="28P01"),
        _operational(sqlstate="3D000"),
        _operational(text="une table manque", sqlstate="42P01"),
        _operational(text="FATAL:  password authentication failed for user"),
        _operational(sqlite_errorname="SQLITE_CORRUPT"),
        _operational(sqlite_errorname="SQLITE_READONLY_DIRECTORY"),
        FileNotFoundError(2, "No such file or directory"),
        PermissionError(13, "Permission denied"),
        OSError(36, "File name too long"),
        OSError(30, "Read-only file system"),
    ],
)
def test_permanent_errors_are_not_retried(error):
    for one in (error, _within(error)):
        assert not is_transient(one, POSTGRES)
        assert isinstance(one, (*STORAGE_ERRORS, OSError)), "so that it is explained and is no traceback"


def test_error_codes_match_a_real_database(tmp_path):
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    with sqlite3.connect(tmp_path / "optuna.db") as first:
        with pytest.raises(sqlite3.OperationalError, match="no such table") as missing:
            first.execute("SELECT * FROM absent")
        first.execute("CREATE TABLE there (number INTEGER)")
        first.execute("BEGIN EXCLUSIVE")
        with (
            sqlite3.connect(tmp_path / "optuna.db", timeout=0.0) as second,
            pytest.raises(sqlite3.OperationalError, match="locked") as locked,
        ):
            second.execute("INSERT INTO there VALUES (1)")
        second.close()
    first.close()
    assert not is_transient(exc.OperationalError("SELECT", {}, missing.value), url)
    assert is_transient(exc.OperationalError("INSERT", {}, locked.value), url)
