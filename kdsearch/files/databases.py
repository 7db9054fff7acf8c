"""URLs of databases and servers: where their file is, and what is wrong with their address."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit


def sqlite_file(url: str) -> Path | None:
    """The whole path of an SQLite URL's file, whatever options the URL has; None where a server keeps the database.

    None for an URL that SQLAlchemy cannot read, too: whoever opens it says why.
    """
    from sqlalchemy.engine import make_url  # takes a moment to import, which reading a study file does without
    from sqlalchemy.exc import ArgumentError

    try:
        parts = make_url(url)
    except (ArgumentError, ValueError):
        return None
    if parts.get_backend_name() != "sqlite" or parts.database in (None, "", ":memory:"):
        return None
    name = str(parts.database)
    if name.startswith("file:"):  # SQLite's own form, whose options come after a question mark
        name = name.removeprefix("file:").partition("?")[0]
    return Path(name).absolute()


def problem_of_address(url: str) -> str:
    """What is wrong with the host or port of an URL, and what to write; empty where nothing is."""
    try:
        port = urlsplit(url).port
    except ValueError as error:
        return f"{str(error)[:1].lower()}{str(error)[1:]}; write HOST:PORT with a port from 1 to 65535"
    return "the port must be from 1 to 65535" if port == 0 else ""
