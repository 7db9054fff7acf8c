"""A lease in the study's Optuna database that keeps a second driver, on any machine, from running the study."""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Self

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError, SQLAlchemyError

from kdsearch.campaign.storage import connect_options, storage_errors
from kdsearch.errors import SearchError
from kdsearch.files.digests import digest

LASTS_S = 60.0
"""A lease that was not renewed for this long may be taken."""
RENEWED_EVERY_S = 10.0
PROCESSES = Path("/proc")

TABLE = sa.Table(
    "kdsearch_drivers",
    sa.MetaData(),
    sa.Column("study", sa.String(200), primary_key=True),
    sa.Column("holder", sa.String(40), nullable=False),
    sa.Column("host", sa.String(200), nullable=False),
    sa.Column("process", sa.Integer, nullable=False),
    sa.Column("beats", sa.Integer, nullable=False),
    sa.Column("renewed", sa.DateTime(timezone=True), nullable=False),
)
"""One row per running study; ``renewed`` uses the database's clock."""

logger = logging.getLogger(__name__)


class Lease:
    """One driver's hold on a study: a context manager that renews the lease from a background thread."""

    def __init__(
        self,
        url: str,
        study: str,
        *,
        lasts_s: float = LASTS_S,
        renewed_every_s: float = RENEWED_EVERY_S,
        processes: Path = PROCESSES,
    ) -> None:
        """``processes`` is the folder in which Linux lists processes."""
        self._url, self._study = url, study
        self._lasts_s, self._renewed_every_s = lasts_s, renewed_every_s
        self._holder = f"{_machine()}-{_born(os.getpid(), processes)}-{uuid.uuid4().hex[:8]}"
        self._processes = processes
        self._taken_by = ""
        self._renewed_at = time.time()
        self._done = threading.Event()
        self._renewing = threading.Thread(target=self._keep_renewing, daemon=True, name="kdsearch lease")

    def __enter__(self) -> Self:
        with storage_errors(self._study):
            self._engine = sa.create_engine(self._url, poolclass=sa.NullPool, connect_args=connect_options(self._url))
            _make_table(self._engine)
            other = self._take()
        if other:
            raise SearchError(f"the study is being run already, by {other}")
        self._renewing.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._renewing.join(timeout=RENEWED_EVERY_S)
        try:
            with self._engine.begin() as connection:
                connection.execute(sa.delete(TABLE).where(*self._ours()))
        except SQLAlchemyError as error:
            logger.warning("could not release the study's lease, which expires by itself: %s", error)

    def check(self) -> None:
        """Raises SearchError if another driver has taken over, which can happen after this machine slept.

        If the lease was not renewed for a while, renews it now; raises SQLAlchemyError if the database is unreachable.
        """
        if time.time() - self._renewed_at > self._lasts_s / 2:
            self._renew()
        if self._taken_by:
            raise SearchError(f"the study was taken over by {self._taken_by}; this driver stops")

    def _take(self) -> str:
        """Takes the lease and returns an empty string, or returns who holds it."""
        mine = {"holder": self._holder, "host": socket.gethostname(), "process": os.getpid(), "beats": 0}
        try:
            with self._engine.begin() as connection:
                connection.execute(
                    sa.insert(TABLE).values(study=self._study, renewed=sa.func.current_timestamp(), **mine)
                )
        except IntegrityError:
            with self._engine.begin() as connection:
                row = connection.execute(self._select()).one_or_none()
                if row is None:
                    return "a driver that has just ended; try again"
                if self._holds(row):
                    here = row.holder.startswith(f"{_machine()}-") and row.host == socket.gethostname()
                    dead = "" if here else f", or wait {self._lasts_s:.0f} seconds if it has died"
                    return f"process {row.process} on {row.host}; stop that process{dead}"
                unchanged = (TABLE.c.study == self._study, TABLE.c.holder == row.holder, TABLE.c.beats == row.beats)
                values = {**mine, "renewed": sa.func.current_timestamp()}
                taken = connection.execute(sa.update(TABLE).where(*unchanged).values(values))
                return "" if taken.rowcount else "a driver that started at the same moment"
        return ""

    def _holds(self, row: sa.Row[tuple[object, ...]]) -> bool:
        """Whether the row's driver may be alive; on this machine, a dead process is detected immediately."""
        if _is_dead(row.holder, row.process, self._processes):
            return False
        age: datetime.timedelta = row.now - row.renewed
        return age.total_seconds() < self._lasts_s

    def _keep_renewing(self) -> None:
        while not self._done.wait(self._renewed_every_s):
            try:
                self._renew()
            except SQLAlchemyError as error:  # the driver's own writes report an unreachable database
                logger.debug("could not renew the lease: %s", error)
            if self._taken_by:
                return

    def _renew(self) -> None:
        with self._engine.begin() as connection:
            renewed = connection.execute(
                sa.update(TABLE)
                .where(*self._ours())
                .values(beats=TABLE.c.beats + 1, renewed=sa.func.current_timestamp())
            )
            if renewed.rowcount:
                self._renewed_at = time.time()
                return
            row = connection.execute(self._select()).one_or_none()
        self._taken_by = self._take() if row is None else f"process {row.process} on {row.host}"

    def _select(self) -> sa.Select[tuple[object, ...]]:
        now = sa.func.current_timestamp(type_=sa.DateTime(timezone=True)).label("now")
        return sa.select(*TABLE.c, now).where(TABLE.c.study == self._study)

    def _ours(self) -> tuple[sa.ColumnElement[bool], ...]:
        return TABLE.c.study == self._study, TABLE.c.holder == self._holder


def _make_table(engine: sa.Engine) -> None:
    try:
        TABLE.create(engine, checkfirst=True)
    except (IntegrityError, OperationalError, ProgrammingError):  # another driver may have just created it
        if not sa.inspect(engine).has_table(TABLE.name):
            raise


def _machine() -> str:
    """Identifies this boot of this machine or container, because others may have its name."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        return digest(boot, Path("/proc/self/ns/pid").readlink().name)[:8]
    except OSError:  # macOS has no /proc, and no containers of its own
        return digest(socket.gethostname(), uuid.getnode())[:8]


def _born(process: int, processes: Path) -> str:
    """The start time of a process, which distinguishes it from a later one with its number; empty if unknown."""
    try:
        return (processes / str(process) / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _is_dead(holder: str, process: int, processes: Path) -> bool:
    """Whether the holder ran on this machine and has ended, even if another process has its number now.

    If the start time is unknown, such as for other users' processes, the holder may be alive.
    """
    machine, _, rest = holder.partition("-")
    if not rest or machine != _machine():
        return False
    try:
        with contextlib.suppress(PermissionError):  # another user's process
            os.kill(process, 0)
    except ProcessLookupError:
        return True
    then, now = rest.partition("-")[0], _born(process, processes)
    return bool(then and now) and now != then
