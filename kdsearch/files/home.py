"""Locations of a study's files under ``.kdsearch/`` (or ``KDSEARCH_HOME``)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from kdsearch.errors import KdsearchError


def sqlite_file(url: str) -> Path | None:
    """Returns the absolute path of an SQLite URL's file; None for databases on a server and for invalid URLs."""
    from sqlalchemy.engine import make_url  # slow to import, and reading a study file does not need it
    from sqlalchemy.exc import ArgumentError

    try:
        parts = make_url(url)
    except (ArgumentError, ValueError):
        return None
    if parts.get_backend_name() != "sqlite" or parts.database in (None, "", ":memory:"):
        return None
    name = str(parts.database)
    if name.startswith("file:"):  # SQLite's own URI form, with options after a question mark
        name = name.removeprefix("file:").partition("?")[0]
    return Path(name).absolute()


def problem_of_address(url: str) -> str:
    """Explains what is wrong with the host or port of a URL; empty if nothing is."""
    try:
        port = urlsplit(url).port
    except ValueError as error:
        return f"{str(error)[:1].lower()}{str(error)[1:]}; write HOST:PORT with a port from 1 to 65535"
    return "the port must be from 1 to 65535" if port == 0 else ""


def home_folder(environment: Mapping[str, str]) -> Path:
    """Returns ``KDSEARCH_HOME``, or ``.kdsearch`` in the current folder."""
    return Path(environment.get("KDSEARCH_HOME") or ".kdsearch")


@contextlib.contextmanager
def using_home(home: Path) -> Iterator[None]:
    """Turns an OSError about kdsearch's own folder into a KdsearchError that names it."""
    try:
        yield
    except OSError as error:
        raise KdsearchError(
            f"kdsearch keeps its files in {home.absolute()}, which cannot be used: {error.strerror or error}; set "
            "KDSEARCH_HOME to a writable folder with enough space"
        ) from error


def expanded(text: str, *, field: str) -> Path:
    """Expands ``~`` in a path; raises KdsearchError if the user does not exist."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise KdsearchError(f"{field}: {text}: this user does not exist; write the full path") from None


def study_folder(home: Path, name: str) -> Path:
    """Returns the folder with a study's Optuna database and its students' weights."""
    return home / "studies" / name


def samples_folder(home: Path, name: str) -> Path:
    """Returns the folder with a few images to try a student on; only studies of simulated images have it."""
    return study_folder(home, name) / "samples"


def weights_path(home: Path, name: str, job: str) -> Path:
    """Returns the file with the weights of a job's student."""
    return study_folder(home, name) / "trials" / f"{job}.safetensors"


def checkpoint_folder(home: Path, name: str, configured: str | None, *, study_id: str) -> str:
    """Returns the folder or URL for checkpoints of running trials; default: inside the study's folder.

    ``study_id`` separates studies with the same name that share a configured folder.
    """
    place = configured if configured is not None else str(study_folder(home, name) / "checkpoints")
    if "://" not in place:
        place = str(expanded(place, field="search.checkpoint_url").absolute())
    return place.rstrip("/") if configured is None else f"{place.rstrip('/')}/{name}-{study_id[:8]}"


def storage_url(home: Path, name: str, configured: str | None) -> str:
    """Returns the URL of the study's Optuna database; default: an SQLite file in the study's folder."""
    return configured or f"sqlite:///{study_folder(home, name) / 'optuna.db'}"


def overlays_path(home: Path, name: str, job: str) -> Path:
    """Returns the file with the overlays of a job's student."""
    return study_folder(home, name) / "overlays" / f"{job}.png"
