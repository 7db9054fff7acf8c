"""Folders that take long to fill: made once in a run of the tests, whichever process needs them first."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from kdsearch.config.load import load_study
from kdsearch.tracking.location import Tracking, open_client
from tests.search.setups import make_materials
from tests.tiny import TINY

__all__ = ["empty_record", "tiny_home"]


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """The folder of that name as ``make`` filled it; tests read it, and copy what they change."""
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder, ready = root / name, root / f"{name}.ready"
    with FileLock(root / f"{name}.lock"):
        if not ready.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            ready.touch()
    return folder


def copy_place(source: Path, target: Path) -> Path:
    """A copy of a folder that holds ``mlflow.db``, whose artifacts are its own."""
    shutil.copytree(source, target)
    with contextlib.closing(sqlite3.connect(target / "mlflow.db")) as database, database:
        for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
            database.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (str(source), str(target)))
    return target


@pytest.fixture(scope="session")
def tiny_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """KDSEARCH_HOME with the images and the teacher of the study ``TINY``."""

    def make(folder: Path) -> None:
        (folder / "tiny.yaml").write_text(TINY, encoding="utf-8")
        make_materials(load_study(folder / "tiny.yaml"), folder)

    return made_once(tmp_path_factory, "tiny-home", make)


@pytest.fixture(scope="session")
def empty_record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's SQLite file with its tables and nothing in them, which takes MLflow seconds to make."""

    def make(folder: Path) -> None:
        open_client(Tracking(uri=f"sqlite:///{folder / 'mlflow.db'}"))

    return made_once(tmp_path_factory, "empty-record", make) / "mlflow.db"
