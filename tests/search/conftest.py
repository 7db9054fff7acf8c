"""Drivers for tests of this folder."""

from __future__ import annotations

import shutil

import pytest

from kdsearch.config.load import load_study
from kdsearch.tracking.location import Tracking
from tests.search.fake_driver import TWELVE, make_session


@pytest.fixture
def session(study_file, tmp_path):
    """Makes drivers; see ``make_session``."""

    def make(*, home=None, text=TWELVE, **settings):
        return make_session(load_study(study_file(text)), home or tmp_path, **settings)

    return make


@pytest.fixture(scope="module")
def home(tiny_home, empty_record, tmp_path_factory):
    """Shared by the tests of a file, with images, a teacher and a record that holds nothing yet."""
    home = shutil.copytree(tiny_home, tmp_path_factory.mktemp("driver") / "home")
    (home / "mlflow").mkdir()
    shutil.copyfile(empty_record, home / "mlflow" / "mlflow.db")
    return home


@pytest.fixture
def tracking(home):
    """The record of the shared home."""
    return Tracking(uri=f"sqlite:///{home / 'mlflow' / 'mlflow.db'}")
