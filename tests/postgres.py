"""A real PostgreSQL server on loopback, for the tests that need one."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from pathlib import Path

import sqlalchemy as sa

USER, PASSWORD = "searcher", "not-for-anyone"


class Postgres:
    """One server in a folder of its own; every connection needs the password."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._account = folder, _account()
        self.port = _free_port()
        secret = folder / "password"
        secret.write_text(PASSWORD)
        self._own(folder, secret)
        self._run("initdb", "-D", folder / "data", "-U", USER, "-A", "scram-sha-256", "--pwfile", secret, "-N")
        self.start()

    def url(self, database: str = "postgres") -> str:
        """Without the password."""
        return f"postgresql+psycopg://{USER}@127.0.0.1:{self.port}/{database}"

    def create(self, database: str) -> str:
        """Makes a database, and returns its address without the password."""
        known = {"isolation_level": "AUTOCOMMIT", "poolclass": sa.NullPool, "connect_args": {"password": PASSWORD}}
        with sa.create_engine(self.url(), **known).connect() as connection:
            connection.execute(sa.text(f"CREATE DATABASE {database}"))
        return self.url(database)

    def start(self) -> None:
        options = f"-p {self.port} -k {self._folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._run("pg_ctl", "-D", self._folder / "data", "-w", "-l", self._folder / "log", "-o", options, "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", self._folder / "data", "-w", "-m", "immediate", "stop")

    def _own(self, *paths: Path) -> None:
        if self._account:
            for path in paths:
                shutil.chown(path, self._account)

    def _run(self, *words: object) -> None:
        subprocess.run(
            [str(word) for word in words], check=True, stdout=subprocess.DEVNULL, user=self._account, cwd="/"
        )


def _account() -> str | None:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in names)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
