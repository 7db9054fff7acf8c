"""Drivers for tests of this folder."""

from __future__ import annotations

import shutil

import pytest

from kdsearch.config.load import load_study
from kdsearch.search.run import run_study
from kdsearch.tracking.location import Tracking
from tests.search.fake_driver import TWELVE, make_session
from tests.search.setups import finish
from tests.tiny import INLINE


@pytest.fixture
def session(study_file, tmp_path):
    """Makes drivers; see ``make_session``."""

    def make(*, home=None, text=TWELVE, **settings):
        return make_session(load_study(study_file(text)), home or tmp_path, **settings)

    return make


@pytest.fixture(scope="module")
def home(tiny_home, empty_record, tmp_path_factory):
    """A home shared by a file's tests, with images, a teacher and an empty MLflow database."""
    home = shutil.copytree(tiny_home, tmp_path_factory.mktemp("driver") / "home")
    (home / "mlflow").mkdir()
    shutil.copyfile(empty_record, home / "mlflow" / "mlflow.db")
    return home


@pytest.fixture(scope="module")
def tracking(home):
    """The MLflow database of the shared home."""
    return Tracking(uri=f"sqlite:///{home / 'mlflow' / 'mlflow.db'}")


@pytest.fixture(scope="module")
def finished(home, tracking):
    """A finished study in the shared home."""
    (home / "finished.yaml").write_text(INLINE.replace("name: tiny", "name: finished"), encoding="utf-8")
    study = load_study(home / "finished.yaml")
    finish(run_study(study, home=home, tracking=tracking))
    return study
