"""What is particular to a storage's place: making it, waiting for it, and saying why it cannot be used."""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import uuid
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    NotSupportedError,
    ProgrammingError,
    SQLAlchemyError,
    TimeoutError,  # noqa: A004
)

from kdsearch.config.identity import dump_identity
from kdsearch.config.search import Objective
from kdsearch.config.study import StudyConfig
from kdsearch.data.dataset import DataSummary, read_summary
from kdsearch.errors import NotRunYetError, SearchError, first_line
from kdsearch.files.home import sqlite_file
from kdsearch.trials.record import EpochReport, TrialRecord, read_curve, read_record
from kdsearch.trials.scores import Scores, read_scores

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What a study is known by and what its trials are made from; it does not change while the study runs."""

    id: str
    """Tells the study from another of the same name."""
    teacher_id: str
    """Empty before a teacher was bound."""
    teacher: Scores | None
    """None before that."""
    teacher_curve: tuple[EpochReport, ...]
    """The teacher's epochs; empty before that."""
    data: DataSummary | None
    """None before that."""


def read_bound(stored: Mapping[str, Any]) -> Bound:
    """From the attributes of Optuna's study; raises KdsearchError if a newer release wrote them."""
    return Bound(
        id=str(stored["id"]),
        teacher_id=str(stored.get("teacher_id", "")),
        teacher=read_scores(stored["teacher"]) if "teacher" in stored else None,
        teacher_curve=read_curve(stored.get("teacher_curve", "[]")),
        data=read_summary(stored["data_summary"]) if "data_summary" in stored else None,
    )


def made_from(data: DataSummary, student_weights: str, teacher_id: str | None) -> Iterator[tuple[str, str, str]]:
    """What a study's trials are tied to: the key it is stored under, its name in messages, and what it is now."""
    yield "data", "images or their split", data.split
    if teacher_id is not None:
        yield "teacher_id", "teacher or its weights", teacher_id
    yield "unlabelled", "images of data.unlabelled", data.unlabelled_fingerprint or ""
    yield "student_weights", "file's student.weights", student_weights


def require_unchanged(known: Mapping[str, Any], made_from: Iterator[tuple[str, str, str]], *, study: str) -> None:
    """Raises SearchError if what was stored is not what trials are made from now."""
    for key, what, now in made_from:
        if known.get(key, now) != now:
            raise SearchError(
                f"study {study}: the {what} are not those its trials were made from ({known[key]}, now {now}); restore "
                "them, or give the study another name"
            )


DIRECTIONS: dict[Objective, Literal["maximize", "minimize"]] = {
    "dice": "maximize",
    "params": "minimize",
    "macs": "minimize",
    "latency_ms": "minimize",
    "empty_share": "maximize",
}
START = "start it with kdsearch run"


def open_study(study: StudyConfig, storage: RDBStorage, *, create: bool) -> optuna.Study:
    """The Optuna study of that name; raises NotRunYetError if it is not there and not to be made."""
    exists = study.name in optuna.get_all_study_names(storage)
    if exists and create and _is_blank(study, storage):
        optuna.delete_study(storage=storage, study_name=study.name)
        exists = False
    if not exists:
        if not create:
            raise NotRunYetError(f"study {study.name} has not been run yet: its storage does not hold it; {START}")
        directions = [DIRECTIONS[objective] for objective in study.search.objectives]
        made = optuna.create_study(storage=storage, study_name=study.name, directions=directions)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            made.set_metric_names(list(study.search.objectives))
        made.set_user_attr("id", uuid.uuid4().hex)
        made.set_user_attr("study", dump_identity(study))
    return optuna.load_study(storage=storage, study_name=study.name)


def _is_blank(study: StudyConfig, storage: RDBStorage) -> bool:
    """Whether the study was begun with other settings and no trial was made yet, so that nothing is lost with it."""
    known = optuna.load_study(storage=storage, study_name=study.name)
    return not known.get_trials(deepcopy=False) and known.user_attrs.get("study") != dump_identity(study)
