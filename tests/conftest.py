"""What tests share: real images where they are, a study small enough for seconds."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from kdsearch.config.load import load_study
from kdsearch.config.study import StudyConfig
from tests.absent import absent
from tests.buckets import bucket
from tests.postgres import Postgres
from tests.shared import empty_record, made_once, tiny_home
from tests.shipping import bench, shipped, weights
from tests.tiny import TINY

__all__ = ["bench", "bucket", "empty_record", "shipped", "tiny_home", "weights"]


@pytest.fixture(autouse=True, scope="session")
def _interrupts_are_heeded() -> None:
    """A shell starts background jobs with Ctrl-C ignored, which programs that tests interrupt would inherit."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images; skips where it is absent."""
    folder = Path(os.environ.get("KDSEARCH_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        absent("realdata", f"no real images at {folder}; set KDSEARCH_DATA")
    return folder


@pytest.fixture(scope="session")
def real_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """KDSEARCH_HOME of all tests that read whole sets of real images, so that these are read once."""
    return made_once(tmp_path_factory, "real-home", lambda _: None)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A real PostgreSQL server; skips where none is installed."""
    if shutil.which("initdb") is None or shutil.which("pg_ctl") is None:
        absent("postgres", "PostgreSQL's initdb and pg_ctl are not on the PATH")
    with tempfile.TemporaryDirectory(prefix="kdsearch-postgres-") as name:
        server = Postgres(Path(name))
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture
def record(tmp_path: Path, empty_record: Path) -> str:
    """The URI of an MLflow record that holds nothing yet."""
    shutil.copyfile(empty_record, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture
def study_file(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a study file and says where."""

    def write(text: str) -> Path:
        path = tmp_path / "study.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def tiny(study_file: Callable[[str], Path]) -> StudyConfig:
    """A study that runs in seconds."""
    return load_study(study_file(TINY))
