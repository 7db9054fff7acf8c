"""Where a study's files lie under ``.kdsearch/`` (or ``KDSEARCH_HOME``)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from kdsearch.errors import KdsearchError


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


def home_folder(environment: Mapping[str, str]) -> Path:
    """``KDSEARCH_HOME``, or ``.kdsearch`` in the current folder."""
    return Path(environment.get("KDSEARCH_HOME") or ".kdsearch")


@contextlib.contextmanager
def using_home(home: Path) -> Iterator[None]:
    """Turns an operating-system error of kdsearch's own folder into a KdsearchError that names it."""
    try:
        yield
    except OSError as error:
        raise KdsearchError(
            f"kdsearch keeps its files in {home.absolute()}, which cannot be used: {error.strerror or error}; set "
            "KDSEARCH_HOME to a folder that can be written and has room"
        ) from error


def expanded(text: str, *, field: str) -> Path:
    """The path with ``~`` filled in; raises KdsearchError that names the field where there is no such user."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise KdsearchError(f"{field}: {text}: there is no user of that name here; write the whole path") from None


def study_folder(home: Path, name: str) -> Path:
    """Holds a study's storage and its students' weights."""
    return home / "studies" / name


def weights_path(home: Path, name: str, job: str) -> Path:
    """The weights of the student that a job made."""
    return study_folder(home, name) / "trials" / f"{job}.safetensors"


def checkpoint_folder(home: Path, name: str, configured: str | None, *, study_id: str) -> str:
    """Where trials' states lie while they run: in the study file's place for checkpoints, or in the study's folder.

    ``study_id`` keeps studies of one name apart that share a place.
    """
    place = configured if configured is not None else str(study_folder(home, name) / "checkpoints")
    if "://" not in place:
        place = str(expanded(place, field="search.checkpoint_url").absolute())
    return place.rstrip("/") if configured is None else f"{place.rstrip('/')}/{name}-{study_id[:8]}"


def storage_url(home: Path, name: str, configured: str | None) -> str:
    """The study's Optuna storage: the one the study file names, or an SQLite file in the study's folder."""
    return configured or f"sqlite:///{study_folder(home, name) / 'optuna.db'}"


def overlays_path(home: Path, name: str, job: str) -> Path:
    """The overlay sheet of the student that a job made."""
    return study_folder(home, name) / "overlays" / f"{job}.png"
